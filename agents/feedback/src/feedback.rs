//! Feedback on routing decisions.

use artel_task::{CallerName, RoleName, TaskId};
use serde::{Deserialize, Serialize};

use crate::record_file::{RecordFile, StepRecord};

/// The maximum length of a stored text: about as much as a router reads.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Feedback on a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// The task of the decision.
    pub task: TaskId,
    /// The router's step, as events write it.
    pub step: String,
    /// The text that was routed, cut to some kilobytes.
    pub text: String,
    /// The role that the router chose.
    pub chosen: RoleName,
    /// The role that would have been right; `None`: none of the candidates.
    pub role: Option<RoleName>,
    /// A comment in free text.
    pub comment: String,
    /// The caller that the task belongs to.
    #[serde(default = "CallerName::owner")]
    pub owner: CallerName,
    /// The caller that gave the feedback.
    #[serde(default = "CallerName::owner")]
    pub caller: CallerName,
}

impl StepRecord for FeedbackRecord {
    const FILE_NAME: &'static str = "feedback.jsonl";
    const WHAT: &'static str = "feedback";

    fn place(&self) -> (TaskId, &str) {
        (self.task, &self.step)
    }

    fn owner(&self) -> &CallerName {
        &self.owner
    }

    fn shorten(&mut self) {
        self.text.truncate(self.text.floor_char_boundary(MAX_TEXT_BYTES));
    }
}

/// The stored feedback, in `feedback.jsonl`.
pub type FeedbackStore = RecordFile<FeedbackRecord>;

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{ErrorKind, Write as _};
    use std::path::Path;

    use artel_journal::Erasure;

    use super::*;
    use crate::Error;

    fn record(step: &str, role: &str) -> FeedbackRecord {
        let name = |name| RoleName::parse(name).unwrap();
        FeedbackRecord {
            task: TaskId::new(1, [0; 10]),
            step: step.to_owned(),
            text: "Где?\nHere".to_owned(),
            chosen: name("gguf"),
            role: RoleName::parse(role).ok(),
            comment: String::new(),
            owner: CallerName::owner(),
            caller: CallerName::owner(),
        }
    }

    fn of_caller(name: &str, millis: u64) -> FeedbackRecord {
        let name = CallerName::parse(name).unwrap();
        let task = TaskId::new(millis, [1; 10]);
        FeedbackRecord { task, owner: name.clone(), caller: name, ..record("a", "rag") }
    }

    #[test]
    fn a_record_without_names_is_of_the_owner() {
        let old = r#"{"task":"00000000-0001-7000-8000-000000000000","step":"a","text":"?","chosen":"gguf","role":null,"comment":""}"#;
        let read: FeedbackRecord = serde_json::from_str(old).unwrap();
        assert!(read.owner.is_owner() && read.caller.is_owner());
    }

    #[test]
    fn each_caller_has_its_own_records_and_an_erase_leaves_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        let [early, late, other] = [of_caller("alice", 5), of_caller("alice", 9), of_caller("bob", 4)];
        for record in [&early, &late, &other] {
            feedback.append(record.clone()).unwrap();
        }
        assert_eq!(feedback.records(Some(&early.owner), 1, 9).unwrap(), std::slice::from_ref(&late));
        assert_eq!(feedback.records(None, 0, 9).unwrap().len(), 3);
        assert!(feedback.has_task(Some(&early.owner), late.task) && !feedback.has_task(Some(&other.owner), late.task));
        let until = artel_task::event::Timestamp(5);
        let erasure = Erasure::Owner { name: early.owner, until };
        assert_eq!(feedback.erase(std::slice::from_ref(&erasure)).unwrap(), 1);
        assert_eq!(feedback.erase(&[erasure]).unwrap(), 0);
        assert_eq!(feedback.erase(&[Erasure::Task(other.task)]).unwrap(), 1);
        feedback.append(of_caller("carol", 7)).unwrap();
        let left = [late, of_caller("carol", 7)];
        assert_eq!(feedback.records(None, 0, 9).unwrap(), left);
        drop(feedback);
        assert_eq!(FeedbackStore::open(dir.path()).unwrap().records(None, 0, 9).unwrap(), left);
        let text = std::fs::read_to_string(dir.path().join("feedback.jsonl")).unwrap();
        assert!(!text.contains("bob") && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn feedback_after_an_erase_that_failed_at_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        let [erased, kept, later] = [of_caller("alice", 5), of_caller("bob", 6), of_caller("carol", 7)];
        for record in [&erased, &kept] {
            feedback.append(record.clone()).unwrap();
        }
        let erasure = [Erasure::Task(erased.task)];
        let failing = |_: &Path| Err(std::io::Error::from(ErrorKind::Other));
        assert!(matches!(feedback.erase_with(&erasure, failing), Err(Error::File { .. })));
        feedback.append(later.clone()).unwrap();
        assert!(feedback.erase_with(&erasure, failing).is_err(), "that it is removed is not on disk yet");
        assert_eq!(feedback.erase(&erasure).unwrap(), 0);
        drop(feedback);
        assert_eq!(FeedbackStore::open(dir.path()).unwrap().records(None, 0, 9).unwrap(), [kept, later]);
    }

    #[test]
    fn the_latest_record_of_a_decision_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        for (step, role) in [("a", "rag"), ("b", ""), ("a", "lora")] {
            feedback.append(record(step, role)).unwrap();
        }
        let expected = [record("a", "lora"), record("b", "")];
        assert_eq!(feedback.records(None, 0, 10).unwrap(), expected);
        drop(feedback);
        let again = FeedbackStore::open(dir.path()).unwrap();
        assert_eq!(again.records(None, 0, 10).unwrap(), expected);
        assert_eq!(again.records(None, 1, 10).unwrap(), expected[1..]);
    }

    #[test]
    fn a_truncated_line_is_dropped_and_an_invalid_one_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let feedback = FeedbackStore::open(dir.path()).unwrap();
        feedback.append(record("a", "rag")).unwrap();
        let path = dir.path().join("feedback.jsonl");
        let append =
            |text: &str| OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        append("{\"task\":\"0");
        let again = FeedbackStore::open(dir.path()).unwrap();
        again.append(record("b", "rag")).unwrap();
        assert_eq!(
            FeedbackStore::open(dir.path()).unwrap().records(None, 0, 10).unwrap(),
            [record("a", "rag"), record("b", "rag")]
        );
        append("nonsense\n");
        assert!(matches!(FeedbackStore::open(dir.path()), Err(Error::Line { line: 3, .. })));
    }
}
