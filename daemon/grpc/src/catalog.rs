//! `artel.v1.Catalog`.

mod diff;
mod files;
mod message;

use std::time::Duration;

use artel_check::files::{self as model_files, FileProblem};
use artel_proto::v1;
use artel_proto::v1::catalog_server::Catalog;
use artel_roles::{CheckDeadline, Definition, DefinitionKind, Problem, Problems};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::audit::CallObject;
use crate::page::{self, PageFilters};
use crate::state::ServiceState;
use crate::status::{RpcResponse, Violations, catalog_busy, internal, invalid_field, no_definition};
use crate::value::portable_struct;
use message::{kind, kind_filter, reference};

/// The longest check of a client's catalog, and the longest wait for those of others: a catalog of some hundred documents takes a
/// fraction of a second.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// One catalog is checked at a time: whatever clients send, the other cores compute for tasks.
static CHECKS: Semaphore = Semaphore::const_new(1);
/// Refused names that a status lists: a status travels in headers, which have a few kilobytes.
const MAX_LISTED_PROBLEMS: usize = 4;

#[tonic::async_trait]
impl Catalog for ServiceState {
    async fn list(&self, request: Request<v1::ListCatalogRequest>) -> RpcResponse<v1::ListCatalogResponse> {
        let request = request.into_inner();
        let wanted = kind_filter(request.kind)?;
        let catalog = self.runtime.catalog();
        let version = catalog.version().as_str().to_owned();
        let all: Vec<&Definition> =
            catalog.definitions().iter().filter(|d| wanted.is_none_or(|kind| d.kind == kind)).collect();
        let (size, filters) = (page::size(request.page_size)?, PageFilters::of(&("catalog", wanted)));
        let (page, next_page_token) = page::slice(all, size, &filters, &request.page_token, &version)?;
        let state = self.clone();
        let converted = {
            let (catalog, page): (_, Vec<Definition>) = (catalog.clone(), page.into_iter().cloned().collect());
            // Reading the headers of GGUF files may be slow on a slow disk.
            tokio::task::spawn_blocking(move || {
                page.iter().map(|d| state.definition(d, &catalog, false)).collect::<Vec<_>>()
            })
        };
        let definitions = converted.await.map_err(|_| internal())?;
        let directory_problems = self.reload_status.problems().iter().map(|p| self.problem(p)).collect();
        let catalog_version = version;
        Ok(Response::new(v1::ListCatalogResponse { definitions, next_page_token, catalog_version, directory_problems }))
    }

    async fn get(&self, request: Request<v1::GetCatalogRequest>) -> RpcResponse<v1::Definition> {
        let v1::GetCatalogRequest { kind, name } = request.into_inner();
        let kind = kind_filter(kind)?.ok_or_else(|| invalid_field("kind", "is required"))?;
        let (catalog, state) = (self.runtime.catalog(), self.clone());
        let Some(definition) = catalog.definition(kind, &name).cloned() else {
            return Err(no_definition(&catalog, kind, &name));
        };
        let catalog = catalog.clone();
        let converted = tokio::task::spawn_blocking(move || state.definition(&definition, &catalog, true));
        Ok(Response::new(converted.await.map_err(|_| internal())?))
    }

