//! Errors of commands, their messages and exit codes.

use std::error::Error as _;
use std::io;
use std::path::Path;

use artel_args::DaemonAddress;
use artel_roles::Problems;
use artel_terminal::{BOLD, CommandOutcome, DIM, StyledText, span};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid usage.
    #[error("{0}")]
    Usage(String),
    /// The connection was not accepted.
    #[error("no daemon at {address}: {cause}")]
    NoDaemon {
        /// The address that was tried.
        address: String,
        /// The error of the connection.
        cause: String,
    },
    /// The connection was lost and could not be restored.
    #[error("lost the connection to the daemon: {0}")]
    Disconnected(String),
    /// The daemon accepts each watch of a task and ends it at once.
    #[error("the daemon ended {streams} streams in a row without a new event of task {task}, last: {cause}")]
    EndlessReconnects {
        /// The task.
        task: String,
        /// How many streams.
        streams: u32,
        /// Why the last one ended.
        cause: String,
    },
    /// An event of a task was received and cannot be read: another attempt would fail in the same way.
    #[error("failed to read event {seq} of task {task}: {cause}")]
    UnreadableEvent {
        /// The task.
        task: String,
        /// The sequence number of the event.
        seq: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// The daemon rejected the request.
    #[error("{}", status_message(.0))]
    Rejected(Box<Status>),
    /// The daemon knows no caller by what was sent.
    #[error("{}", status_message(.status))]
    Unauthenticated {
        /// The answer.
        status: Box<Status>,
        /// What the call had: a token from somewhere, or none for some reason.
        token: String,
    },
    /// The files are not a valid catalog.
    #[error("{0}")]
    Problems(Problems),
    /// The answer of the daemon is incomplete.
    #[error("the answer of the daemon lacks {0}; check that the daemon has the version of this program")]
    IncompleteAnswer(&'static str),
    /// The daemon ended while it was working for this command.
    #[error("the daemon has ended: {0}")]
    DaemonEnded(String),
    /// The daemon sends a file whose name is no plain one.
    #[error("the daemon sends a file of the name {0:?}, which could lie outside the directory; nothing is written")]
    UnsafeFileName(String),
    /// A file cannot be written.
    #[error("failed to write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Writing the output failed.
    #[error("failed to write the output: {0}")]
    Output(#[from] io::Error),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Rejected(Box::new(status))
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl Error {
    /// [`Error::File`] of this path.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    /// [`Error::NoDaemon`] with the root cause of a connection error.
    pub(crate) fn no_daemon(address: &DaemonAddress, cause: &dyn std::error::Error) -> Self {
        Self::NoDaemon { address: address.to_string(), cause: root_cause(cause) }
    }

    /// With where the token was looked for, if the daemon does not accept it.
    pub(crate) fn with_token_origin(self, origin: &str) -> Self {
        match self {
            Self::Rejected(status) if status.code() == Code::Unauthenticated => {
                Self::Unauthenticated { status, token: origin.to_owned() }
            }
            other => other,
        }
    }

    /// The outcome of the command.
    pub(crate) fn outcome(&self) -> CommandOutcome {
        match self {
            Self::Usage(_) => CommandOutcome::Usage,
            Self::NoDaemon { .. } | Self::Disconnected(_) | Self::DaemonEnded(_) => CommandOutcome::NoDaemon,
            Self::Rejected(status) => match status.code() {
                Code::InvalidArgument | Code::NotFound => CommandOutcome::Usage,
                Code::Unavailable => CommandOutcome::NoDaemon,
                _ if is_disconnect(status) => CommandOutcome::NoDaemon,
                _ => CommandOutcome::Failed,
            },
            // The reader, such as `head`, has closed the pipe on purpose.
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => CommandOutcome::Done,
            Self::Unauthenticated { .. }
            | Self::EndlessReconnects { .. }
            | Self::Problems(_)
            | Self::IncompleteAnswer(_)
            | Self::UnreadableEvent { .. }
            | Self::UnsafeFileName(_)
            | Self::File { .. }
            | Self::Output(_) => CommandOutcome::Failed,
        }
    }

    /// Renders the message with details and advice; nothing for a closed pipe.
    pub(crate) fn render(&self, out: &mut StyledText) {
        if self.outcome() == CommandOutcome::Done {
            return;
        }
        out.push_error(self);
        match self {
            Self::NoDaemon { .. } => {
                out.push("  help: start one with `artel serve`, or say where it is with --address or --data").newline();
            }
            Self::Disconnected(_) => {
                out.push("  help: the task continues when the daemon is back: follow it with `artel task watch ID`")
                    .newline();
            }
            Self::EndlessReconnects { task, .. } => {
                out.push(format_args!("  help: see how it stands with `artel task show {task}`, and the daemon's log"))
                    .newline();
            }
            Self::UnreadableEvent { task, seq, .. } => {
                out.push(format_args!("  help: skip it with `artel task watch {task} --after {seq}`")).newline();
            }
            Self::Unauthenticated { token, .. } => {
                out.push(format_args!("  help: the call had {token}")).newline();
                out.push("  help: the owner of the daemon makes one with `artel token create --name NAME --scopes read,submit`")
                    .newline();
            }
            Self::Rejected(status) => {
                let details = status.get_error_details();
                render_details(&details, status.message(), out);
                if let Some(scope) = missing_scope(status.code(), &details) {
                    out.push(format_args!(
                        "  help: `artel token create --name NAME --scopes {scope}` makes a token that has it"
                    ))
                    .newline();
                }
            }
            _ => {}
        }
    }
}

/// The root cause of an error of a connection: it alone is informative, such as "connection refused".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The message of a status, or else the description of its code; with the cause of a fault of the connection.
fn status_message(status: &Status) -> String {
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    match status.source() {
        Some(cause) => format!("{message}: {}", root_cause(cause)),
        None => message.to_owned(),
    }
}

/// Whether a call ended because of the connection or the daemon's end, and not because of the call itself. An error of the
/// transport is the source of its status; a message that cannot be decoded, which would arrive again, has a status without one.
pub(crate) fn is_disconnect(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

/// The scope that the caller lacks.
fn missing_scope(code: Code, details: &ErrorDetails) -> Option<&str> {
    let info = details.error_info().filter(|_| code == Code::PermissionDenied)?;
    info.metadata.get("scope").map(String::as_str)
}

/// Renders the details that the message does not contain.
fn render_details(details: &ErrorDetails, message: &str, out: &mut StyledText) {
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        if !(message.contains(&violation.field) && message.contains(&violation.description)) {
            out.push("  ").push_styled(BOLD, &violation.field).push(": ").push(&violation.description).newline();
        }
    }
    if let Some(resource) = details.resource_info() {
        let subject = format!("{} `{}`", resource.resource_type, resource.resource_name);
        if !resource.description.is_empty() {
            out.push(format_args!("  {subject}: {}", resource.description)).newline();
        } else if !message.contains(&resource.resource_name) {
            out.push(format_args!("  {subject}")).newline();
        }
    }
    for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
        out.push(format_args!("  {}: {}", violation.subject, violation.description)).newline();
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        out.push(format_args!("  help: retry in {}", span(delay))).newline();
    }
    let Some(info) = details.error_info() else { return };
    if let Some(nearest) = info.metadata.get("nearest").filter(|nearest| !message.contains(&format!("`{nearest}`"))) {
        out.push(format_args!("  help: did you mean `{nearest}`?")).newline();
    }
    let mut rest: Vec<_> = info.metadata.iter().filter(|(key, _)| *key != "nearest").collect();
    rest.sort();
    out.push_styled(DIM, format_args!("  reason: {}", info.reason));
    for (key, value) in rest {
        out.push_styled(DIM, format_args!(", {key} {value}"));
    }
    out.newline();
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn rendered(error: &Error) -> String {
        let mut out = StyledText::new(false);
        error.render(&mut out);
        out.take()
    }

    #[test]
    fn a_rejection_is_shown_with_its_details() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("input", "must not be empty");
        details.set_resource_info("role", "crtic", "", "not in this catalog");
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let metadata = HashMap::from([("nearest".into(), "critic".into()), ("last_seq".into(), "7".into())]);
        details.set_error_info("DEFINITION_NOT_FOUND", "artel.v1", metadata);
        let status = Status::with_error_details(Code::NotFound, "there is no role `crtic`", details);
        let error = Error::from(status);
        assert_eq!(error.outcome(), CommandOutcome::Usage);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn details_that_the_message_contains_are_not_repeated() {
        let mut details = ErrorDetails::with_bad_request_violation("input", "it is empty");
        details.set_resource_info("graph", "mento", "", "");
        let metadata = HashMap::from([("nearest".to_owned(), "mentor".to_owned())]);
        details.set_error_info("BAD_REQUEST", "artel.v1", metadata);
        let message = "input: it is empty; no graph `mento`, did you mean `mentor`?";
        let error = Error::from(Status::with_error_details(Code::InvalidArgument, message, details));
        assert_eq!(rendered(&error), format!("error: {message}\n  reason: BAD_REQUEST\n"));
    }

    #[test]
    fn without_a_daemon_the_help_says_how_to_start_one() {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = Error::no_daemon(&"localhost:1".parse().unwrap(), &cause);
        assert_eq!(error.outcome(), CommandOutcome::NoDaemon);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn a_call_without_a_token_says_where_one_was_looked_for() {
        let error = Error::from(Status::unauthenticated("the token is unknown or revoked"));
        let error = error.with_token_origin("the token in DATA/token");
        assert_eq!(error.outcome(), CommandOutcome::Failed);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn a_missing_scope_is_named_with_the_command_that_gives_it() {
        let metadata =
            HashMap::from([("caller".to_owned(), "ci".to_owned()), ("scope".to_owned(), "apply".to_owned())]);
        let details = ErrorDetails::with_error_info("MISSING_SCOPE", "artel.v1", metadata);
        let message = "the token `ci` lacks the scope `apply`";
        let error = Error::from(Status::with_error_details(Code::PermissionDenied, message, details));
        assert_eq!(error.outcome(), CommandOutcome::Failed);
        insta::assert_snapshot!(rendered(&error));
    }

    #[test]
    fn exit_codes_follow_the_status() {
        let outcome = |code| Error::from(Status::new(code, "")).outcome();
        assert_eq!(outcome(Code::InvalidArgument), CommandOutcome::Usage);
        assert_eq!(outcome(Code::Unavailable), CommandOutcome::NoDaemon);
        assert_eq!(outcome(Code::FailedPrecondition), CommandOutcome::Failed);
        assert_eq!(Error::from(Status::not_found("")).to_string(), Code::NotFound.description());
        assert_eq!(Error::DaemonEnded(String::new()).outcome(), CommandOutcome::NoDaemon);
        let full = Error::file(Path::new("a.gguf"))(io::ErrorKind::StorageFull.into());
        assert_eq!(full.outcome(), CommandOutcome::Failed);
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.outcome(), rendered(&error).as_str()), (CommandOutcome::Done, ""));
    }

    #[test]
    fn an_error_reported_by_the_daemon_is_no_disconnect() {
        let reported = ErrorDetails::with_error_info("INTERNAL", "artel.v1", HashMap::<String, String>::new());
        let broken_pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_disconnect(&Status::from_error(broken_pipe.into())));
        assert!(is_disconnect(&Status::unavailable("shutting down")));
        assert!(!is_disconnect(&Status::internal("failed to decode Protobuf message: recursion limit reached")));
        assert!(!is_disconnect(&Status::with_error_details(Code::Internal, "fault", reported)));
        assert!(!is_disconnect(&Status::out_of_range("after_seq")));
    }
}
