//! Schemas compiled for one vocabulary, within budgets.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use artel_chat::CallGrammar;
use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use serde_json::Value;
use toktrie::TokEnv;

use crate::calls;
use crate::constraint::Constraint;
use crate::emptiness::Emptiness;
use crate::error::{Error, shown};
use crate::grammar;
use crate::matcher::start;
use crate::object_keys::QuotingTokens;

/// The longest time for one schema. One of 900 properties takes a tenth of a second; meanwhile an engine computes nothing else,
/// and after twenty seconds of that it would count as hung.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
/// The stack for one schema: a chain of 900 references takes more than 2 MiB. Only the pages that are used take memory.
const COMPILE_STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most steps of a lexer for one token: some ten milliseconds. Schemas in use take a hundredth of that.
const MAX_TOKEN_STEPS: u64 = 100_000;
/// The most states of a lexer, of one to two kilobytes each. Schemas in use have some thousand.
const MAX_LEXER_ENTRIES: usize = 50_000;
/// How many threads of schemas that took too long may still run. One must not keep other schemas from being compiled.
const MAX_ABANDONED_ENTRIES: usize = 4;
/// The most items of a parser at one place; four for each optional property that may come next, and a schema has at most a thousand
/// of these. All items of a mask have a limit of their own.
const MAX_ROW_ITEMS: usize = 8_000;
/// How many tokens are written to see what a schema takes.
const REHEARSED_TOKENS: usize = 64;
/// How many compiled schemas are kept: the roles of a model are few, and one of some hundred properties takes a megabyte.
const MAX_KEPT_ENTRIES: usize = 16;

/// Creates constraints for one vocabulary; its creation traverses the vocabulary once.
pub struct Compiler {
    factory: Arc<ParserFactory>,
    quoting: Arc<QuotingTokens>,
    /// Constraints at their beginnings, the one that was used last at the end.
    kept: Mutex<Vec<(Value, Constraint)>>,
    /// The same for calls of tools.
    kept_calls: Mutex<Vec<(Arc<CallGrammar>, Constraint)>>,
    /// The threads of schemas that took too long.
    abandoned: Mutex<Vec<JoinHandle<()>>>,
}

impl Compiler {
    /// For a vocabulary.
    ///
    /// # Errors
    /// llguidance does not accept the vocabulary.
    pub fn new(vocabulary: &TokEnv) -> Result<Self, Error> {
        let mut factory =
            ParserFactory::new_simple(vocabulary).map_err(|e| Error::Unsupported(shown(&e.to_string())))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        let quoting = Arc::new(QuotingTokens::of(vocabulary.tok_trie()));
        Ok(Self {
            factory: Arc::new(factory),
            quoting,
            kept: Mutex::default(),
            kept_calls: Mutex::default(),
            abandoned: Mutex::default(),
        })
    }

    /// Creates the constraint of one output. The JSON is compact, without white space that the schema does not require.
    ///
    /// # Errors
    /// No value satisfies the schema, the decoder does not support it, or it takes more than a budget.
    pub fn compile(&self, schema: &Value) -> Result<Constraint, Error> {
        if let Some(constraint) = self.kept(schema) {
            return Ok(constraint);
        }
        let constraint = self.compile_within(schema, COMPILE_TIMEOUT)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_KEPT_ENTRIES {
            kept.remove(0);
        }
        kept.push((schema.clone(), constraint.restarted()));
        Ok(constraint)
    }

