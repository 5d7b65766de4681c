//! The catalog to write: with the chosen model, once its files are here, or with what there is without a download.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use artel_init::{CatalogModel, StarterCatalog, TableModel};
use artel_roles::{Catalog, GgufFile, Model, YamlSource, shipped, source};
use artel_terminal::CommandOutput;

use super::questions::Questions;
use super::setup::Setup;

/// The names of the demo models in the catalog that ships.
const DEMO_MODELS: [&str; 2] = ["smollm2", "minilm"];

/// The catalog to write, and what became of the files of its models.
pub(super) struct PreparedCatalog {
    pub(super) catalog: StarterCatalog,
    /// The models whose files were asked for, with the paths of those that are here.
    pub(super) fetched: Vec<(TableModel, Option<PathBuf>)>,
}

impl PreparedCatalog {
    /// Whether a file of its models is still to be fetched.
    pub(super) fn needs_fetch(&self) -> bool {
        self.fetched.iter().any(|(_, path)| path.is_none())
    }
}

impl Setup<'_> {
    /// The catalog with the chosen model, whose files are downloaded; or with what is here, if they cannot be.
    pub(super) async fn prepare(
        &mut self,
        chosen: Option<TableModel>,
        questions: &mut Questions,
        output: &mut CommandOutput,
    ) -> Result<PreparedCatalog> {
        let Some(chat) = chosen else { return self.without_download(None, output) };
        let wanted: Vec<TableModel> = [Some(chat.clone()), self.embedding()].into_iter().flatten().collect();
        let missing: Vec<&TableModel> = wanted.iter().filter(|model| !self.is_here(model)).collect();
        let may_download =
            missing.is_empty() || (!self.config.offline && questions.may_download(&missing, &self.config)?);
        if !may_download {
            let why = if self.config.offline { "downloads are disabled (offline)" } else { "nothing is downloaded" };
            self.notes.push(why, output)?;
            return self.without_download(Some(&chat), output);
        }
        let full = StarterCatalog { chat: of_table(&chat), embedding: self.embedding().as_ref().map(of_table) };
        self.refuse_conflicts(&full)?;
        artel_journal::prepare(&self.config.data).map_err(|e| anyhow!("{e}"))?;
        let chat_path = match self.download(&chat).await {
            Ok(path) => path,
            Err(error) => {
                self.notes.push(format!("{} was not fetched: {error}", chat.name), output)?;
                return self.without_download(Some(&chat), output);
            }
        };
        let mut fetched = vec![(chat, Some(chat_path))];
        let mut catalog = full;
        if let Some(embedding) = self.embedding() {
            match self.download(&embedding).await {
                Ok(path) => fetched.push((embedding, Some(path))),
                Err(error) => {
                    let message = format!("{} was not fetched, and the router goes by words: {error}", embedding.name);
                    self.notes.push(message, output)?;
                    catalog.embedding = None;
                }
            }
        }
        self.refuse_conflicts(&catalog)?;
        Ok(PreparedCatalog { catalog, fetched })
    }

    /// The catalog with the chosen model, if that is here; or with the demo models, if they are and no other was asked for; or with
    /// the chosen one, which `artel fetch` downloads later.
    fn without_download(&mut self, chosen: Option<&TableModel>, output: &mut CommandOutput) -> Result<PreparedCatalog> {
        let demo = self.demo().filter(|_| self.args.model.is_none());
        let prepared = match (demo, chosen) {
            (_, Some(chat)) if self.is_here(chat) => {
                let (here, missing): (Vec<_>, Vec<_>) =
                    self.embedding().into_iter().partition(|model| self.is_here(model));
                for embedding in missing {
                    self.notes.push(format!("{} is not here, and the router goes by words", embedding.name), output)?;
                }
                let path = |model: TableModel| (model.clone(), Some(self.downloader.path(&model.address)));
                PreparedCatalog {
                    catalog: StarterCatalog { chat: of_table(chat), embedding: here.first().map(of_table) },
                    fetched: [chat.clone()].into_iter().chain(here).map(path).collect(),
                }
            }
            (Some(catalog), _) => {
                let note = "the catalog names the demo model, which is here: it has 135M parameters, and is too small to be \
                            trusted; with a connection, `artel init --force` takes a better one";
                self.notes.push(note, output)?;
                PreparedCatalog { catalog, fetched: Vec::new() }
            }
            (None, Some(chat)) => {
                let demo = if self.args.model.is_none() { "the demo model is not here either: " } else { "" };
                let note = "the catalog names the chosen model, and `artel fetch` downloads it later";
                self.notes.push(format!("{demo}{note}"), output)?;
                let models = [Some(chat.clone()), self.embedding()].into_iter().flatten();
                let fetched =
                    models.map(|model| (self.is_here(&model).then(|| self.downloader.path(&model.address)), model));
                PreparedCatalog {
                    fetched: fetched.map(|(path, model)| (model, path)).collect(),
                    catalog: StarterCatalog {
                        chat: of_table(chat),
                        embedding: self.embedding().as_ref().map(of_table),
                    },
                }
            }
            (None, None) => bail!(
                "no model of the table fits on this machine, and the demo model is not in {}; free memory or disk space, or \
                 name a model with --model",
                self.config.runtime.models_dir.display()
            ),
        };
        self.refuse_conflicts(&prepared.catalog)?;
        Ok(prepared)
    }

    /// The catalog with the demo models, if the chat model is here.
    fn demo(&self) -> Option<StarterCatalog> {
        let shipped = Catalog::shipped();
        let here = |name: &str| {
            let model = shipped.model(name)?;
            artel_check::files::model(model, &self.config.runtime.models_dir).is_ok().then(|| of_catalog(model))
        };
        let [chat, embedding] = DEMO_MODELS.map(here);
        Some(StarterCatalog {
            chat: chat?.renamed("demo"),
            embedding: embedding.map(|model| model.renamed("demo-embedding")),
        })
    }

    /// Fails before anything is downloaded or written, if files would be replaced or the catalog would be invalid.
    fn refuse_conflicts(&self, catalog: &StarterCatalog) -> Result<()> {
        let dir = &self.place.dir;
        let files = catalog.files();
        let different = artel_init::compare(dir, &files)?.different;
        if !different.is_empty() && !self.args.force {
            let list: Vec<String> = different.iter().map(|path| format!("\n  {}", path.display())).collect();
            bail!(
                "there are files already, and nothing was changed:{}\nname another directory, or add --force: it keeps each of \
                 them as FILE.bak",
                list.concat()
            );
        }
        let written: Vec<PathBuf> = files.iter().map(|file| dir.join(file.name)).collect();
        let others = if dir.is_dir() { source::read_dir(dir).map_err(invalid(dir))? } else { Vec::new() };
        let others = others.into_iter().filter(|other| !written.iter().any(|path| Path::new(&other.path) == path));
        let own = files.into_iter().map(|file| YamlSource {
            path: dir.join(file.name).to_string_lossy().into_owned(),
            dir: std::path::absolute(dir).ok(),
            text: file.text,
        });
        Catalog::parse(vec![shipped::sources(), others.chain(own).collect()]).map(drop).map_err(invalid(dir))
    }
}

