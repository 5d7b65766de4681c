//! `artel config`: what a daemon with these flags would be set to, without one.

mod setting_row;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use artel_args::{ConfigCommand, GivenFlags, GlobalArgs, ServeArgs};
use artel_hub::HubTokenSource;
use artel_roles::{LogFormat, WrittenSetting};
use artel_terminal::{CommandOutput, WARN, print_to_stderr};
use serde_json::{Value, json};

use crate::journal::exit_code;
use crate::log_config::LogConfig;
use crate::serve::config::Config;
use crate::settings_advice;
use crate::trace_config::TraceConfig;
use setting_row::rows;

/// Prints the settings; exit code 1 if they are invalid.
pub(crate) fn run(command: &ConfigCommand, given: &GivenFlags, global: &GlobalArgs) -> ExitCode {
    let ConfigCommand::Show(args) = command;
    exit_code(show(args, given, global).map(|()| true), global)
}

fn show(args: &ServeArgs, given: &GivenFlags, global: &GlobalArgs) -> Result<()> {
    let config = Config::of(&args.daemon, args.listen)?;
    let log = LogConfig::of(&args.log, &config.log)?;
    let traces = TraceConfig::of(&args.traces, &config.traces)?;
    let (file, written) = match &args.daemon.config {
        Some(path) => {
            let written = WrittenSetting::load(path).map_err(|problems| anyhow!("{problems}"))?;
            (path.display().to_string(), written)
        }
        None => Default::default(),
    };
    let token = HubTokenSource::find(config.hf_token_file.as_deref());
    let rows = rows(&file, &written, given, &effective(&config, &log, &traces), token.as_ref());
    let mut output = CommandOutput::new(global);
    match output.is_json() {
        true => rows.iter().try_for_each(|row| output.object(&row.json()))?,
        false => output.render(|out| setting_row::render(&rows, out))?,
    }
    for warning in settings_advice::warnings(&config) {
        print_to_stderr(global.color, |out| {
            out.push_styled(WARN, "warning").push(": ").push(warning.trim_end()).newline();
        });
    }
    Ok(())
}

/// The values of the settings that depend on this machine, or that a flag may have given.
fn effective(config: &Config, log: &LogConfig, traces: &TraceConfig) -> BTreeMap<&'static str, Value> {
    let mut values = BTreeMap::from([
        ("data", json!(config.data)),
        ("catalog", json!(config.catalog)),
        ("models", json!(config.runtime.models_dir)),
        ("listen", json!(config.port.listen.to_string())),
        ("socket", json!(config.port.socket)),
        ("threads", json!(config.threads)),
        ("offline", json!(config.offline)),
        ("log.level", json!(log.filter.as_str())),
        ("traces.endpoint", json!(traces.collector.as_ref().map(ToString::to_string))),
        ("traces.sample", json!(traces.sample)),
    ]);
    values.extend(log.format.map(|format| ("log.format", json!(LogFormat::as_str(format)))));
    values
}
