//! What callers ask for and use, by their names.

use prometheus_client::metrics::counter::Counter;

use crate::family::{LabelName, MetricFamily, MetricRegister};
use crate::label::{ByValue, LabelBound, label_values};

/// Callers with figures of their own; those of all others are added up. A daemon has as many tokens at most.
pub const MAX_CALLER_VALUES: usize = 10_000;

/// The label of callers.
const CALLER: LabelName = LabelName::of_names("caller");

label_values! {
    /// What a model token was.
    pub(crate) enum TokenKind {
        /// Of a prompt, whether the prefix cache held it or not.
        Prompt = "prompt",
        /// Generated.
        Generated = "generated",
    }
}

/// The metrics of callers.
#[derive(Debug)]
pub struct CallerMetrics {
    names: LabelBound,
    refused: MetricFamily<Counter, 1>,
    tokens: MetricFamily<Counter, 2>,
}

/// The tokens of one caller, resolved once for each of its tasks.
pub(crate) type CallerTokens = ByValue<TokenKind, Counter>;

impl CallerMetrics {
    pub(crate) fn new(register: &mut MetricRegister) -> Self {
        Self {
            names: LabelBound::new(MAX_CALLER_VALUES),
            refused: register.family(
                "caller_calls_refused",
                None,
                "gRPC calls of a known caller refused for a limit or a missing right; those of strangers have no caller",
                [CALLER],
                Counter::default,
            ),
            tokens: register.family(
                "caller_tokens",
                None,
                "Model tokens that the tasks and calls of a caller used, as its limit of a day counts them",
                [CALLER, LabelName::of::<TokenKind>("kind")],
                Counter::default,
            ),
        }
    }

    /// A call of this caller was refused.
    pub fn refused(&self, caller: &str) {
        self.refused.with([&self.names.value(caller)]).inc();
    }

    /// A call of this caller, without a task, took so many tokens.
    pub fn used_prompt(&self, caller: &str, tokens: u64) {
        self.tokens(caller).of(TokenKind::Prompt).inc_by(tokens);
    }

    pub(crate) fn tokens(&self, caller: &str) -> CallerTokens {
        let caller = self.names.value(caller);
        ByValue::new(|kind| self.tokens.with([&caller, &kind.into()]))
    }
}
