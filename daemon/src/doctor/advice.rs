//! Diagnoses of the findings, with advice for new users. A pure function of the findings.

mod devices;
mod models;

use std::path::Path;
use std::time::Duration;

use artel_http::{CertificateValidity, TlsError};
use artel_journal::{DirExposure, JournalStats, Retention, SetAsideTask};
use artel_task::event::Timestamp;
use artel_terminal::{BAD, BOLD, DIM, StyledText, WARN, bytes, one_line, span};
use serde_json::{Value, json};

use super::diagnosis::{Diagnosis, DiagnosisLevel, is_ok};
use super::findings::Findings;
use crate::log_config::LogConfig;

/// Less free space than this gives a warning: the journal and the prefixes on disk need some of it.
const MIN_FREE_DISK_BYTES: u64 = 1 << 30;
/// A running task that is older than this may have been forgotten.
const MAX_RUNNING_AGE: Duration = Duration::from_secs(7 * 86_400);

/// Tasks that are set aside and are listed: a screen of them.
const MAX_LISTED_TASKS: usize = 20;

/// All diagnoses, in the order in which they are shown.
pub(super) fn diagnose(findings: &Findings) -> Vec<Diagnosis> {
    let mut diagnoses: Vec<Diagnosis> = findings.settings.iter().map(|warning| settings(warning)).collect();
    diagnoses.push(data(findings));
    diagnoses.extend(findings.exposure.map(|exposure| self::exposure(exposure, &findings.data.0)));
    diagnoses.extend(journal(findings));
    diagnoses.extend(set_aside(&findings.set_aside));
    diagnoses
        .extend(findings.exposed_port.map(|exposed| Diagnosis::error("port", exposed.to_string(), exposed.help())));
    diagnoses.extend(findings.certificate.as_ref().map(certificate));
    diagnoses.push(retention(&findings.retention));
    diagnoses.push(log(&findings.log));
    diagnoses.extend(findings.traces.as_ref().map(traces));
    diagnoses.extend(findings.disk.map(disk));
    diagnoses.push(threads(findings.threads, findings.cores));
    diagnoses.extend(
        findings.memory.map(|(all, free)| Diagnosis::ok("memory", format!("{} free of {}", bytes(free), bytes(all)))),
    );
    diagnoses.extend(devices::diagnose(findings));
    diagnoses.extend(models::diagnose(findings));
    diagnoses
}

fn settings(warning: &str) -> Diagnosis {
    Diagnosis::warning("settings", warning, "`artel config show` lists all settings, and where each comes from")
}

fn log(log: &LogConfig) -> Diagnosis {
    let format = match log.format {
        Some(format) => format.as_str(),
        None => "text, journald if systemd reads it, or json with --json",
    };
    Diagnosis::ok("log", format!("standard error, as {format}; {}", log.filter))
}

fn traces(traces: &Result<String, artel_otlp::Error>) -> Diagnosis {
    match traces {
        Ok(traces) => Diagnosis::ok("traces", traces.as_str()),
        Err(error) => Diagnosis::error(
            "traces",
            error.to_string(),
            "correct `traces` in the settings; without it, nothing is sent to a collector",
        ),
    }
}

fn data(findings: &Findings) -> Diagnosis {
    let (dir, writable) = &findings.data;
    match writable {
        Ok(()) => Diagnosis::ok("data", dir.display().to_string()),
        Err(reason) => Diagnosis::error(
            "data",
            reason.to_string(),
            format!(
                "the journal is stored in {0}: make it yours with `sudo mkdir -p {0} && sudo chown -R \"$USER\" {0}`, or name \
                 another directory with --data",
                dir.display()
            ),
        ),
    }
}

fn exposure(exposure: DirExposure, dir: &Path) -> Diagnosis {
    let dir = dir.display();
    match exposure {
        DirExposure::Owner { owner, user } => Diagnosis::error(
            "access",
            format!("the data directory belongs to user {owner}, and this program runs as user {user}"),
            format!("run the daemon as that user, or give it the directory with `sudo chown -R {user} {dir}`"),
        ),
        DirExposure::Mode(mode) => Diagnosis::warning(
            "access",
            format!("the data directory has mode {mode:04o}: other users of this machine can read the tasks in it"),
            format!("the next start of a daemon makes it private; so does `chmod 700 {dir}`"),
        ),
    }
}

