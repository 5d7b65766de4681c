//! The input of a task, and the request that submits it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use artel_args::{AnswerOptionArgs, ClientCommand, SubmitArgs, TaskCommand, TaskLabel};
use artel_proto::v1::response_format::Format;
use artel_proto::v1::submit_request::Target;
use artel_proto::v1::{Priority, ResponseFormat, SamplingOptions, SubmitRequest};

use crate::error::Error;
use crate::models::texts_or_lines;

/// The longest text that the daemon accepts.
const MAX_TEXT_BYTES: u64 = 1024 * 1024;
/// The name of what is read for `-`.
const STANDARD_INPUT: &str = "standard input";

/// Replaces a text of `-` by the content of standard input, and takes its lines where texts are left out.
pub(crate) fn read_texts(mut command: ClientCommand) -> Result<ClientCommand, Error> {
    match &mut command {
        ClientCommand::Embed(args) => texts_or_lines(&mut args.texts)?,
        ClientCommand::Rerank(args) => texts_or_lines(&mut args.documents)?,
        _ => {}
    }
    let text = match &mut command {
        ClientCommand::Run(submit) | ClientCommand::Task(TaskCommand::Submit(submit)) => Some(&mut submit.text),
        ClientCommand::Task(TaskCommand::Answer(answer)) => answer.text.as_mut(),
        ClientCommand::Route(route) => route.text.as_mut(),
        _ => None,
    };
    if let Some(text) = text.filter(|text| *text == "-") {
        *text = read(io::stdin().lock(), STANDARD_INPUT)?;
    }
    Ok(command)
}

/// Reads a file, or standard input for `-`, as [`read`] does.
pub(crate) fn read_file(file: &Path) -> Result<String, Error> {
    if file == Path::new("-") {
        return read(io::stdin().lock(), STANDARD_INPUT);
    }
    let name = file.display().to_string();
    read(File::open(file).map_err(|e| unreadable(&name, &e))?, &name)
}

/// Reads the text of this name to its end, within the limit of the daemon; removes the final line break.
pub(crate) fn read(input: impl Read, name: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    input.take(MAX_TEXT_BYTES + 2).read_to_end(&mut bytes).map_err(|e| unreadable(name, &e))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Error::Usage(format!("{name} is not UTF-8 text")))?;
    if text.ends_with('\n') {
        text.pop();
    }
    match text.len() as u64 {
        0 => Err(Error::Usage(format!("{name} is empty"))),
        1..=MAX_TEXT_BYTES => Ok(text),
        _ => Err(Error::Usage(format!("{name} has more than {MAX_TEXT_BYTES} bytes"))),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Error {
    Error::Usage(format!("failed to read {name}: {error}"))
}

/// The request that submits a task.
pub(crate) fn request(submit: SubmitArgs) -> Result<SubmitRequest, Error> {
    let SubmitArgs { graph, role, batch, labels, request_id, answer, text } = submit;
    let (sampling, response) = answer_options(answer)?;
    Ok(SubmitRequest {
        target: graph.map(Target::Graph).or(role.map(Target::Role)),
        input: text,
        request_id: request_id.unwrap_or_default(),
        priority: if batch { Priority::Batch } else { Priority::Interactive }.into(),
        labels: label_map(labels),
        sampling,
        response,
        ..SubmitRequest::default()
    })
}

/// What the answer is to be like; what is not given is not sent.
fn answer_options(answer: AnswerOptionArgs) -> Result<(Option<SamplingOptions>, Option<ResponseFormat>), Error> {
    let AnswerOptionArgs { temperature, max_tokens, seed, answers: n, logprobs, schema } = answer;
    let sampling = SamplingOptions { temperature, max_tokens, seed, n, logprobs, ..SamplingOptions::default() };
    let sampling = Some(sampling).filter(|sampling| *sampling != SamplingOptions::default());
    let response = match schema {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| Error::Usage(format!("failed to read the schema {}: {e}", path.display())))?;
            Some(ResponseFormat { format: Some(Format::JsonSchemaText(text)) })
        }
    };
    Ok((sampling, response))
}

/// Labels as a map; of two with the same key the last one wins.
pub(crate) fn label_map(labels: Vec<TaskLabel>) -> HashMap<String, String> {
    labels.into_iter().map(|TaskLabel { key, value }| (key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_line_break_is_removed() {
        assert_eq!(read("a\nb\n".as_bytes(), "a file").unwrap(), "a\nb");
        assert_eq!(read("a".as_bytes(), "a file").unwrap(), "a");
    }

    #[test]
    fn a_text_that_the_daemon_would_reject_is_not_sent() {
        let limit = usize::try_from(MAX_TEXT_BYTES).unwrap();
        assert_eq!(read("x".repeat(limit).as_bytes(), "a file").unwrap().len(), limit);
        for bad in [vec![b'x'; limit + 1], vec![0xff, b'x'], b"\n".to_vec(), Vec::new()] {
            assert!(matches!(read(bad.as_slice(), "a file"), Err(Error::Usage(_))));
        }
    }
}
