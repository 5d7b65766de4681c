//! `artel route`.

use artel_proto::v1::PreviewRequest;

use super::Session;
use super::connect::prompt;
use super::error::{Error, Exit};
use super::json::Json;
use super::render::route as render;
use crate::args::Route;

/// Asks who would get a question, and shows every score.
pub(super) async fn run(session: &mut Session, route: Route) -> Result<Exit, Error> {
    let Route { graph, node, roles, text } = route;
    let (graph, node) = (graph.unwrap_or_default(), node.unwrap_or_default());
    let request = PreviewRequest { question: text, roles, graph, node };
    let answer = session.daemon.router().preview(prompt(request)).await?.into_inner();
    let decision = answer.decision.as_ref().ok_or(Error::Answer("the decision"))?;
    session.output.show(&answer.json(), |page| render::decision(decision, page))?;
    Ok(Exit::Done)
}
