//! `artel catalog`.

use std::path::{Component, Path};

use artel_args::{CatalogCommand, CatalogKind};
use artel_proto::v1::{
    ApplyRequest, Definition, DefinitionKind, GetCatalogRequest, ListCatalogRequest, SourceFile, ValidateRequest,
};
use artel_roles::{YamlSource, source};
use artel_terminal::CommandOutcome;

use crate::connect::with_deadline;
use crate::error::Error;
use crate::json::ToJson;
use crate::render::catalog as render;
use crate::session::ClientSession;

/// Definitions of one page, the maximum that the daemon allows.
const PAGE_ITEMS: i32 = 1000;

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: CatalogCommand) -> Result<CommandOutcome, Error> {
    match command {
        CatalogCommand::List { kind } => list(session, kind).await,
        CatalogCommand::Show { kind, name } => {
            let definition = get(session, proto_kind(kind), name).await?;
            session.output.show(&definition.to_json(), |out| render::show(&definition, out))?;
            Ok(CommandOutcome::Done)
        }
        CatalogCommand::Validate { dir } => {
            let request = ValidateRequest { files: files(&dir)? };
            let answer = session.daemon.catalog().validate(with_deadline(request)).await?.into_inner();
            session.output.show(&answer.to_json(), |out| render::validated(&answer, out))?;
            Ok(if answer.valid { CommandOutcome::Done } else { CommandOutcome::Failed })
        }
        CatalogCommand::Apply { dir, expect } => {
            let request = ApplyRequest { files: files(&dir)?, expected_version: expect.unwrap_or_default() };
            let answer = session.daemon.catalog().apply(with_deadline(request)).await?.into_inner();
            session.output.show(&answer.to_json(), |out| render::applied(&answer, out))?;
            Ok(if answer.applied { CommandOutcome::Done } else { CommandOutcome::Failed })
        }
    }
}

/// Gets a definition with its document.
pub(super) async fn get(session: &ClientSession, kind: DefinitionKind, name: String) -> Result<Definition, Error> {
    let request = GetCatalogRequest { kind: kind.into(), name };
    Ok(session.daemon.catalog().get(with_deadline(request)).await?.into_inner())
}

async fn list(session: &mut ClientSession, kind: Option<CatalogKind>) -> Result<CommandOutcome, Error> {
    let kind = kind.map_or(DefinitionKind::Unspecified, proto_kind).into();
    let mut request = ListCatalogRequest { page_size: PAGE_ITEMS, page_token: String::new(), kind };
    let mut definitions: Vec<Definition> = Vec::new();
    let problems = loop {
        let page = session.daemon.catalog().list(with_deadline(request.clone())).await?.into_inner();
        definitions.extend(page.definitions);
        if page.next_page_token.is_empty() {
            break page.directory_problems;
        }
        request.page_token = page.next_page_token;
    };
    if session.output.is_json() {
        definitions.iter().try_for_each(|definition| session.output.object(&definition.to_json()))?;
    } else {
        session.output.render(|out| render::list(&definitions, &problems, out))?;
    }
    Ok(CommandOutcome::Done)
}

fn proto_kind(kind: CatalogKind) -> DefinitionKind {
    match kind {
        CatalogKind::Role => DefinitionKind::Role,
        CatalogKind::Graph => DefinitionKind::Graph,
        CatalogKind::Model => DefinitionKind::Model,
        CatalogKind::Adapter => DefinitionKind::Adapter,
        CatalogKind::Knowledge => DefinitionKind::Knowledge,
        CatalogKind::Training => DefinitionKind::Training,
        CatalogKind::Router => DefinitionKind::Router,
    }
}

/// The YAML files below a directory, with paths relative to it.
fn files(dir: &Path) -> Result<Vec<SourceFile>, Error> {
    let file = |source: YamlSource| SourceFile { path: relative(dir, &source.path), content: source.text.into() };
    Ok(source::read_dir(dir)?.into_iter().map(file).collect())
}

/// A path relative to a directory, with `/` between its parts.
fn relative(dir: &Path, path: &str) -> String {
    let below = Path::new(path).strip_prefix(dir).unwrap_or(Path::new(path));
    let parts = below.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_are_relative_to_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("my catalog");
        fs::create_dir_all(dir.join("roles/deep")).unwrap();
        fs::write(dir.join("a.yml"), "role: a").unwrap();
        fs::write(dir.join("roles/deep/b.yaml"), "role: b").unwrap();
        fs::write(dir.join("notes.txt"), "no").unwrap();
        let named: Vec<(String, Vec<u8>)> = files(&dir).unwrap().into_iter().map(|f| (f.path, f.content)).collect();
        assert_eq!(named, [("a.yml".into(), b"role: a".to_vec()), ("roles/deep/b.yaml".into(), b"role: b".to_vec())]);
        assert_eq!(relative(Path::new("."), "./roles/b.yaml"), "roles/b.yaml");
    }

    #[test]
    fn a_missing_directory_is_a_problem() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(files(&root.path().join("none")), Err(Error::Problems(_))));
    }
}
