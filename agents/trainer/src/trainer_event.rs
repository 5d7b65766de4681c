//! What the trainer says while it runs, as it writes it into `events.jsonl`.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TrainerEvent {
    /// The trainer has read the run and loaded its libraries.
    Started {
        /// The versions of Python and of the libraries.
        versions: TrainerVersions,
        /// Where it computes, such as `cpu`.
        device: String,
        /// The parameters of the base model.
        parameters: u64,
        /// Those of the adapter.
        trainable: u64,
        /// The step of the checkpoint that it goes on from; 0 if there is none.
        resumed_step: u64,
    },
    /// The token ids of every sample are those of the base's own tokenizer and chat template.
    Checked {
        /// How many were compared.
        samples: u64,
        /// Where the tokenizer came from: `gguf` or `checkpoint`.
        tokenizer: String,
    },
    /// The most expensive batch and an evaluation were tried.
    Forecast {
        /// Seconds of a step.
        step_seconds: f64,
        /// Seconds of an evaluation of all held-out samples.
        evaluation_seconds: f64,
        /// The steps of the run.
        steps: u64,
        /// The most memory that was used at once.
        peak_bytes: u64,
    },
    /// The held-out samples were measured.
    Evaluated {
        /// After which step; 0 is before the first one.
        step: u64,
        /// The mean negative log-likelihood of an answer's token, in nats; NaN if it was not finite.
        #[serde(deserialize_with = "finite_or_nan")]
        loss: f64,
        /// How many samples.
        samples: u64,
        /// How many tokens of answers.
        tokens: u64,
    },
    /// A step was taken.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The steps of the run.
        steps: u64,
        /// The passes over the data so far.
        epoch: f64,
        /// The mean loss of the step's answer tokens, in nats; NaN if it was not finite.
        #[serde(deserialize_with = "finite_or_nan")]
        loss: f64,
        /// The learning rate of the step.
        learning_rate: f64,
        /// The tokens of the step.
        tokens: u64,
        /// Its time.
        seconds: f64,
        /// The samples of the step.
        samples: u64,
    },
    /// A checkpoint is whole on the disk.
    Checkpoint {
        /// After which step.
        step: u64,
    },
    /// The run ended because it was asked to, with a checkpoint.
    Paused {
        /// After which step.
        step: u64,
    },
    /// The adapter is whole on the disk.
    Finished {
        /// The last step.
        step: u64,
        /// Samples a second over all steps.
        samples_per_second: f64,
        /// The most memory that was used at once.
        peak_bytes: u64,
    },
    /// The run cannot go on.
    Failed(TrainerFailure),
    /// An event that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerFailure {
    /// What kind of thing is wrong.
    pub kind: FailureKind,
    /// What, where, and what to do.
    pub message: String,
    /// The sample that is wrong, such as `mail.jsonl:3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl TrainerFailure {
    /// Whether the same run may go on later. Whether memory that was too little may be enough then is for the caller to say.
    pub fn is_passing(&self) -> bool {
        self.kind == FailureKind::Disk
    }
}

/// What kind of thing ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Token ids differ from those of the base's own tokenizer.
    Proof,
    /// There is too little memory.
    Memory,
    /// The disk or a quota is full.
    Disk,
    /// The settings do not fit the base or the data.
    Settings,
    /// The base cannot be loaded or trained.
    Base,
    /// Another, or one that this version does not know.
    #[serde(other)]
    Other,
}

/// Versions of libraries by their names; `python` is among them.
pub type TrainerVersions = BTreeMap<String, String>;

/// JSON has no word for NaN; the trainer writes null.
fn finite_or_nan<'de, D: Deserializer<'de>>(number: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(number)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TrainerEvent {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_events_of_the_contract_are_read_and_others_ignored() {
        let started = read(
            r#"{"event":"started","at":1.5,"versions":{"torch":"2.15.0","python":"3.11.7"},"device":"cpu","parameters":9,
               "trainable":2,"resumed_step":0,"of_a_newer_version":[1]}"#,
        );
        assert!(
            matches!(&started, TrainerEvent::Started { versions, trainable: 2, .. } if versions["torch"] == "2.15.0")
        );
        assert_eq!(read(r#"{"event":"checkpoint","at":1,"step":7}"#), TrainerEvent::Checkpoint { step: 7 });
        let failed =
            TrainerFailure { kind: FailureKind::Proof, message: "m".into(), origin: Some("mail.jsonl:3".into()) };
        let text = r#"{"event":"failed","at":1,"kind":"proof","message":"m","origin":"mail.jsonl:3"}"#;
        assert!(!failed.is_passing());
        assert_eq!(read(text), TrainerEvent::Failed(failed));
        let text = r#"{"event":"failed","at":1,"kind":"disk","message":"m"}"#;
        assert!(matches!(read(text), TrainerEvent::Failed(failure) if failure.is_passing()));
        let text = r#"{"event":"failed","at":1,"kind":"of_a_newer_version","message":"m"}"#;
        assert!(matches!(
            read(text),
            TrainerEvent::Failed(TrainerFailure { kind: FailureKind::Other, origin: None, .. })
        ));
        assert_eq!(read(r#"{"event":"of_a_newer_version","at":1,"x":{}}"#), TrainerEvent::Unknown);
        assert!(serde_json::from_str::<TrainerEvent>(r#"{"event":"step","at":1}"#).is_err());
    }

    #[test]
    fn a_loss_that_is_not_finite_is_nan() {
        let event = read(r#"{"event":"evaluated","step":1,"loss":null,"samples":2,"tokens":3}"#);
        assert!(matches!(event, TrainerEvent::Evaluated { loss, .. } if loss.is_nan()));
    }
}