fn journal(findings: &Findings) -> Vec<Diagnosis> {
    let stats = match &findings.journal {
        Ok(Some(stats)) => stats,
        Ok(None) => return vec![Diagnosis::ok("journal", "none yet; the first start of a daemon creates one")],
        Err(error) => {
            let help = "`artel journal check` reads the whole journal and lists the damage";
            return vec![Diagnosis::error("journal", error.to_string(), help)];
        }
    };
    let JournalStats {
        path,
        format,
        database_bytes: size,
        free_bytes: free,
        log_bytes: log,
        running,
        completed,
        failed,
        cancelled,
        ..
    } = stats;
    let size = format!("{}, of which {} free; write-ahead log {}", bytes(*size), bytes(*free), bytes(*log));
    let mut diagnoses =
        vec![Diagnosis::ok("journal", format!("{}, format {format}", path.display())), Diagnosis::ok("size", size)];
    let counts = format!("{running} running, {completed} completed, {failed} failed, {cancelled} cancelled");
    let open = stats.oldest_running.map(|since| elapsed(since, findings.now));
    diagnoses.push(match open {
        None => Diagnosis::ok("tasks", counts),
        Some(open) if open < MAX_RUNNING_AGE => {
            Diagnosis::ok("tasks", format!("{counts}; the oldest has been running for {}", age(open)))
        }
        Some(open) => Diagnosis::warning(
            "tasks",
            format!("{counts}; the oldest has been running for {}", age(open)),
            "it may wait for a forgotten answer: list waiting tasks with `artel task list --state waiting`, then use \
             `artel task answer` or `artel task cancel`",
        ),
    });
    diagnoses
}

/// Nothing if no task is set aside.
fn set_aside(tasks: &[SetAsideTask]) -> Option<Diagnosis> {
    let more = tasks.len().checked_sub(MAX_LISTED_TASKS).filter(|more| *more > 0);
    let listed = tasks.iter().take(MAX_LISTED_TASKS).map(|task| format!("{}: {}", task.task, one_line(&task.reason)));
    let lines: Vec<String> = listed.chain(more.map(|more| format!("and {more} more"))).collect();
    (!tasks.is_empty()).then(|| {
        let help = "take a task up again with `artel task resume ID`, or end it with `artel task cancel ID`";
        Diagnosis::warning("set aside", lines.join("\n"), help)
    })
}

fn certificate(found: &Result<CertificateValidity, TlsError>) -> Diagnosis {
    let renew = "replace the files of `tls` in the settings; a running daemon takes the new ones by itself";
    match found {
        Ok(validity @ CertificateValidity::Valid { .. }) => Diagnosis::ok("tls", validity.to_string()),
        Ok(validity @ CertificateValidity::EndsSoon { .. }) => Diagnosis::warning("tls", validity.to_string(), renew),
        Ok(validity) => Diagnosis::error("tls", format!("{validity}: clients refuse it"), renew),
        Err(problem) => {
            Diagnosis::error("tls", problem.to_string(), "a daemon does not start without the files of `tls`")
        }
    }
}

fn elapsed(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(now.0.saturating_sub(then.0))
}

fn age(age: Duration) -> String {
    let days = age.as_secs() / 86_400;
    if days > 1 { format!("{days} days") } else { span(age) }
}

fn retention(retention: &Retention) -> Diagnosis {
    let Retention { tasks, age: most, bytes: size } = retention;
    let limits = format!("ended tasks: at most {tasks}, for at most {}, in at most {}", age(*most), bytes(*size));
    Diagnosis::ok("retention", format!("{limits}; the oldest are deleted first, running ones never"))
}

fn disk(free: u64) -> Diagnosis {
    let message = format!("{} free", bytes(free));
    match free < MIN_FREE_DISK_BYTES {
        false => Diagnosis::ok("disk", message),
        true => Diagnosis::warning(
            "disk",
            message,
            "on a full disk the daemon rejects new tasks and pauses running ones: free space, lower \
             `retention: {size: ...}`, or move `data` to another disk",
        ),
    }
}

