//! `artel graph`.

use artel_proto::v1::DefinitionKind;

use super::Session;
use super::catalog;
use super::error::{Error, Exit};
use super::json::Json;
use super::render::graph::{Drawing, dot, mermaid, text};
use crate::args::{Format, Graph};

/// Does what a verb says.
pub(super) async fn run(session: &mut Session, verb: Graph) -> Result<Exit, Error> {
    let Graph::Show { name, format } = verb;
    let definition = catalog::get(session, DefinitionKind::Graph, name).await?;
    let content = definition.content.as_ref().ok_or(Error::Answer("the graph's document"))?.json();
    let drawing = Drawing::read(&content);
    session.output.show(&definition.json(), |page| match format {
        Format::Text => text(&drawing, page),
        Format::Mermaid => {
            page.put(mermaid(&drawing));
        }
        Format::Dot => {
            page.put(dot(&drawing));
        }
    })?;
    Ok(Exit::Done)
}
