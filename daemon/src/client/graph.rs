//! `artel graph`.

use artel_proto::v1::DefinitionKind;

use super::ClientSession;
use super::catalog;
use super::error::{CommandOutcome, Error};
use super::json::ToJson;
use super::render::graph::{GraphDrawing, dot, mermaid, text};
use crate::args::{GraphCommand, GraphFormat};

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: GraphCommand) -> Result<CommandOutcome, Error> {
    let GraphCommand::Show { name, format } = command;
    let definition = catalog::get(session, DefinitionKind::Graph, name).await?;
    let content = definition.content.as_ref().ok_or(Error::IncompleteAnswer("the graph's document"))?.to_json();
    let drawing = GraphDrawing::read(&content);
    session.output.show(&definition.to_json(), |out| match format {
        GraphFormat::Text => text(&drawing, out),
        GraphFormat::Mermaid => {
            out.push(mermaid(&drawing));
        }
        GraphFormat::Dot => {
            out.push(dot(&drawing));
        }
    })?;
    Ok(CommandOutcome::Done)
}
