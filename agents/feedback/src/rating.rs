//! Ratings and corrections of answers.

use artel_task::event::Timestamp;
use artel_task::{CallerName, CatalogVersion, RoleName, TaskId};
use serde::{Deserialize, Serialize};

use crate::record_file::{RecordFile, StepRecord};

/// What a person thinks of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerRating {
    /// It is as it should be.
    Good,
    /// It is not.
    Bad,
}

/// A message that the model read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatedMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// What a person said of an answer, with all that is needed to learn from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingRecord {
    /// The task of the answer.
    pub task: TaskId,
    /// The step that gave it, as events write it.
    pub step: String,
    /// The role that answered.
    pub role: RoleName,
    /// What its model read, the oldest message first; absent if that is not known any more, because it read passages of a knowledge
    /// or called tools.
    pub messages: Option<Vec<RatedMessage>>,
    /// The answer.
    pub answer: String,
    /// What was said of it.
    pub rating: AnswerRating,
    /// The answer that would have been right.
    pub correction: Option<String>,
    /// A comment in free text.
    pub comment: String,
    /// The catalog that the task ran under.
    pub catalog: CatalogVersion,
    /// When it was rated.
    pub rated_at: Timestamp,
    /// The caller that the task belongs to.
    pub owner: CallerName,
    /// The caller that rated it.
    pub caller: CallerName,
}

impl StepRecord for RatingRecord {
    const FILE_NAME: &'static str = "ratings.jsonl";
    const WHAT: &'static str = "ratings";

    fn place(&self) -> (TaskId, &str) {
        (self.task, &self.step)
    }

    fn owner(&self) -> &CallerName {
        &self.owner
    }
}

/// The stored ratings, in `ratings.jsonl`.
pub type RatingStore = RecordFile<RatingRecord>;

#[cfg(test)]
mod tests {
    use artel_journal::Erasure;

    use super::*;

    fn rating(step: &str, owner: &str, correction: Option<&str>) -> RatingRecord {
        let owner = CallerName::parse(owner).unwrap();
        RatingRecord {
            task: TaskId::new(5, [0; 10]),
            step: step.to_owned(),
            role: RoleName::parse("returns").unwrap(),
            messages: Some(vec![RatedMessage { role: "user".to_owned(), content: "Где?\n".to_owned() }]),
            answer: "Here".to_owned(),
            rating: AnswerRating::Bad,
            correction: correction.map(str::to_owned),
            comment: String::new(),
            catalog: CatalogVersion::new("x"),
            rated_at: Timestamp(7),
            owner: owner.clone(),
            caller: owner,
        }
    }

    #[test]
    fn the_latest_rating_of_a_step_holds_and_an_erase_leaves_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let ratings = RatingStore::open(dir.path()).unwrap();
        let [first, other, corrected] =
            [rating("a", "alice", None), rating("b", "bob", None), rating("a", "alice", Some("There"))];
        for record in [&first, &other, &corrected] {
            ratings.append(record.clone()).unwrap();
        }
        assert_eq!(ratings.records(None, 0, 9).unwrap(), [corrected.clone(), other.clone()]);
        drop(ratings);
        let ratings = RatingStore::open(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("ratings.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2, "what was replaced is gone: {text}");
        assert_eq!(ratings.records(Some(&other.owner), 0, 9).unwrap(), std::slice::from_ref(&other));
        let erasure = Erasure::Owner { name: corrected.owner, until: Timestamp(5) };
        assert_eq!(ratings.erase(&[erasure]).unwrap(), 1);
        assert_eq!(ratings.records(None, 0, 9).unwrap(), std::slice::from_ref(&other));
        ratings.append(first.clone()).unwrap();
        assert_eq!(ratings.records(None, 0, 9).unwrap(), [other, first]);
    }
}
