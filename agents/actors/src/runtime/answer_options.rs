//! What a client asks of an answer, held against the role that gives it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use artel_model::sampling::SamplingFault;
use artel_roles::{Role, Schema};
use artel_task::event::{Conversation, RequestSampling, ResponseFormat, TaskSpec, Tool, ToolSet};
use tokio::sync::Semaphore;

use super::{Error, Submission};

/// Checks of clients' schemas at once: each takes up to some seconds of one core.
static SCHEMA_CHECKS: Semaphore = Semaphore::const_new(2);

/// The parameters of tools that were checked: agents send the same ones again and again. As many as some agents have together.
static CHECKED_TOOLS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
const MAX_CHECKED_TOOL_ITEMS: usize = 4096;
/// The longest time for all tools of a task together; those in use take milliseconds each.
const TOOLS_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client asks of an answer, and brings to it.
pub(super) struct AnswerOptions<'t> {
    sampling: Option<&'t RequestSampling>,
    response: Option<&'t ResponseFormat>,
    conversation: Option<&'t Conversation>,
    tools: Option<&'t Arc<ToolSet>>,
}

impl<'t> AnswerOptions<'t> {
    /// Of a new task.
    pub(super) fn of(new: &'t Submission) -> Self {
        let (sampling, response) = (new.sampling.as_deref(), new.response.as_deref());
        Self { sampling, response, conversation: new.conversation.as_deref(), tools: new.tools.as_ref() }
    }

    /// Of one that was accepted.
    pub(super) fn accepted(spec: &'t TaskSpec) -> Self {
        let (sampling, response) = (spec.sampling.as_deref(), spec.response.as_deref());
        Self { sampling, response, conversation: spec.conversation.as_deref(), tools: spec.tools.as_ref() }
    }
}

/// An error if a task may not ask this of its role; of a graph it may ask little.
pub(super) async fn check(asked: AnswerOptions<'_>, role: Option<&Role>) -> Result<(), Error> {
    let AnswerOptions { sampling, response, conversation, tools } = asked;
    let Some(role) = role else {
        let given = [("sampling", sampling.is_some()), ("response", response.is_some())];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let of_graph = |(field, _)| fault(field, "is of a single role: name a `role` in place of a graph");
        let goes_on = conversation.filter(|conversation| !conversation.after.is_empty());
        let goes_on = goes_on.map(|_| fault("messages", "must end with one of the user: a graph answers that one"));
        return refused(given.map(of_graph).chain(goes_on).collect());
    };
    let refusals = sampling.map(|sampling| role.sampling.refusals(sampling)).unwrap_or_default();
    let mut faults: Vec<SamplingFault> = refusals.into_iter().map(|refusal| refusal.inside("sampling")).collect();
    faults.extend(conversation.and_then(|conversation| of_system(conversation, role)));
    if response.is_some() && role.output.is_some() {
        faults.push(fault("response", "is fixed by the role, which has an output schema"));
    } else if let Some(ResponseFormat::JsonSchema(schema)) = response {
        let _permit = SCHEMA_CHECKS.acquire().await;
        let schema = schema.clone();
        let checked = tokio::task::spawn_blocking(move || Schema::of_client(schema)).await;
        if let Ok(Err(reason)) = checked {
            faults.push(fault("response.json_schema", &reason.to_string()));
        }
    }
    if let Some(tools) = tools {
        faults.extend(of_tools(tools.clone()).await);
    }
    refused(faults)
}

/// The faults of tools whose parameters no model can be held to.
async fn of_tools(tools: Arc<ToolSet>) -> Vec<SamplingFault> {
    let key = |tool: &Tool| {
        let mut hasher = DefaultHasher::new();
        tool.parameters.to_string().hash(&mut hasher);
        hasher.finish()
    };
    let checked = || CHECKED_TOOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let unknown: Vec<usize> = {
        let checked = checked();
        let is_unknown = |at: &usize| !checked.contains(&key(&tools.tools[*at]));
        (0..tools.tools.len()).filter(is_unknown).collect()
    };
    if unknown.is_empty() {
        return Vec::new();
    }
    let _permit = SCHEMA_CHECKS.acquire().await;
    let check = move || {
        let (mut faults, begin) = (Vec::new(), Instant::now());
        for at in unknown {
            let tool = &tools.tools[at];
            match Schema::check_parameters(&tool.parameters, TOOLS_TIMEOUT.saturating_sub(begin.elapsed())) {
                Ok(false) => {}
                Err(refusal) => {
                    let reason = format!("are those of `{}`, which no model can be held to: {refusal}", tool.name);
                    faults.push(fault(&format!("tools[{at}].parameters"), &reason));
                    // One is enough to refuse the task, and each may take seconds.
                    break;
                }
                Ok(true) => {
                    let mut checked = checked();
                    if checked.len() >= MAX_CHECKED_TOOL_ITEMS {
                        checked.clear();
                    }
                    checked.insert(key(tool));
                }
            }
        }
        faults
    };
    let failed = |_| vec![fault("tools", "cannot be checked: an internal error, of which the log has the details")];
    tokio::task::spawn_blocking(check).await.unwrap_or_else(failed)
}

/// The caller's instructions, if the role takes none.
fn of_system(conversation: &Conversation, role: &Role) -> Option<SamplingFault> {
    let is_taken = role.caller_system || conversation.system.is_empty();
    let reason = format!("have system text, and role `{}` takes none: its `caller_system` is false", role.name);
    (!is_taken).then(|| fault("messages", &reason))
}

fn fault(field: &str, reason: &str) -> SamplingFault {
    SamplingFault { field: field.to_owned(), reason: reason.to_owned() }
}

fn refused(faults: Vec<SamplingFault>) -> Result<(), Error> {
    if faults.is_empty() { Ok(()) } else { Err(Error::AnswerOptions(faults)) }
}
