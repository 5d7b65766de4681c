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
        key(
            "base",
            Described("the GGUF of the role's model"),
            "A directory of Hugging Face's Transformers with the model that is trained, if the GGUF is not to be.",
        ),
        key("method", Value("{}"), "What is learned."),
        key("schedule", Value("{}"), "In which steps it is learned."),
        key("seed", Value("0"), "Which samples are held out, and what else is by chance."),
    ],
};

pub static TRAINING_METHOD: KeySet = KeySet {
    name: "training.method",
    page: "training",
    keys: &[key("lora", Value("{}"), "Low-rank matrices beside those of the model.")],
};

pub static LORA: KeySet = KeySet {
    name: "training.method.lora",
    page: "training",
    keys: &[
        key("rank", Value("16"), "The rank of the matrices, from 1 to 512."),
        key("alpha", Described("twice the rank"), "Over the rank, the factor by which they are multiplied."),
        key("dropout", Value("0"), "The part of their inputs that is left out at random in a step, from 0 to 0.9."),
        key(
            "targets",
            Value("all-linear"),
            "Beside which matrices they stand: all of attention and feed-forward parts, or a list of names in Transformers.",
        ),
    ],
};

pub static SCHEDULE: KeySet = KeySet {
    name: "training.schedule",
    page: "training",
    keys: &[
        key("epochs", Value("3"), "How often each sample is learned from."),
        key(
            "learning_rate",
            Value("0.0002"),
            "The learning rate after the warm-up; it falls to zero in a straight line.",
        ),
        key("batch", Value("8"), "Samples of a step.").in_unit("samples"),
        key("warmup", Value("0.1"), "The part of the steps in which the learning rate rises, from 0 to 0.5."),
        key("weight_decay", Value("0"), "The decay of weights of AdamW, from 0 to 1."),
    ],
};
