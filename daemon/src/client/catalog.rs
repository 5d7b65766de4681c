//! `artel catalog`.

use std::path::{Component, Path};

use artel_proto::v1::{
    ApplyRequest, Definition, DefinitionKind, GetCatalogRequest, ListCatalogRequest, SourceFile, ValidateRequest,
};
use artel_roles::source;

use super::Session;
use super::connect::prompt;
use super::error::{Error, Exit};
use super::json::Json;
use super::render::catalog as render;
use crate::args::{Catalog, Kind};

/// The most definitions of one page.
const PAGE: i32 = 1000;

/// Does what a verb says.
pub(super) async fn run(session: &mut Session, verb: Catalog) -> Result<Exit, Error> {
    match verb {
        Catalog::List { kind } => list(session, kind).await,
        Catalog::Show { kind, name } => {
            let definition = get(session, proto_kind(kind), name).await?;
            session.output.show(&definition.json(), |page| render::show(&definition, page))?;
            Ok(Exit::Done)
        }
        Catalog::Validate { dir } => {
            let request = ValidateRequest { files: files(&dir)? };
            let answer = session.daemon.catalog().validate(prompt(request)).await?.into_inner();
            session.output.show(&answer.json(), |page| render::validated(&answer, page))?;
            Ok(if answer.valid { Exit::Done } else { Exit::Failed })
        }
        Catalog::Apply { dir, expect } => {
            let request = ApplyRequest { files: files(&dir)?, expected_version: expect.unwrap_or_default() };
            let answer = session.daemon.catalog().apply(prompt(request)).await?.into_inner();
            session.output.show(&answer.json(), |page| render::applied(&answer, page))?;
            Ok(if answer.applied { Exit::Done } else { Exit::Failed })
        }
    }
}

/// One definition with its document.
pub(super) async fn get(session: &Session, kind: DefinitionKind, name: String) -> Result<Definition, Error> {
    let request = GetCatalogRequest { kind: kind.into(), name };
    Ok(session.daemon.catalog().get(prompt(request)).await?.into_inner())
}

async fn list(session: &mut Session, kind: Option<Kind>) -> Result<Exit, Error> {
    let kind = kind.map_or(DefinitionKind::Unspecified, proto_kind).into();
    let mut request = ListCatalogRequest { page_size: PAGE, page_token: String::new(), kind };
    let mut definitions: Vec<Definition> = Vec::new();
    let problems = loop {
        let page = session.daemon.catalog().list(prompt(request.clone())).await?.into_inner();
        definitions.extend(page.definitions);
        if page.next_page_token.is_empty() {
            break page.directory_problems;
        }
        request.page_token = page.next_page_token;
    };
    if session.output.is_json() {
        definitions.iter().try_for_each(|definition| session.output.object(&definition.json()))?;
    } else {
        session.output.render(|page| render::list(&definitions, &problems, page))?;
    }
    Ok(Exit::Done)
}

fn proto_kind(kind: Kind) -> DefinitionKind {
    match kind {
        Kind::Role => DefinitionKind::Role,
        Kind::Graph => DefinitionKind::Graph,
        Kind::Model => DefinitionKind::Model,
        Kind::Adapter => DefinitionKind::Adapter,
        Kind::Router => DefinitionKind::Router,
    }
}

/// The YAML files below a directory, with paths relative to it.
fn files(dir: &Path) -> Result<Vec<SourceFile>, Error> {
    let file = |source: source::YamlSource| SourceFile { path: relative(dir, &source.path), content: source.text.into() };
    Ok(source::read_dir(dir)?.into_iter().map(file).collect())
}

/// A path below a directory as the contract writes it.
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
    fn files_are_named_relative_to_their_directory() {
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
    fn a_directory_that_is_not_there_is_a_problem() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(files(&root.path().join("none")), Err(Error::Problems(_))));
    }
}