    async fn validate(&self, request: Request<v1::ValidateRequest>) -> RpcResponse<v1::ValidateResponse> {
        let response = match self.build(request.into_inner().files).await? {
            Ok(catalog) => v1::ValidateResponse {
                valid: true,
                problems: catalog.warnings().iter().map(|p| self.problem(p)).collect(),
                catalog_version: catalog.version().as_str().to_owned(),
            },
            Err(problems) => v1::ValidateResponse { valid: false, problems, catalog_version: String::new() },
        };
        Ok(Response::new(response))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> RpcResponse<v1::ApplyResponse> {
        let slot = CallObject::of(&request);
        let v1::ApplyRequest { files, expected_version } = request.into_inner();
        let catalog = match self.build(files).await? {
            Ok(catalog) => catalog,
            Err(problems) => {
                slot.name("an invalid catalog");
                let catalog_version = self.runtime.catalog().version().as_str().to_owned();
                return Ok(Response::new(v1::ApplyResponse { problems, catalog_version, ..Default::default() }));
            }
        };
        let expected = (!expected_version.is_empty()).then_some(expected_version.as_str());
        let before = self.runtime.catalog();
        let after = self.runtime.replace_catalog(catalog, expected).await.map_err(|e| self.status_of(e))?;
        slot.name(format_args!("catalog {}", after.version().short()));
        let problems = after.warnings().iter().map(|p| self.problem(p)).collect();
        Ok(Response::new(diff::response(&before, &after, problems)))
    }
}

impl ServiceState {
    /// The catalog of these files over the shipped layer, or its problems. Names that a client may not use fail the call.
    async fn build(
        &self,
        files: Vec<v1::SourceFile>,
    ) -> Result<Result<artel_roles::Catalog, Vec<v1::Problem>>, Status> {
        let mut violations = Violations::default();
        files::check(&files, &mut violations);
        violations.finish()?;
        let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let (base_dir, rules) = (self.base_dir.clone(), self.network.clone());
        let permit = timeout(CHECK_TIMEOUT, CHECKS.acquire()).await.map_err(|_| catalog_busy())?;
        let deadline = CheckDeadline::after(CHECK_TIMEOUT);
        // A client that does not wait any more ends the check.
        let _cancellation = deadline.cancel_on_drop();
        let built = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            files::build(files, &base_dir, &rules, &deadline)
        });
        let built = built.await;
        match built.map_err(|_| internal())? {
            Ok(catalog) => Ok(Ok(catalog)),
            Err(problems) => {
                refusals(&problems, &paths)?;
                Ok(Err(problems.iter().map(|p| self.problem(p)).collect()))
            }
        }
    }

    fn problem(&self, problem: &Problem) -> v1::Problem {
        message::problem(problem, &self.base_dir, &self.paths)
    }

    fn definition(&self, definition: &Definition, catalog: &artel_roles::Catalog, whole: bool) -> v1::Definition {
        let layer = if definition.shipped { v1::Layer::Shipped } else { v1::Layer::User };
        let file = message::layer_path(&definition.file, &self.base_dir);
        let at = v1::Location { file, line: definition.line, column: 1 };
        let content = Some(&definition.content).filter(|_| whole).and_then(portable_struct);
        v1::Definition {
            kind: kind(definition.kind).into(),
            name: definition.name.clone(),
            description: definition.description.clone().unwrap_or_default(),
            layer: layer.into(),
            location: Some(at.clone()),
            yaml: if whole { definition.text.clone() } else { String::new() },
            content,
            uses: definition.uses.iter().map(|(kind, name)| reference(*kind, name)).collect(),
            problems: self.file_problem(definition, catalog).map(|message| error_at(at, message)).into_iter().collect(),
            catalog_version: catalog.version().as_str().to_owned(),
        }
    }

    /// Why a valid definition cannot be used: a problem of its file.
    fn file_problem(&self, definition: &Definition, catalog: &artel_roles::Catalog) -> Option<String> {
        let result = match definition.kind {
            DefinitionKind::Model => model_files::model(catalog.model(&definition.name)?, &self.models),
            DefinitionKind::Adapter => model_files::named_adapter(catalog.adapter(&definition.name)?, &self.models),
            DefinitionKind::Role => {
                let role = catalog.role(&definition.name)?;
                let checked = |adapter| model_files::adapter(role, adapter, catalog, &self.models);
                let is_problem =
                    |result: &Result<(), FileProblem>| !matches!(result, Ok(()) | Err(FileProblem::NotFetched { .. }));
                role.adapters.iter().map(checked).find(is_problem)?
            }
            DefinitionKind::Graph | DefinitionKind::Router | DefinitionKind::Knowledge | DefinitionKind::Training => {
                return None;
            }
        };
        match result {
            // A file that is not fetched yet is downloaded on first use.
            Ok(()) | Err(FileProblem::NotFetched { .. }) => None,
            Err(problem) => {
                tracing::debug!(definition = definition.name, %problem, "the file of a definition cannot be used");
                Some(self.paths.hide(&problem.to_string()))
            }
        }
    }
}

/// Refuses a request whose documents name what the settings do not allow a client to name.
fn refusals(problems: &Problems, paths: &[String]) -> Result<(), Status> {
    let mut violations = Violations::default();
    let refused: Vec<&Problem> = problems.iter().filter(|problem| problem.is_refusal).collect();
    for Problem { file, line, column, message, hint, .. } in refused.iter().take(MAX_LISTED_PROBLEMS) {
        let at = paths.iter().position(|path| path == file).unwrap_or_default();
        let hint = hint.as_deref().unwrap_or_default();
        violations.add(&format!("files[{at}].content"), format!("{file}:{line}:{column}: {message}; {hint}"));
    }
    if refused.len() > MAX_LISTED_PROBLEMS {
        let further = refused.len() - MAX_LISTED_PROBLEMS;
        violations.add("files", format!("{further} further names are refused for the same reasons"));
    }
    violations.finish()
}

fn error_at(location: v1::Location, message: String) -> v1::Problem {
    let severity = v1::Severity::Error.into();
    v1::Problem { severity, location: Some(location), message, ..v1::Problem::default() }
}
