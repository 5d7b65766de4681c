//! The report of a repair.

use anyhow::Result;
use artel_journal::RepairReport;
use artel_task::TaskId;
use artel_terminal::{BAD, CommandOutput, GOOD, StyledText};
use serde_json::json;

use super::integrity::render_missing;

pub(super) fn print(repair: Option<&RepairReport>, output: &mut CommandOutput) -> Result<()> {
    let Some(repair) = repair else {
        let empty = json!({"kept": 0, "failed": [], "lost": []});
        return Ok(output.show(&empty, render_missing)?);
    };
    let RepairReport { backup, kept, failed, lost, unidentified, newest_may_be_lost, lost_catalogs } = repair;
    let ids = |tasks: &[TaskId]| tasks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let summary = json!({
        "backup": backup.as_ref().map(|backup| backup.display().to_string()),
        "kept": kept,
        "failed": ids(failed),
        "lost": ids(lost),
        "unidentified": unidentified,
        "newest_may_be_lost": newest_may_be_lost,
        "catalogs_lost": lost_catalogs,
    });
    Ok(output.show(&summary, |out| render(repair, out))?)
}

fn render(repair: &RepairReport, out: &mut StyledText) {
    let RepairReport { backup, kept, failed, lost, unidentified, newest_may_be_lost, lost_catalogs } = repair;
    let Some(backup) = backup else {
        out.push_styled(GOOD, "intact").push(": ").push(kept).push(" tasks; nothing to repair").newline();
        return;
    };
    for task in failed {
        out.push("task ").push(task).push(": only its first events could be read; it is failed now").newline();
    }
    for task in lost {
        out.push("task ").push(task).push(": lost").newline();
    }
    if *unidentified > 0 {
        out.push("up to ").push(unidentified).push(" more tasks are lost; their ids could not be read").newline();
    }
    if *newest_may_be_lost {
        out.push("the newest tasks may be lost as well; their number is unknown").newline();
    }
    if *lost_catalogs > 0 {
        out.push(lost_catalogs)
            .push(" catalogs are lost; a running task that needs one fails at the next start")
            .newline();
    }
    let counts = format_args!("{kept} tasks kept, {} failed, {} lost", failed.len(), lost.len());
    out.push_styled(if lost.is_empty() { GOOD } else { BAD }, "repaired").push(": ").push(counts).newline();
    out.push("  the damaged files are in ").push(backup.display()).newline();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(repair: &RepairReport) -> String {
        let mut out = StyledText::new(false);
        render(repair, &mut out);
        out.take()
    }

    #[test]
    fn an_intact_journal_is_not_changed() {
        assert_eq!(
            rendered(&RepairReport { kept: 3, ..RepairReport::default() }),
            "intact: 3 tasks; nothing to repair\n"
        );
    }

    #[test]
    fn lost_tasks_are_listed() {
        let task = |n: u8| TaskId::from_bytes([n; 16]);
        let text = rendered(&RepairReport {
            backup: Some("backup".into()),
            kept: 3,
            failed: vec![task(1)],
            lost: vec![task(2)],
            unidentified: 4,
            newest_may_be_lost: true,
            lost_catalogs: 1,
        });
        let expected = format!(
            "task {}: only its first events could be read; it is failed now\ntask {}: lost\n\
             up to 4 more tasks are lost; their ids could not be read\n\
             the newest tasks may be lost as well; their number is unknown\n\
             1 catalogs are lost; a running task that needs one fails at the next start\n\
             repaired: 3 tasks kept, 1 failed, 1 lost\n  the damaged files are in backup\n",
            task(1),
            task(2)
        );
        assert_eq!(text, expected);
    }
}
