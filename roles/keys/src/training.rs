//! The keys of trainings.

use super::KeyDefault::{Described, Required, Value};
use super::{KeySet, key};

pub static TRAINING: KeySet = KeySet {
    name: "training",
    page: "training",
    keys: &[
        key("training", Required, "The name of the training."),
        key("description", Described("none"), "What it is for, for people."),
        key("role", Required, "The role whose answers are to become better."),
        key(
            "data",
            Required,
            "What it learns from: files of JSON lines, and `ratings` for the answers that people rated or corrected.",
        ),
        key(
            "held_out",
            Value("0.2"),
            "What it is not trained on: a share of the samples, from 0.01 to 0.5, or a file of JSON lines.",
        ),
        key("seed", Value("0"), "Which samples are held out."),
    ],
};