    /// Creates the constraint of an answer that calls tools. White space is that of the grammar, and in JSON that of chat templates.
    ///
    /// # Errors
    /// No arguments satisfy the schema of a tool, the decoder does not support it, or all of them take more than a budget.
    pub fn compile_calls(&self, grammar: &CallGrammar) -> Result<Constraint, Error> {
        let mut kept = self.kept_calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(of, _)| **of == *grammar) {
            kept[at..].rotate_left(1);
            return Ok(kept.last().expect("one was found").1.restarted());
        }
        drop(kept);
        let (factory, grammar) = (self.factory.clone(), Arc::new(grammar.clone()));
        let of = grammar.clone();
        let matcher = self.within(COMPILE_TIMEOUT, move || calls::compile(&factory, &of))?;
        let constraint = Constraint::new(matcher, None);
        kept = self.kept_calls.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_KEPT_ENTRIES {
            kept.remove(0);
        }
        kept.push((grammar, constraint.restarted()));
        Ok(constraint)
    }

    fn kept(&self, schema: &Value) -> Option<Constraint> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| of == schema)?;
        kept[at..].rotate_left(1);
        kept.last().map(|(_, constraint)| constraint.restarted())
    }

    fn compile_within(&self, schema: &Value, timeout: Duration) -> Result<Constraint, Error> {
        let (factory, quoting, schema) = (self.factory.clone(), self.quoting.clone(), schema.clone());
        self.within(timeout, move || compile(&factory, &quoting, &schema))
    }

    /// Compiles a schema and writes the beginning of an output, since what a part costs shows once it is reached.
    pub(crate) fn rehearse_within(&self, schema: &Value, timeout: Duration) -> Result<(), Error> {
        let (factory, quoting, schema) = (self.factory.clone(), self.quoting.clone(), schema.clone());
        self.within(timeout, move || compile(&factory, &quoting, &schema)?.rehearse(REHEARSED_TOKENS))
    }

    pub(crate) fn satisfiable_within(&self, schema: &Value, timeout: Duration) -> Result<(), Error> {
        let schema = schema.clone();
        self.within(timeout, move || Emptiness::of(&schema).refusal(&schema).map_or(Ok(()), Err))
    }

    /// Works on a thread of its own, which has a large stack, and which is not waited for when it takes too long: a schema may come
    /// from anywhere, and the checks of llguidance are not all bounded by its limits.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut abandoned = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        abandoned.retain(|thread| !thread.is_finished());
        if abandoned.len() >= MAX_ABANDONED_ENTRIES {
            return Err(Error::Busy("several schemas that take too long are still being compiled".to_owned()));
        }
        drop(abandoned);
        let (sender, compiled) = mpsc::sync_channel(1);
        let work = move || {
            // The receiver may wait no more.
            let _ = sender.send(work());
        };
        let thread = thread::Builder::new().name("schema".to_owned()).stack_size(COMPILE_STACK_BYTES).spawn(work);
        let thread = thread.map_err(|e| Error::Busy(format!("no thread could be started for a schema: {e}")))?;
        match compiled.recv_timeout(timeout) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                Err(Error::costly(&format_args!("it is not compiled within {timeout:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::costly(&"compiling it ended unexpectedly")),
        }
    }
}

/// Tries the forms of a schema in turn: each allows what the one before does, and takes less of the decoder.
fn compile(factory: &ParserFactory, quoting: &Arc<QuotingTokens>, schema: &Value) -> Result<Constraint, Error> {
    let emptiness = Emptiness::of(schema);
    if let Some(refusal) = emptiness.refusal(schema) {
        return Err(refusal);
    }
    grammar::check_divisors(schema)?;
    let mut refusal = None;
    for form in grammar::forms(schema, &emptiness) {
        match start(factory, &form) {
            Ok(matcher) => return Ok(Constraint::new(matcher, form.may_repeat_keys.then(|| quoting.clone()))),
            Err(error @ Error::Costly(_)) => return Err(error),
            // Whatever of it is left out after that.
            Err(error @ Error::Unsatisfiable { .. }) if form.is_loose => return Err(error),
            Err(error) => refusal = Some(error),
        }
    }
    Err(refusal.expect("a schema has a form"))
}

/// The limits of one schema. The defaults of llguidance bound its grammar, and let it take 0.1 s and 400 MB for a token.
fn limits() -> ParserLimits {
    ParserLimits {
        step_lexer_fuel: MAX_TOKEN_STEPS,
        max_lexer_states: MAX_LEXER_ENTRIES,
        max_items_in_row: MAX_ROW_ITEMS,
        // The grammar of a large schema has megabytes.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}
