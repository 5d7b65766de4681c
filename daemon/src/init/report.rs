//! The summary of `init`, with the commands that follow.

use std::path::{Path, PathBuf};

use anyhow::Result;
use artel_args::default_data_dir;
use artel_init::{StarterFile, TableModel, WrittenFile};
use artel_terminal::{BAD, BOLD, CommandOutput, DIM, GOOD, StyledText};
use serde_json::{Value, json};

use super::crew_check::CrewCheck;
use super::place::shell_word;
use super::prepare::PreparedCatalog;
use super::setup::Setup;

/// The end of `init`.
pub(super) struct InitReport<'a> {
    pub(super) setup: &'a Setup<'a>,
    pub(super) prepared: &'a PreparedCatalog,
    pub(super) files: &'a [StarterFile],
    pub(super) written: &'a [WrittenFile],
    pub(super) check: &'a CrewCheck,
}

impl InitReport<'_> {
    pub(super) fn print(&self, output: &mut CommandOutput) -> Result<()> {
        output.show(&self.json(), |out| self.render(out))?;
        Ok(())
    }

    fn dir(&self) -> &Path {
        &self.setup.place.dir
    }

    /// The three commands that follow.
    fn next(&self) -> Vec<String> {
        let flags = self.setup.place.flags(self.setup.args);
        let first = match self.prepared.needs_fetch() {
            true => format!("artel fetch{flags}"),
            false => format!("artel check {}", shell_word(self.dir())),
        };
        // A client looks for the daemon where its data is by default.
        let data = Some(&self.setup.config.data).filter(|data| default_data_dir().as_ref() != Some(*data));
        let data = data.map(|data| format!(" --data {}", shell_word(data))).unwrap_or_default();
        let run = format!(r#"artel run{data} --graph crew "How does a heat pump work?""#);
        vec![first, format!("artel serve{flags}"), run]
    }

    fn json(&self) -> Value {
        let file = |written: &WrittenFile| json!({"path": written.path, "backup": written.backup});
        let fetched = |(model, path): &(TableModel, Option<PathBuf>)| json!({"name": model.name.as_str(), "address": model.address.to_string(), "path": path});
        let [roles, graphs, models] = self.check.counts;
        json!({
            "ok": self.check.is_ok(),
            "catalog": self.dir(),
            "model": self.prepared.catalog.chat.name,
            "embedding_model": self.prepared.catalog.embedding.as_ref().map(|model| &model.name),
            "files": self.written.iter().map(file).collect::<Vec<_>>(),
            "models": self.prepared.fetched.iter().map(fetched).collect::<Vec<_>>(),
            "placements": self.check.placements,
            "problems": self.check.problems,
            "counts": {"roles": roles, "graphs": graphs, "models": models},
            "notes": self.setup.notes.all(),
            "next": self.next(),
        })
    }

    fn render(&self, out: &mut StyledText) {
        for (model, path) in &self.prepared.fetched {
            match path {
                Some(path) => {
                    out.push_styled(GOOD, "here").push(format_args!(": {}, {}", model.address, path.display()))
                }
                None => out.push_styled(DIM, "to fetch").push(format_args!(": {}", model.address)),
            };
            out.newline();
        }
        for WrittenFile { path, backup } in self.written {
            out.push_styled(GOOD, "written").push(format_args!(": {}", path.display()));
            if let Some(backup) = backup {
                out.push(format_args!("; the file before is {}", backup.display()));
            }
            out.newline();
        }
        if self.written.is_empty() {
            let count = self.files.len();
            out.push(format_args!(
                "nothing was changed: the {count} files in {} are as they should be",
                self.dir().display()
            ));
            out.newline();
        }
        for placement in &self.check.placements {
            out.push(placement).newline();
        }
        for problem in &self.check.problems {
            out.push_styled(BAD, "problem").push(": ").push(problem).newline();
        }
        let [roles, graphs, models] = self.check.counts;
        out.push_styled(GOOD, "valid")
            .push(format_args!(": with those that ship, there are {roles} roles, {graphs} graphs and {models} models"))
            .newline();
        out.newline().push("Next, the daemon in one terminal and the task in another:").newline();
        for command in self.next() {
            out.push("  ").push_styled(BOLD, command).newline();
        }
    }
}
