//! What `init` asks a person; without one, the proposals are taken.

use std::io::{self, BufReader, Stderr, Stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use artel_init::{Dialogue, ModelOffer, TableModel};
use artel_terminal::bytes;

use crate::serve::config::Config;

/// A dialogue on the terminal, or none.
pub(super) struct Questions(Option<Dialogue<BufReader<Stdin>, Stderr>>);

impl Questions {
    pub(super) fn new(is_asked: bool) -> Self {
        Self(is_asked.then(|| Dialogue::new(BufReader::new(io::stdin()), io::stderr())))
    }

    /// Whether a person is asked.
    pub(super) fn are_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Where the catalog goes.
    pub(super) fn place(&mut self, default: &Path) -> Result<PathBuf> {
        let Some(dialogue) = &mut self.0 else { return Ok(default.to_owned()) };
        let answer = dialogue.text("Where do the files of the catalog go?", &default.to_string_lossy());
        let answer = answer.context("failed to ask for a directory")?;
        // A person writes it as in a shell.
        let below_home =
            answer.strip_prefix("~/").and_then(|rest| Some(PathBuf::from(std::env::var_os("HOME")?).join(rest)));
        Ok(below_home.unwrap_or_else(|| PathBuf::from(answer)))
    }

    /// The name of a model, of those that are offered.
    pub(super) fn model(&mut self, offers: &[ModelOffer<'_>], proposal: &str) -> Result<String> {
        let Some(dialogue) = &mut self.0 else { return Ok(proposal.to_owned()) };
        let names: Vec<&str> = offers.iter().map(|offer| offer.model.name.as_str()).collect();
        dialogue.choice("Which model?", &names, proposal).context("failed to ask for a model")
    }

    /// Whether the files of these models may be downloaded.
    pub(super) fn may_download(&mut self, models: &[&TableModel], config: &Config) -> Result<bool> {
        let Some(dialogue) = &mut self.0 else { return Ok(true) };
        let one = |model: &&TableModel| format!("{} ({}, {})", model.name, bytes(model.file_bytes), model.licence);
        let list: Vec<String> = models.iter().map(one).collect();
        let question = format!("Download {} to {}?", list.join(" and "), config.runtime.models_dir.display());
        dialogue.confirm(&question).context("failed to ask whether to download")
    }
}
