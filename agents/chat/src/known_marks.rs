//! Marks of families of models whose templates do not render an earlier reasoning, so that no probe shows them.

use crate::reasoning_marks::ReasoningMarks;

/// The texts of one family. `end` stands between a reasoning and its answer.
struct KnownMarks {
    /// What the source of a template of this family contains.
    signature: &'static str,
    open: &'static str,
    close: &'static str,
    answer_open: &'static [&'static str],
    answer_close: &'static [&'static str],
    end: &'static str,
}

/// The first that fits counts.
const FAMILIES: [KnownMarks; 9] = [
    // Gemma 4.
    KnownMarks {
        signature: "<channel|>",
        open: "<|channel>thought",
        close: "<channel|>",
        answer_open: &[],
        answer_close: &[],
        end: "\n<channel|>",
    },
    // Command R7B.
    KnownMarks {
        signature: "<|END_THINKING|>",
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        answer_open: &["<|START_RESPONSE|>", "<|START_TEXT|>"],
        answer_close: &["<|END_RESPONSE|>", "<|END_TEXT|>"],
        end: "<|END_THINKING|><|START_RESPONSE|>",
    },
    // Apertus.
    KnownMarks {
        signature: "<|inner_suffix|>",
        open: "<|inner_prefix|>",
        close: "<|inner_suffix|>",
        answer_open: &[],
        answer_close: &[],
        end: "<|inner_suffix|>",
    },
    // Magistral, Ministral.
    KnownMarks {
        signature: "[/THINK]",
        open: "[THINK]",
        close: "[/THINK]",
        answer_open: &[],
        answer_close: &[],
        end: "[/THINK]",
    },
    // Apriel.
    KnownMarks {
        signature: "[BEGIN FINAL RESPONSE]",
        open: "Here are my reasoning steps:",
        close: "[BEGIN FINAL RESPONSE]",
        answer_open: &[],
        answer_close: &["[END FINAL RESPONSE]"],
        end: "\n[BEGIN FINAL RESPONSE]\n",
    },
    // Granite 3.3.
    KnownMarks {
        signature: "<response></response>",
        open: "<think>",
        close: "</think>",
        answer_open: &["<response>"],
        answer_close: &["</response>"],
        end: "</think>\n<response>",
    },
    // MiniMax M3.
    KnownMarks {
        signature: "</mm:think>",
        open: "<mm:think>",
        close: "</mm:think>",
        answer_open: &[],
        answer_close: &[],
        end: "</mm:think>",
    },
    // Seed.
    KnownMarks {
        signature: "</seed:think>",
        open: "<seed:think>",
        close: "</seed:think>",
        answer_open: &[],
        answer_close: &[],
        end: "</seed:think>\n",
    },
    // DeepSeek, Qwen and those that follow them.
    KnownMarks {
        signature: "</think>",
        open: "<think>",
        close: "</think>",
        answer_open: &[],
        answer_close: &[],
        end: "\n</think>\n\n",
    },
];

/// The marks of the family that a template's source is of.
pub(crate) fn of_source(source: &str) -> Option<ReasoningMarks> {
    let family = FAMILIES.iter().find(|family| source.contains(family.signature))?;
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Some(ReasoningMarks {
        open: family.open.to_owned(),
        close: family.close.to_owned(),
        answer_open: owned(family.answer_open),
        answer_close: owned(family.answer_close),
        end: family.end.to_owned(),
        repeats_turn: false,
    })
}
