//! `artel.v1.Router`.

use artel_actors::Candidates;
use artel_proto::v1;
use artel_proto::v1::router_server::Router;
use tonic::{Request, Response, Status};

use super::Served;
use super::convert;
use super::status::Violations;
use super::tasks::input_text;

/// Candidates of one question: more than a catalog has roles.
const MAX_ROLES: usize = 10_000;

#[tonic::async_trait]
impl Router for Served {
    async fn preview(&self, request: Request<v1::PreviewRequest>) -> Result<Response<v1::PreviewResponse>, Status> {
        let v1::PreviewRequest { question, roles, graph, node } = request.into_inner();
        let mut violations = Violations::default();
        violations.take("question", input_text(&question));
        if graph.is_empty() != node.is_empty() {
            let missing = if graph.is_empty() { "graph" } else { "node" };
            violations.add(missing, "a graph and a node are named together or not at all");
        }
        if roles.len() > MAX_ROLES {
            violations.add("roles", format!("there are {}, the limit is {MAX_ROLES}", roles.len()));
        }
        violations.finish()?;
        let candidates = match (graph.is_empty(), roles.is_empty()) {
            (false, _) => Candidates::Node { graph, node, roles },
            (true, false) => Candidates::Roles(roles),
            (true, true) => Candidates::All,
        };
        let catalog_version = self.crew.catalog().version().as_str().to_owned();
        let decision = self.crew.preview(question, candidates).await.map_err(|e| self.refuse(e))?;
        let decision = Some(convert::decision(&decision));
        Ok(Response::new(v1::PreviewResponse { decision, catalog_version }))
    }
}
