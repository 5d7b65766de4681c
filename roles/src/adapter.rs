//! LoRA adapters: documents of their own, and how roles name them or their files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artel_model::PieceHashes;
use artel_task::AdapterName;
use artel_yaml::{Diagnostics, Span, YamlNode, YamlValue, shown};

use crate::declared_names::DeclaredNames;
use crate::decode::{MapReader, name, number, text};
use crate::definition::DefinitionKind;
use crate::gguf_file::{self, GgufFile};
use crate::{keys, model};

/// The most adapters of one role: each costs a pass over its matrices for every batch.
const MAX_ROLE_ADAPTERS: usize = 8;
/// The largest factor by which the weights of an adapter are multiplied: beyond it, they drown those of the model.
const MAX_SCALE_FACTOR: f64 = 10.0;

/// A LoRA adapter in GGUF form.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The name of its document; none if a role names its file.
    pub name: Option<AdapterName>,
    /// What it is, for people.
    pub description: Option<String>,
    /// Its file.
    pub file: GgufFile,
    /// The absolute directory of the YAML file that names it; none if that is embedded.
    pub dir: Option<PathBuf>,
    /// The file's SHA-256.
    pub sha256: Option<PieceHashes>,
    /// Which version of the adapter it is, for people.
    pub version: Option<String>,
    /// The factor by which its weights are multiplied.
    pub scale: f32,
    /// The plain text by which a role names it.
    named_by: Option<PlainText>,
    /// What else has the name that stands for its file, in words.
    other_kinds: Option<String>,
}

/// A text that is the name of an adapter and might be that of a file.
#[derive(Debug, Clone, PartialEq)]
struct PlainText {
    text: PathBuf,
    /// The absolute directory of the role's YAML file.
    dir: Option<PathBuf>,
}

/// The adapters of a catalog, for the roles that name them.
pub(crate) struct DeclaredAdapters<'a> {
    /// Those that could be read.
    pub(crate) read: &'a BTreeMap<AdapterName, Arc<Adapter>>,
    /// The names of all definitions.
    pub(crate) names: &'a DeclaredNames,
}

impl Adapter {
    /// The paths at which the file may be, in the order of the search.
    pub fn candidates(&self, models_dir: &Path) -> Vec<PathBuf> {
        gguf_file::candidates(&self.file, self.dir.as_deref(), models_dir)
    }

    /// The paths of files that the role may have meant where it names an adapter in a plain text: if one exists, it is not known which
    /// of the two was meant.
    pub fn homonyms(&self, models_dir: &Path) -> Vec<PathBuf> {
        let Some(PlainText { text, dir }) = &self.named_by else { return Vec::new() };
        gguf_file::candidates(&GgufFile::Path(text.clone()), dir.as_deref(), models_dir)
    }

    /// The text that stands for its file if it may have been meant as the name of an adapter: one that has no document.
    pub fn missing_name(&self) -> Option<&str> {
        let GgufFile::Path(path) = &self.file else { return None };
        let text = path.to_str().filter(|_| self.name.is_none())?;
        (!text.contains('/') && !text.ends_with(".gguf")).then_some(text)
    }

    /// What has the [missing name](Self::missing_name) and is no adapter, with its place: `a model (own.yaml:3) of this name`.
    pub fn other_kinds(&self) -> Option<&str> {
        self.other_kinds.as_deref()
    }

    pub(crate) fn decode(adapter: &AdapterName, fields: MapReader<'_>, report: &mut Diagnostics<'_>) -> Option<Self> {
        let mut f = fields;
        let description = f.get("description").map(|n| text(n, "`description`", 1..=2000, report));
        let file = f.need("file", report).and_then(|n| gguf_file::decode_whole(n, "`file`", report));
        let sha256 = f.get("sha256").and_then(|n| PieceHashes::new(vec![model::hash(n, report)?]));
        let version = f.get("version").and_then(|n| text(n, "`version`", 1..=100, report));
        let scale = f.get("scale").map_or(Some(1.0), |n| scale(n, report));
        f.finish(&[], report);
        Some(Self {
            name: Some(adapter.clone()),
            description: description.flatten(),
            file: file?,
            dir: report.source.dir.clone(),
            sha256,
            version,
            scale: scale?,
            named_by: None,
            other_kinds: None,
        })
    }

    fn of_file(file: GgufFile, scale: f32, report: &Diagnostics<'_>) -> Self {
        let dir = report.source.dir.clone();
        Self {
            name: None,
            description: None,
            file,
            dir,
            sha256: None,
            version: None,
            scale,
            named_by: None,
            other_kinds: None,
        }
    }
}

