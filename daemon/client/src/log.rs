//! `artel log`.

use artel_args::LogCommand;
use artel_proto::v1::{GetLogLevelRequest, LogLevel, SetLogLevelRequest};
use artel_terminal::CommandOutcome;

use crate::connect::with_deadline;
use crate::error::Error;
use crate::json::ToJson;
use crate::session::ClientSession;

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: LogCommand) -> Result<CommandOutcome, Error> {
    let LogCommand::Level { filter } = command;
    let mut admin = session.daemon.admin();
    let level: LogLevel = match filter {
        None => admin.get_log_level(with_deadline(GetLogLevelRequest {})).await?.into_inner(),
        Some(filter) => admin.set_log_level(with_deadline(SetLogLevelRequest { filter })).await?.into_inner(),
    };
    session.output.show(&level.to_json(), |out| {
        out.push(&level.filter);
        if !level.previous_filter.is_empty() {
            out.push(format_args!(", before: {}", level.previous_filter));
        }
        out.newline();
    })?;
    Ok(CommandOutcome::Done)
}
