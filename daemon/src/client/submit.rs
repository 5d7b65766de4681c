//! Requests: their text, and the message that hands them in.

use std::collections::HashMap;
use std::io::{self, Read};

use artel_proto::v1::submit_request::Target;
use artel_proto::v1::{Class, SubmitRequest};

use super::error::Error;
use crate::args::{Client, Label, Submit, Task};

/// The longest text that the daemon takes, in bytes.
const MAX_TEXT: u64 = 1024 * 1024;

/// Replaces each text that is `-` by what standard input has.
pub(crate) fn read_texts(mut verb: Client) -> Result<Client, Error> {
    let text = match &mut verb {
        Client::Run(submit) | Client::Task(Task::Submit(submit)) => Some(&mut submit.text),
        Client::Task(Task::Answer(answer)) => answer.text.as_mut(),
        Client::Route(route) => route.text.as_mut(),
        _ => None,
    };
    if let Some(text) = text.filter(|text| *text == "-") {
        *text = read(io::stdin().lock())?;
    }
    Ok(verb)
}

/// Reads a text to its end, within the daemon's limit; the line break that ends it is no part of it.
fn read(input: impl Read) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = input.take(MAX_TEXT + 2).read_to_end(&mut bytes);
    read.map_err(|e| Error::Usage(format!("standard input cannot be read: {e}")))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Error::Usage("standard input is not UTF-8 text".to_owned()))?;
    if text.ends_with('\n') {
        text.pop();
    }
    match text.len() as u64 {
        0 => Err(Error::Usage("standard input is empty".to_owned())),
        1..=MAX_TEXT => Ok(text),
        _ => Err(Error::Usage(format!("standard input has more than {MAX_TEXT} bytes"))),
    }
}

/// The message that hands in a task.
pub(crate) fn request(submit: Submit) -> SubmitRequest {
    let Submit { graph, role, batch, labels, request_id, text } = submit;
    SubmitRequest {
        target: graph.map(Target::Graph).or(role.map(Target::Role)),
        input: text,
        request_id: request_id.unwrap_or_default(),
        task_class: if batch { Class::Batch } else { Class::Interactive }.into(),
        labels: pairs(labels),
    }
}

/// Labels as messages carry them; of two with one key the later holds.
pub(crate) fn pairs(labels: Vec<Label>) -> HashMap<String, String> {
    labels.into_iter().map(|Label { key, value }| (key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_before_its_last_line_break() {
        assert_eq!(read("a\nb\n".as_bytes()).unwrap(), "a\nb");
        assert_eq!(read("a".as_bytes()).unwrap(), "a");
    }

    #[test]
    fn a_text_that_the_daemon_would_refuse_is_not_sent() {
        let limit = usize::try_from(MAX_TEXT).unwrap();
        assert_eq!(read("x".repeat(limit).as_bytes()).unwrap().len(), limit);
        for bad in [vec![b'x'; limit + 1], vec![0xff, b'x'], b"\n".to_vec(), Vec::new()] {
            assert!(matches!(read(bad.as_slice()), Err(Error::Usage(_))));
        }
    }
}
