//! What the findings mean, in words for somebody who is new to all this, and what to do. A function of the findings alone.

mod devices;
mod models;

use std::time::Duration;

use artel_journal::{Figures, Retention};
use artel_task::event::Timestamp;
use serde_json::{Value, json};

use super::findings::Findings;
use crate::client::render::page::{BAD, BOLD, DIM, Page, WARN};
use crate::client::render::time::{bytes, span};

/// Below this, a disk is as good as full: a journal in use, and beginnings of prompts.
const LITTLE_DISK: u64 = 1 << 30;
/// An open task that is older than this may have been forgotten.
const LONG: Duration = Duration::from_secs(7 * 86_400);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    what: &'static str,
    standing: Standing,
    says: String,
    /// What to do.
    help: Option<String>,
}

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// A daemon would run, but perhaps not as it should.
    Doubtful,
    /// A daemon would not start, or could not run all models.
    Bad,
}

impl Line {
    fn good(what: &'static str, says: impl Into<String>) -> Self {
        Self { what, standing: Standing::Good, says: says.into(), help: None }
    }

    fn doubtful(what: &'static str, says: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what, standing: Standing::Doubtful, says: says.into(), help: Some(help.into()) }
    }

    fn bad(what: &'static str, says: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what, standing: Standing::Bad, says: says.into(), help: Some(help.into()) }
    }
}

/// Everything, in the order in which it is told.
pub(super) fn lines(found: &Findings) -> Vec<Line> {
    let mut lines = vec![data(found)];
    lines.extend(journal(found));
    lines.push(retention(&found.retention));
    lines.extend(found.disk.map(disk));
    lines.push(threads(found.threads, found.cores));
    lines.extend(
        found.memory.map(|(all, free)| Line::good("memory", format!("{} free of {}", bytes(free), bytes(all)))),
    );
    lines.extend(devices::lines(found));
    lines.extend(models::lines(found));
    lines
}

/// Whether a daemon would start and could run all models.
pub(super) fn is_well(lines: &[Line]) -> bool {
    !lines.iter().any(|line| line.standing == Standing::Bad)
}

fn data(found: &Findings) -> Line {
    let (dir, writable) = &found.data;
    match writable {
        Ok(()) => Line::good("data", dir.display().to_string()),
        Err(reason) => Line::bad(
            "data",
            reason,
            format!(
                "the journal is to lie in {0}: `sudo mkdir -p {0} && sudo chown -R \"$USER\" {0}` makes it yours, and --data \
                 names another directory",
                dir.display()
            ),
        ),
    }
}

fn journal(found: &Findings) -> Vec<Line> {
    let figures = match &found.journal {
        Ok(Some(figures)) => figures,
        Ok(None) => return vec![Line::good("journal", "none yet; the first start makes one")],
        Err(error) => {
            let help = "`artel journal check` reads all of it and says what is wrong";
            return vec![Line::bad("journal", error, help)];
        }
    };
    let Figures { path, format, bytes: size, free, log, running, completed, failed, cancelled, .. } = figures;
    let size = format!("{}, {} of it free, and {} of log", bytes(*size), bytes(*free), bytes(*log));
    let mut lines =
        vec![Line::good("journal", format!("{}, format {format}", path.display())), Line::good("size", size)];
    let counts = format!("{running} running, {completed} completed, {failed} failed, {cancelled} cancelled");
    let open = figures.oldest_running.map(|since| since_then(since, found.now));
    lines.push(match open {
        None => Line::good("tasks", counts),
        Some(open) if open < LONG => Line::good("tasks", format!("{counts}; the oldest runs for {}", age(open))),
        Some(open) => Line::doubtful(
            "tasks",
            format!("{counts}; the oldest runs for {}", age(open)),
            "it may wait for an answer that was forgotten: `artel task list --state waiting`, then `artel task answer` or \
             `artel task cancel`",
        ),
    });
    lines
}

fn since_then(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(now.0.saturating_sub(then.0))
}

fn age(age: Duration) -> String {
    let days = age.as_secs() / 86_400;
    if days > 1 { format!("{days} days") } else { span(age) }
}

fn retention(retention: &Retention) -> Line {
    let Retention { tasks, age: most, bytes: size } = retention;
    let kept = format!("{tasks} ended tasks for {}, as far as {} hold them", age(*most), bytes(*size));
    Line::good("retention", format!("{kept}; older ones are removed, running ones never"))
}

fn disk(free: u64) -> Line {
    let says = format!("{} free", bytes(free));
    match free < LITTLE_DISK {
        false => Line::good("disk", says),
        true => Line::doubtful(
            "disk",
            says,
            "when it is full, new tasks are refused and running ones rest: make room, lower `retention: {size: ...}`, or move \
             `data` to another disk",
        ),
    }
}

fn threads(threads: u32, cores: u32) -> Line {
    match threads > cores {
        false => Line::good("threads", format!("{threads} of {cores} cores")),
        true => Line::doubtful(
            "threads",
            format!("{threads}, and there are {cores} cores"),
            "more threads than cores hold each other up: leave `threads` out of the settings",
        ),
    }
}

/// As people read it.
pub(super) fn render(lines: &[Line], page: &mut Page) {
    for line in lines {
        page.paint(BOLD, format_args!("{:<10}", line.what));
        let mut said = line.says.lines();
        match (line.standing, said.next().unwrap_or_default()) {
            (Standing::Good, says) => page.put(says),
            (Standing::Doubtful, says) => page.paint(WARN, says),
            (Standing::Bad, says) => page.paint(BAD, says),
        };
        page.end();
        for more in said {
            page.put(format_args!("{:<10}{more}", "")).end();
        }
        for help in line.help.iter().flat_map(|help| help.lines()) {
            page.put(format_args!("{:<10}", "")).paint(DIM, format_args!("help: {help}")).end();
        }
    }
    let verdict = match (is_well(lines), lines.iter().all(|line| line.standing == Standing::Good)) {
        (true, true) => "all is well",
        (true, false) => "a daemon runs here; see what is said above",
        (false, _) => "not all is well: see what is said above",
    };
    page.end().put(verdict).end();
}

/// As programs read it: the facts, and what to do.
pub(super) fn json(found: &Findings, lines: &[Line]) -> Value {
    let journal = match &found.journal {
        Ok(figures) => figures.as_ref().map(figures_json).unwrap_or_default(),
        Err(error) => json!({"error": error}),
    };
    let Retention { tasks, age, bytes } = found.retention;
    let told = lines.iter().filter(|line| line.standing != Standing::Good);
    let told = told.map(|line| {
        let standing = if line.standing == Standing::Bad { "bad" } else { "doubtful" };
        json!({"about": line.what, "standing": standing, "says": line.says, "help": line.help})
    });
    json!({
        "well": is_well(lines),
        "advice": told.collect::<Vec<_>>(),
        "journal": journal,
        "retention": {"tasks": tasks, "age_seconds": age.as_secs(), "bytes": bytes},
        "disk_free_bytes": found.disk,
        "threads": found.threads,
        "memory_free_bytes": found.memory.map(|(_, free)| free),
        "memory_bytes": found.memory.map(|(all, _)| all),
        "devices": devices::names(found),
        "unmonitored": found.unmonitored,
        "models": models::json(&found.models),
        "catalog_error": found.catalog,
    })
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
        "oldest_running_unix_millis": figures.oldest_running.map(|at| at.0),
    })
}