fn scale(node: &YamlNode, report: &mut Diagnostics<'_>) -> Option<f32> {
    number(node, "`scale`", -MAX_SCALE_FACTOR..=MAX_SCALE_FACTOR, report).map(|scale| scale as f32)
}

/// The adapters of a role: one, or a list.
pub(crate) fn of_role(node: &YamlNode, declared: &DeclaredAdapters<'_>, report: &mut Diagnostics<'_>) -> Vec<Adapter> {
    let YamlValue::List(nodes) = &node.value else {
        return reference(node, declared, report).into_iter().collect();
    };
    if !(2..=MAX_ROLE_ADAPTERS).contains(&nodes.len()) {
        let message =
            format!("a list of adapters has 2 to {MAX_ROLE_ADAPTERS} of them, and this one has {}", nodes.len());
        let hint = (nodes.len() == 1).then(|| "write the adapter without the list".to_owned());
        report.push_error(node.span, message, hint);
        return Vec::new();
    }
    let mut adapters: Vec<Adapter> = Vec::new();
    for node in nodes {
        let Some(adapter) = reference(node, declared, report) else { continue };
        if adapters.iter().any(|known| (&known.file, &known.dir) == (&adapter.file, &adapter.dir)) {
            report.error_with_hint(node.span, "this adapter is named twice", "name it once, with one `scale`");
        } else {
            adapters.push(adapter);
        }
    }
    adapters
}

/// An adapter as a role names it: the name of a document, a file, or a map. What cannot be read is reported, or was with its document.
fn reference(node: &YamlNode, declared: &DeclaredAdapters<'_>, report: &mut Diagnostics<'_>) -> Option<Adapter> {
    match &node.value {
        YamlValue::Map(_) => in_map(node, declared, report),
        YamlValue::Str(text, _) if declared.names.has(DefinitionKind::Adapter, text) => {
            let adapter = declared.read.get(text.as_str())?;
            let named_by = PlainText { text: text.into(), dir: report.source.dir.clone() };
            Some(Adapter { named_by: Some(named_by), ..Adapter::clone(adapter) })
        }
        _ => {
            let file = gguf_file::decode_whole(node, "`adapter`", report)?;
            let adapter = Adapter::of_file(file, 1.0, report);
            let name = adapter.missing_name();
            let other_kinds = name.and_then(|name| warn_of_other_kind(name, node.span, declared.names, report));
            Some(Adapter { other_kinds, ..adapter })
        }
    }
}

fn in_map(node: &YamlNode, declared: &DeclaredAdapters<'_>, report: &mut Diagnostics<'_>) -> Option<Adapter> {
    let mut f = MapReader::open(node, "`adapter`", &keys::ROLE_ADAPTER, report)?;
    let named = f.get("adapter");
    let file_node = f.get("file");
    let scale = f.get("scale").map(|n| scale(n, report));
    f.finish(&[], report);
    match (named, file_node) {
        (Some(_), Some(file)) => {
            report.error_with_hint(
                file.span,
                "`adapter` has both the name of an adapter and a file",
                "the document of the adapter has its file: remove one of the two",
            );
            None
        }
        (None, None) => {
            report.error(node.span, "`adapter` has neither `adapter`, a name, nor `file`");
            None
        }
        (None, Some(file)) => {
            let file = gguf_file::decode_whole(file, "`file`", report)?;
            Some(Adapter::of_file(file, scale.unwrap_or(Some(1.0))?, report))
        }
        (Some(named), None) => {
            let name = name(named, "an adapter", AdapterName::parse, report)?;
            let adapter = find(&name, named.span, declared, report)?;
            Some(Adapter { scale: scale.unwrap_or(Some(adapter.scale))?, ..Adapter::clone(adapter) })
        }
    }
}

fn find<'a>(
    name: &AdapterName,
    span: Span,
    declared: &DeclaredAdapters<'a>,
    report: &mut Diagnostics<'_>,
) -> Option<&'a Arc<Adapter>> {
    declared.names.report_missing(DefinitionKind::Adapter, name.as_str(), span, report);
    declared.read.get(name)
}

/// Warns of a text that is read as a path and is the name of something else than an adapter: a file of this name is unlikely. Returns
/// what it is.
fn warn_of_other_kind(name: &str, span: Span, names: &DeclaredNames, report: &mut Diagnostics<'_>) -> Option<String> {
    let instead = names.instead(DefinitionKind::Adapter, name)?;
    let message = format!("there is no adapter `{}`, but {instead}, and so this is the path of a file", shown(name));
    let hint = names.hint(DefinitionKind::Adapter, name);
    report.warn(span, message, format!("for a file of this name, write `{{file: {}}}`; {hint}", shown(name)));
    Some(instead)
}
