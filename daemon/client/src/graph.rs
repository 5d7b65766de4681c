//! `artel graph`.

use artel_args::{GraphCommand, GraphFormat};
use artel_proto::v1::DefinitionKind;
use artel_terminal::CommandOutcome;

use crate::catalog;
use crate::error::Error;
use crate::json::{ToJson as _, struct_value};
use crate::render::graph::{GraphDrawing, dot, mermaid, text};
use crate::session::ClientSession;

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: GraphCommand) -> Result<CommandOutcome, Error> {
    let GraphCommand::Show { name, format } = command;
    let definition = catalog::get(session, DefinitionKind::Graph, name).await?;
    let content = definition.content.as_ref().ok_or(Error::IncompleteAnswer("the graph's document"))?;
    let content = struct_value(content);
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