fn threads(threads: u32, cores: u32) -> Diagnosis {
    match threads > cores {
        false => Diagnosis::ok("threads", format!("{threads} of {cores} cores")),
        true => Diagnosis::warning(
            "threads",
            format!("{threads} threads on {cores} cores"),
            "more threads than cores slow each other down: remove `threads` from the settings",
        ),
    }
}

/// The diagnoses as text.
pub(super) fn render(diagnoses: &[Diagnosis], out: &mut StyledText) {
    for diagnosis in diagnoses {
        out.push_styled(BOLD, format_args!("{:<10}", diagnosis.subject));
        let mut lines = diagnosis.message.lines();
        match (diagnosis.level, lines.next().unwrap_or_default()) {
            (DiagnosisLevel::Ok, line) => out.push(line),
            (DiagnosisLevel::Warning, line) => out.push_styled(WARN, line),
            (DiagnosisLevel::Error, line) => out.push_styled(BAD, line),
        };
        out.newline();
        for line in lines {
            out.push(format_args!("{:<10}{line}", "")).newline();
        }
        for help in diagnosis.help.iter().flat_map(|help| help.lines()) {
            out.push(format_args!("{:<10}", "")).push_styled(DIM, format_args!("help: {help}")).newline();
        }
    }
    let verdict = match (is_ok(diagnoses), diagnoses.iter().all(|diagnosis| diagnosis.level == DiagnosisLevel::Ok)) {
        (true, true) => "no problems found",
        (true, false) => "a daemon can run on this machine; see the warnings above",
        (false, _) => "a daemon cannot start or cannot run all models; see the errors above",
    };
    out.newline().push(verdict).newline();
}

/// The findings and the advice as JSON.
pub(super) fn json(findings: &Findings, diagnoses: &[Diagnosis]) -> Value {
    let journal = match &findings.journal {
        Ok(stats) => stats.as_ref().map(stats_json).unwrap_or_default(),
        Err(error) => json!({"error": error.to_string()}),
    };
    let Retention { tasks, age, bytes } = findings.retention;
    let problems = diagnoses.iter().filter(|diagnosis| diagnosis.level != DiagnosisLevel::Ok);
    let advice = problems.map(|Diagnosis { subject, level, message, help }| {
        let severity = if *level == DiagnosisLevel::Error { "error" } else { "warning" };
        json!({"subject": subject, "severity": severity, "message": message, "help": help})
    });
    json!({
        "ok": is_ok(diagnoses),
        "advice": advice.collect::<Vec<_>>(),
        "journal": journal,
        "set_aside": findings.set_aside.iter().map(set_aside_json).collect::<Vec<_>>(),
        "retention": {"tasks": tasks, "age_seconds": age.as_secs(), "bytes": bytes},
        "disk_free_bytes": findings.disk,
        "threads": findings.threads,
        "memory_free_bytes": findings.memory.map(|(_, free)| free),
        "memory_bytes": findings.memory.map(|(all, _)| all),
        "devices": devices::names(findings),
        "monitor_error": findings.monitor_error,
        "models": models::json(&findings.models),
        "catalog_error": findings.catalog,
    })
}

fn set_aside_json(task: &SetAsideTask) -> Value {
    json!({"task": task.task.to_string(), "reason": task.reason})
}

fn stats_json(stats: &JournalStats) -> Value {
    json!({
        "path": stats.path,
        "format": stats.format,
        "bytes": stats.database_bytes,
        "free_bytes": stats.free_bytes,
        "log_bytes": stats.log_bytes,
        "running": stats.running,
        "completed": stats.completed,
        "failed": stats.failed,
        "cancelled": stats.cancelled,
        "oldest_unix_millis": stats.oldest.map(|at| at.0),
        "newest_unix_millis": stats.newest.map(|at| at.0),
        "oldest_running_unix_millis": stats.oldest_running.map(|at| at.0),
    })
}
