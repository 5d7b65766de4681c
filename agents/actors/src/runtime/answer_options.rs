//! What a client asks of an answer, held against the role that gives it.

use artel_model::sampling::SamplingFault;
use artel_roles::{Role, Schema};
use artel_task::event::{RequestSampling, ResponseFormat};
use tokio::sync::Semaphore;

use super::Error;

/// Checks of clients' schemas at once: each takes up to some seconds of one core.
static SCHEMA_CHECKS: Semaphore = Semaphore::const_new(2);

/// An error if a task may not ask this of its role; none of it may be asked of a graph.
pub(super) async fn check(
    sampling: Option<&RequestSampling>,
    response: Option<&ResponseFormat>,
    role: Option<&Role>,
) -> Result<(), Error> {
    let fault = |field: &str, reason: &str| SamplingFault { field: field.to_owned(), reason: reason.to_owned() };
    let Some(role) = role else {
        let given = [("sampling", sampling.is_some()), ("response", response.is_some())];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let of_graph = |(field, _)| fault(field, "is of a single role: name a `role` in place of a graph");
        return refused(given.map(of_graph).collect());
    };
    let refusals = sampling.map(|sampling| role.sampling.refusals(sampling)).unwrap_or_default();
    let mut faults: Vec<SamplingFault> = refusals.into_iter().map(|refusal| refusal.inside("sampling")).collect();
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
    refused(faults)
}

fn refused(faults: Vec<SamplingFault>) -> Result<(), Error> {
    if faults.is_empty() { Ok(()) } else { Err(Error::AnswerOptions(faults)) }
}