fn invalid(dir: &Path) -> impl FnOnce(artel_roles::Problems) -> anyhow::Error {
    let dir = dir.display().to_string();
    move |problems| {
        anyhow!("the catalog would be invalid beside the other files in {dir}, and nothing was changed:\n{problems}")
    }
}

/// A model of the table as the catalog names it. What only the hub knows is left out, so that a second run writes the same.
fn of_table(model: &TableModel) -> CatalogModel {
    CatalogModel {
        name: model.name.to_string(),
        description: format!(
            "{}, {}, {} parameters. Licence of the weights: {}.",
            model.address.repo(),
            model.quantisation,
            model.parameters,
            model.licence
        ),
        file: model.address.to_string(),
        sha256: None,
        context_tokens: model.context_tokens,
    }
}

/// A model that ships as the new catalog names it.
fn of_catalog(model: &Model) -> CatalogModel {
    let file = match &model.file {
        GgufFile::Path(path) => path.to_string_lossy().into_owned(),
        GgufFile::Hf(address) => address.to_string(),
    };
    CatalogModel {
        name: model.name.to_string(),
        description: model.description.clone().unwrap_or_else(|| model.name.to_string()),
        file,
        sha256: model.sha256.clone(),
        context_tokens: model.context.unwrap_or(u32::MAX),
    }
}
