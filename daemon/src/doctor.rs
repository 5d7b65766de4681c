//! `artel doctor`: what a daemon would find here, without starting one.

use std::process::ExitCode;

use anyhow::Result;
use artel_journal::{Figures, Retention};
use artel_roles::Catalog;
use serde_json::{Value, json};

use crate::args::{Global, Place};
use crate::client::output::Output;
use crate::client::render::page::{BOLD, Page};
use crate::client::render::time::{bytes, span};
use crate::disk;
use crate::journal::{blocking, exit};
use crate::serve::config::Config;
use crate::serve::files;

/// Looks and tells; exit code 1 if a daemon could not start or could not run all models.
pub(crate) fn run(place: &Place, global: &Global) -> ExitCode {
    let looked = Config::at(place).and_then(|config| {
        let findings = Findings::of(&config)?;
        let mut output = Output::new(global);
        output.show(&findings.json(), |page| findings.render(page))?;
        Ok(findings.is_well())
    });
    exit(looked, global)
}

/// What was found.
struct Findings {
    /// What the journal holds, if there is one; or why it cannot be read.
    journal: Result<Option<Figures>, String>,
    retention: Retention,
    /// Bytes that the disk of the journal has left, where that can be told.
    disk: Option<u64>,
    threads: u32,
    /// Bytes of memory that are free and that there are, where that can be told.
    memory: Option<(u64, u64)>,
    devices: Vec<String>,
    /// Models that are whole, and what is wrong with the others.
    models: Vec<(String, Result<(), String>)>,
    /// What is wrong with the catalog.
    catalog: Option<String>,
}

impl Findings {
    fn of(config: &Config) -> Result<Self> {
        let journal = blocking(artel_journal::survey(&config.data))?.map_err(|error| error.to_string());
        let (models, catalog) = match Catalog::load(config.catalog.as_deref()) {
            Ok(catalog) => {
                let look = |model: &_| files::model(model, &config.crew.models).map_err(|fault| fault.to_string());
                (catalog.models().iter().map(|(name, model)| (name.to_string(), look(model))).collect(), None)
            }
            Err(problems) => (Vec::new(), Some(problems.to_string())),
        };
        Ok(Self {
            journal,
            retention: config.journal.retention,
            disk: disk::free(&config.data),
            threads: config.threads,
            memory: std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory),
            devices: artel_llama::devices().into_iter().map(|device| device.name).collect(),
            models,
            catalog,
        })
    }

    fn is_well(&self) -> bool {
        self.journal.is_ok() && self.catalog.is_none() && self.models.iter().all(|(_, found)| found.is_ok())
    }

    fn json(&self) -> Value {
        let journal = match &self.journal {
            Ok(figures) => figures.as_ref().map(figures_json).unwrap_or_default(),
            Err(error) => json!({"error": error}),
        };
        let Retention { tasks, age, bytes } = self.retention;
        let models = self.models.iter().map(|(name, found)| json!({"model": name, "error": found.as_ref().err()}));
        json!({
            "well": self.is_well(),
            "journal": journal,
            "retention": {"tasks": tasks, "age_seconds": age.as_secs(), "bytes": bytes},
            "disk_free_bytes": self.disk,
            "threads": self.threads,
            "memory_free_bytes": self.memory.map(|(free, _)| free),
            "memory_bytes": self.memory.map(|(_, all)| all),
            "devices": self.devices,
            "models": models.collect::<Vec<_>>(),
            "catalog_error": self.catalog,
        })
    }

    fn render(&self, page: &mut Page) {
        match &self.journal {
            Ok(Some(figures)) => journal(figures, page),
            Ok(None) => line(page, "journal", "none yet"),
            Err(error) => line(page, "journal", error),
        }
        let Retention { tasks, age, bytes: most } = self.retention;
        let days = age.as_secs() / 86_400;
        let age = if days > 1 { format!("{days} days") } else { span(age) };
        line(page, "retention", &format!("{tasks} ended tasks, {age}, {}", bytes(most)));
        if let Some(disk) = self.disk {
            line(page, "disk", &format!("{} free", bytes(disk)));
        }
        line(page, "threads", &self.threads.to_string());
        if let Some((free, all)) = self.memory {
            line(page, "memory", &format!("{} free of {}", bytes(free), bytes(all)));
        }
        line(page, "devices", &self.devices.join(", "));
        for (name, found) in &self.models {
            let found = found.as_ref().map_or_else(|error| error.clone(), |()| "is there".to_owned());
            line(page, "model", &format!("{name}: {found}"));
        }
        if let Some(error) = &self.catalog {
            line(page, "catalog", error);
        }
    }
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "path": figures.path,
        "format": figures.format,
        "bytes": figures.bytes,
        "free_bytes": figures.free,
        "log_bytes": figures.log,
        "running": figures.running,
        "completed": figures.completed,
        "failed": figures.failed,
        "cancelled": figures.cancelled,
        "oldest_unix_millis": figures.oldest.map(|at| at.0),
        "newest_unix_millis": figures.newest.map(|at| at.0),
    })
}

fn journal(figures: &Figures, page: &mut Page) {
    let Figures { path, format, bytes: size, free, log, running, completed, failed, cancelled, .. } = figures;
    line(page, "journal", &format!("{}, format {format}", path.display()));
    line(page, "size", &format!("{}, {} of it free, and {} of log", bytes(*size), bytes(*free), bytes(*log)));
    let tasks = format!("{running} running, {completed} completed, {failed} failed, {cancelled} cancelled");
    line(page, "tasks", &tasks);
}

fn line(page: &mut Page, what: &str, value: &str) {
    page.paint(BOLD, format_args!("{what:<10}")).put(value).end();
}

/// Bytes of memory that are free and that there are, as Linux tells them.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((field("MemAvailable:")?, field("MemTotal:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_linux_tells_it() {
        let meminfo = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   8192 kB\n";
        assert_eq!(memory(meminfo), Some((8 << 20, 16 << 20)));
        assert_eq!(memory("MemTotal: many"), None);
    }
}
