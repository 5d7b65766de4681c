//! `artel task erase`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use artel_args::EraseArgs;
use artel_proto::v1::{EraseRequest, EraseResponse};
use artel_terminal::{CommandOutcome, StyledText};
use tonic::Request;

use crate::error::Error;
use crate::json::ToJson;
use crate::session::ClientSession;

/// Erases tasks, once the user has agreed.
pub(super) async fn run(session: &mut ClientSession, erase: EraseArgs) -> Result<CommandOutcome, Error> {
    let EraseArgs { ids, owner, yes } = erase;
    let request = EraseRequest { task_ids: ids, owner: owner.unwrap_or_default() };
    if !yes && !is_confirmed(&request)? {
        return Err(Error::Usage("nothing was erased".to_owned()));
    }
    // Without a deadline: the daemon writes its journal anew, which takes as long as copying the file.
    let erased = session.daemon.tasks().erase(Request::new(request)).await?.into_inner();
    session.output.show(&erased.to_json(), |out| render(&erased, out))?;
    Ok(CommandOutcome::Done)
}

/// Asks on the terminal.
fn is_confirmed(request: &EraseRequest) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage("an erase cannot be undone: confirm it with --yes".to_owned()));
    }
    let what = match (request.owner.as_str(), request.task_ids.as_slice()) {
        ("", [id]) => format!("of task {id}"),
        ("", ids) => format!("of {} tasks", ids.len()),
        (owner, _) => format!("of all tasks of `{owner}`"),
    };
    let mut err = io::stderr().lock();
    write!(err, "Erase the text {what}? It cannot be undone. [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn render(erased: &EraseResponse, out: &mut StyledText) {
    out.push(format_args!("erased the text of {}", counted(erased.tasks, "task", "tasks")));
    if erased.cancelled_tasks > 0 {
        out.push(format_args!(", {} of them cancelled for it", erased.cancelled_tasks));
    }
    out.newline();
    let more = [
        (erased.feedback_entries, "entry of feedback", "entries of feedback"),
        (erased.ratings, "rating of an answer", "ratings of answers"),
        (erased.prefix_files, "file of the prefix cache", "files of the prefix cache"),
        (erased.knowledge_texts, "text of a knowledge", "texts of knowledge"),
        (erased.journal_copies, "copy of a damaged journal", "copies of damaged journals"),
    ];
    for (count, one, many) in more.into_iter().filter(|(count, ..)| *count > 0) {
        out.push(format_args!("removed {}", counted(count, one, many))).newline();
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_and_what_was_not_there_is_not() {
        let shown = |erased: EraseResponse| {
            let mut out = StyledText::new(false);
            render(&erased, &mut out);
            out.take()
        };
        assert_eq!(shown(EraseResponse { tasks: 2, ..Default::default() }), "erased the text of 2 tasks\n");
        let all = EraseResponse {
            tasks: 9,
            cancelled_tasks: 1,
            feedback_entries: 3,
            prefix_files: 4,
            journal_copies: 1,
            knowledge_texts: 0,
            ratings: 2,
        };
        let expected = "erased the text of 9 tasks, 1 of them cancelled for it\nremoved 3 entries of feedback\n\
                        removed 2 ratings of answers\nremoved 4 files of the prefix cache\nremoved 1 copy of a damaged journal\n";
        assert_eq!(shown(all), expected);
    }
}
