//! What went wrong, in words, and the exit code that follows.

use std::io;
use std::process::ExitCode;

use artel_roles::Problems;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::connect::Address;
use super::render::page::{BAD, BOLD, DIM, Page};

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done,
    /// The task or check failed.
    Failed,
    /// What was asked for cannot be asked for.
    Usage,
    /// There is no daemon.
    NoDaemon,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0.into(),
            Exit::Failed => 1.into(),
            Exit::Usage => 2.into(),
            Exit::NoDaemon => 3.into(),
        }
    }
}

/// Why a verb did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What was asked for cannot be asked for.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers there.
    #[error("no daemon at {address}: {cause}")]
    NoDaemon {
        /// Where.
        address: String,
        /// What the connection said.
        cause: String,
    },
    /// The daemon was lost in the middle.
    #[error("the daemon is gone: {0}")]
    Lost(String),
    /// The daemon refuses.
    #[error("{}", said(.0))]
    Refused(Box<Status>),
    /// The files are no catalog.
    #[error("{0}")]
    Problems(Problems),
    /// The daemon answers what it must not.
    #[error("the daemon's answer lacks {0}; is it another version than this program?")]
    Answer(&'static str),
    /// Standard output takes no more.
    #[error("failed to write: {0}")]
    Output(#[from] io::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl Error {
    /// Nobody answers at an address.
    pub(crate) fn no_daemon(address: &Address, cause: &dyn std::error::Error) -> Self {
        // The cause beneath all others is the one that says something, such as "connection refused".
        let mut cause = cause;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Self::NoDaemon { address: address.to_string(), cause: cause.to_string() }
    }

    /// The exit code that follows.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NoDaemon { .. } | Self::Lost(_) => Exit::NoDaemon,
            Self::Refused(status) => match status.code() {
                Code::InvalidArgument | Code::NotFound => Exit::Usage,
                Code::Unavailable => Exit::NoDaemon,
                _ => Exit::Failed,
            },
            // Whoever reads, such as `head`, has seen enough.
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Problems(_) | Self::Answer(_) | Self::Output(_) => Exit::Failed,
        }
    }

    /// Tells it; nothing where it is no trouble.
    pub(crate) fn render(&self, page: &mut Page) {
        if self.exit() == Exit::Done {
            return;
        }
        page.paint(BAD, "error").put(": ").paint(BOLD, self).end();
        match self {
            Self::NoDaemon { .. } => {
                page.put("  help: start one with `artel serve`, or say where it is with --address").end();
            }
            Self::Lost(_) => {
                page.put("  help: when it is back, `artel task watch ID` goes on").end();
            }
            Self::Refused(status) => details(&status.get_error_details(), status.message(), page),
            _ => {}
        }
    }
}

/// What the daemon says; where it says nothing, what its code means.
fn said(status: &Status) -> &str {
    if status.message().is_empty() { status.code().description() } else { status.message() }
}

/// Whether a stream ended because the connection or the daemon did, and not for a reason of the call itself.
pub(crate) fn is_break(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.get_details_error_info().is_none(),
        _ => false,
    }
}

/// What the details add to the message.
fn details(details: &ErrorDetails, message: &str, page: &mut Page) {
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        if !(message.contains(&violation.field) && message.contains(&violation.description)) {
            page.put("  ").paint(BOLD, &violation.field).put(": ").put(&violation.description).end();
        }
    }
    if let Some(resource) = details.resource_info() {
        let what = format!("{} `{}`", resource.resource_type, resource.resource_name);
        if !resource.description.is_empty() {
            page.put(format_args!("  {what}: {}", resource.description)).end();
        } else if !message.contains(&resource.resource_name) {
            page.put(format_args!("  {what}")).end();
        }
    }
    for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
        page.put(format_args!("  {}: {}", violation.subject, violation.description)).end();
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        page.put(format_args!("  help: try again in {}", super::render::time::span(delay))).end();
    }
    let Some(info) = details.error_info() else { return };
    if let Some(nearest) = info.metadata.get("nearest").filter(|nearest| !message.contains(&format!("`{nearest}`"))) {
        page.put(format_args!("  help: did you mean `{nearest}`?")).end();
    }
    let mut more: Vec<_> = info.metadata.iter().filter(|(key, _)| *key != "nearest").collect();
    more.sort();
    page.paint(DIM, format_args!("  reason: {}", info.reason));
    for (key, value) in more {
        page.paint(DIM, format_args!(", {key} {value}"));
    }
    page.end();
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn rendered(error: &Error) -> String {
        let mut page = Page::new(false);
        error.render(&mut page);
        page.take()
    }

    #[test]
    fn a_refusal_brings_its_details() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("input", "must not be empty");
        details.set_resource_info("role", "crtic", "", "not in this catalog");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let metadata = HashMap::from([("nearest".into(), "critic".into()), ("last_seq".into(), "7".into())]);
        details.set_error_info("DEFINITION_NOT_FOUND", "artel.v1", metadata);
        let status = Status::with_error_details(Code::NotFound, "there is no role `crtic`", details);
        let error = Error::from(status);
        assert_eq!(error.exit(), Exit::Usage);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn what_the_message_says_is_not_said_again() {
        let mut details = ErrorDetails::with_bad_request_violation("input", "it is empty");
        details.set_resource_info("graph", "mento", "", "");
        let metadata = HashMap::from([("nearest".to_owned(), "mentor".to_owned())]);
        details.set_error_info("BAD_REQUEST", "artel.v1", metadata);
        let message = "input: it is empty; no graph `mento`, did you mean `mentor`?";
        let error = Error::from(Status::with_error_details(Code::InvalidArgument, message, details));
        assert_eq!(rendered(&error), format!("error: {message}\n  reason: BAD_REQUEST\n"));
    }

    #[test]
    fn without_a_daemon_it_says_how_to_get_one() {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::no_daemon(&"localhost:1".parse().unwrap(), &cause);
        assert_eq!(error.exit(), Exit::NoDaemon);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn exit_codes_follow_the_status() {
        let exit = |code| Error::from(Status::new(code, "")).exit();
        assert_eq!(exit(Code::InvalidArgument), Exit::Usage);
        assert_eq!(exit(Code::Unavailable), Exit::NoDaemon);
        assert_eq!(exit(Code::FailedPrecondition), Exit::Failed);
        assert_eq!(Error::from(Status::not_found("")).to_string(), Code::NotFound.description());
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit(), rendered(&error).as_str()), (Exit::Done, ""));
    }

    #[test]
    fn only_what_the_daemon_did_not_say_is_a_break() {
        let said = ErrorDetails::with_error_info("INTERNAL", "artel.v1", HashMap::<String, String>::new());
        assert!(is_break(&Status::unknown("h2 protocol error")));
        assert!(is_break(&Status::unavailable("shutting down")));
        assert!(!is_break(&Status::with_error_details(Code::Internal, "fault", said)));
        assert!(!is_break(&Status::out_of_range("after_seq")));
    }
}
