//! `artel embed` and `artel rerank`.

use std::io::{self, BufRead};

use artel_args::{EmbedArgs, RerankArgs};
use artel_proto::v1::{EmbedRequest, InputKind, Priority, RerankRequest};
use artel_terminal::CommandOutcome;

use crate::error::Error;
use crate::json::ToJson;
use crate::render::models as render;
use crate::session::ClientSession;

/// Texts and bytes of one request, the limits of the daemon.
const MAX_REQUEST_TEXTS: usize = 256;
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The most that is read of standard input: far more texts than a person waits for.
const MAX_STDIN_BYTES: u64 = 64 * 1024 * 1024;

/// Takes the lines of standard input as the texts, where none are given.
pub(crate) fn texts_or_lines(texts: &mut Vec<String>) -> Result<(), Error> {
    if texts.is_empty() {
        *texts = lines(io::stdin().lock())?;
    }
    Ok(())
}

/// The lines of a text that are not empty.
fn lines(input: impl BufRead) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    let mut input = input.take(MAX_STDIN_BYTES + 1);
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line);
        if read.map_err(|e| Error::Usage(format!("failed to read standard input as lines of UTF-8 text: {e}")))? == 0 {
            break;
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if !text.is_empty() {
            texts.push(text.to_owned());
        }
    }
    match (input.limit(), texts.is_empty()) {
        (0, _) => Err(Error::Usage(format!("standard input has more than {MAX_STDIN_BYTES} bytes"))),
        (_, true) => Err(Error::Usage("standard input has no text".to_owned())),
        _ => Ok(texts),
    }
}

/// Embeds texts, in several requests if there are many.
pub(super) async fn embed(session: &mut ClientSession, args: EmbedArgs) -> Result<CommandOutcome, Error> {
    let EmbedArgs { model, texts, dimensions, kind, truncate, batch } = args;
    let input_kind = match kind {
        None => InputKind::Unspecified,
        Some(artel_args::InputKind::Query) => InputKind::Query,
        Some(artel_args::InputKind::Passage) => InputKind::Passage,
    };
    let mut shown = 0;
    for inputs in requests(&texts) {
        let request = EmbedRequest {
            model: model.clone(),
            inputs: inputs.to_vec(),
            dimensions: dimensions.unwrap_or(0),
            truncate,
            priority: priority(batch),
            input_kind: input_kind.into(),
        };
        // It may wait for the model to be loaded, so it has no deadline.
        let answer = session.daemon.models().embed(request).await?.into_inner();
        for (text, embedding) in inputs.iter().zip(&answer.embeddings) {
            let mut json = embedding.to_json();
            json["index"] = shown.into();
            session.output.show(&json, |out| render::embedding(text, embedding, out))?;
            shown += 1;
        }
    }
    Ok(CommandOutcome::Done)
}

/// Ranks documents.
pub(super) async fn rerank(session: &mut ClientSession, args: RerankArgs) -> Result<CommandOutcome, Error> {
    let RerankArgs { model, documents, query, top, truncate, batch } = args;
    let request = RerankRequest {
        model,
        query,
        documents: documents.clone(),
        top_n: top.unwrap_or(0),
        truncate,
        priority: priority(batch),
    };
    let answer = session.daemon.models().rerank(request).await?.into_inner();
    if session.output.is_json() {
        for document in &answer.results {
            session.output.object(&document.to_json())?;
        }
    } else {
        session.output.render(|out| render::ranking(&documents, &answer.results, out))?;
    }
    Ok(CommandOutcome::Done)
}

fn priority(batch: bool) -> i32 {
    if batch { Priority::Batch } else { Priority::Interactive }.into()
}

/// The texts of each request, within the limits; one that is too long alone is refused by the daemon.
fn requests(texts: &[String]) -> Vec<&[String]> {
    let (mut requests, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, text) in texts.iter().enumerate() {
        if at > start && (at - start == MAX_REQUEST_TEXTS || bytes + text.len() > MAX_REQUEST_BYTES) {
            requests.push(&texts[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += text.len();
    }
    requests.push(&texts[start..]);
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_texts_are_several_requests() {
        let sizes = |texts: &[String]| requests(texts).iter().map(|texts| texts.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&vec!["x".to_owned(); 600]), [256, 256, 88]);
        let half = "x".repeat(MAX_REQUEST_BYTES / 2);
        assert_eq!(sizes(&[half.clone(), half.clone(), half]), [2, 1]);
        assert_eq!(sizes(&["x".repeat(MAX_REQUEST_BYTES + 1), "y".to_owned()]), [1, 1]);
    }

    #[test]
    fn the_lines_that_are_not_empty_are_the_texts() {
        assert_eq!(lines("a\r\n\nb c\n".as_bytes()).unwrap(), ["a", "b c"]);
        for bad in [&b"\n\n"[..], b"", b"\xff\n"] {
            assert!(matches!(lines(bad), Err(Error::Usage(_))), "{bad:?}");
        }
    }
}
