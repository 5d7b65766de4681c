//! What a repair did, in words.

use anyhow::Result;
use artel_journal::Repair;
use artel_task::TaskId;
use serde_json::json;

use super::none;
use crate::client::output::Output;
use crate::client::render::page::{BAD, GOOD, Page};

pub(super) fn tell(repair: Option<&Repair>, output: &mut Output) -> Result<()> {
    let Some(repair) = repair else {
        let nothing = json!({"kept": 0, "failed": [], "lost": []});
        return Ok(output.show(&nothing, none)?);
    };
    let Repair { aside, kept, failed, lost, nameless, newest, catalogs } = repair;
    let names = |tasks: &[TaskId]| tasks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let whole = json!({
        "aside": aside.as_ref().map(|aside| aside.display().to_string()),
        "kept": kept,
        "failed": names(failed),
        "lost": names(lost),
        "nameless": nameless,
        "newest_may_be_lost": newest,
        "catalogs_lost": catalogs,
    });
    Ok(output.show(&whole, |page| render(repair, page))?)
}

fn render(repair: &Repair, page: &mut Page) {
    let Repair { aside, kept, failed, lost, nameless, newest, catalogs } = repair;
    let Some(aside) = aside else {
        page.paint(GOOD, "whole").put(": ").put(kept).put(" tasks; nothing was done").end();
        return;
    };
    for task in failed {
        page.put("task ").put(task).put(": only its beginning could be read, it has failed now").end();
    }
    for task in lost {
        page.put("task ").put(task).put(": lost").end();
    }
    if *nameless > 0 {
        page.put("up to ").put(nameless).put(" more tasks are lost, and not even their names could be read").end();
    }
    if *newest {
        page.put("the newest tasks may be lost, too; nobody can say how many they were").end();
    }
    if *catalogs > 0 {
        page.put(catalogs).put(" catalogs are lost; a running task that needs one fails at the next start").end();
    }
    let counted = format_args!("{kept} tasks kept, {} failed, {} lost", failed.len(), lost.len());
    page.paint(if lost.is_empty() { GOOD } else { BAD }, "repaired").put(": ").put(counted).end();
    page.put("  the damaged files are in ").put(aside.display()).end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(repair: &Repair) -> String {
        let mut page = Page::new(false);
        render(repair, &mut page);
        page.take()
    }

    #[test]
    fn a_whole_journal_is_left_alone() {
        assert_eq!(shown(&Repair { kept: 3, ..Repair::default() }), "whole: 3 tasks; nothing was done\n");
    }

    #[test]
    fn what_is_lost_is_named() {
        let task = |n: u8| TaskId::from_bytes([n; 16]);
        let text = shown(&Repair {
            aside: Some("aside".into()),
            kept: 3,
            failed: vec![task(1)],
            lost: vec![task(2)],
            nameless: 4,
            newest: true,
            catalogs: 1,
        });
        let expected = format!(
            "task {}: only its beginning could be read, it has failed now\ntask {}: lost\n\
             up to 4 more tasks are lost, and not even their names could be read\n\
             the newest tasks may be lost, too; nobody can say how many they were\n\
             1 catalogs are lost; a running task that needs one fails at the next start\n\
             repaired: 3 tasks kept, 1 failed, 1 lost\n  the damaged files are in aside\n",
            task(1),
            task(2)
        );
        assert_eq!(text, expected);
    }
}
