//! Every setting is shown, with its place and without a secret.

use std::path::PathBuf;

use artel_args::{Args, CliCommand, ConfigCommand, LogArgs, Parser as _};
use artel_roles::setting_keys;
use artel_terminal::StyledText;

use super::setting_row::SettingSource;
use super::*;

/// Flags of `serve` that are no settings: where the settings lie, and those of every verb.
const OTHER_FLAGS: [&str; 4] = ["config", "address", "json", "color"];

fn written(path: &str, line: u32, value: Value) -> WrittenSetting {
    WrittenSetting { path: path.to_owned(), line, value }
}

fn shown(written: &[WrittenSetting], token: Option<&HubTokenSource>) -> Vec<setting_row::SettingRow> {
    let effective = BTreeMap::from([("data", json!("/data")), ("catalog", Value::Null), ("threads", json!(4))]);
    rows("artel.yaml", written, &GivenFlags::default(), &effective, token)
}

#[test]
fn every_key_of_the_settings_is_a_row() {
    let keys: Vec<String> = setting_keys().into_iter().map(|key| key.path).collect();
    let rows: Vec<String> = shown(&[], None).into_iter().map(|row| row.key).collect();
    assert_eq!(rows, keys);
    assert!(rows.iter().any(|key| key == "retention.age") && rows.iter().any(|key| key == "log.level"));
}

#[test]
fn every_value_that_is_computed_belongs_to_a_key() {
    let line = ["artel", "config", "show", "--data", "/nowhere", "--log-format", "json"];
    let CliCommand::Config(ConfigCommand::Show(args)) = Args::try_parse_from(line).unwrap().command else {
        panic!("it is another verb")
    };
    let config = Config::of(&args.daemon, args.listen).unwrap();
    let log = LogConfig::of(&LogArgs { log_level: None, ..args.log }, &config.log).unwrap();
    let traces = TraceConfig::of(&args.traces, &config.traces).unwrap();
    let keys: Vec<String> = setting_keys().into_iter().map(|key| key.path).collect();
    let values = effective(&config, &log, &traces);
    for key in values.keys() {
        assert!(keys.iter().any(|known| known == key), "{key}");
    }
    for flag in Args::serve_flags().iter().filter(|flag| !OTHER_FLAGS.contains(&flag.as_str())) {
        let has_value = values.keys().any(|key| key.replace('.', "_") == *flag);
        assert!(has_value, "`artel config show` has no value for the flag {flag}");
    }
}

#[test]
fn rows_say_where_their_values_come_from() {
    let file = [written("tasks", 3, json!(7)), written("grace", 4, json!("5s")), written("rpc", 9, json!(["a:1"]))];
    let mut out = StyledText::new(false);
    setting_row::render(&shown(&file, None), &mut out);
    let text = out.take();
    let line = |key: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("tasks"), "tasks 7 tasks artel.yaml:3");
    assert_eq!(line("grace"), "grace 5s artel.yaml:4");
    assert_eq!(line("rpc"), "rpc [\"a:1\"] artel.yaml:9");
    assert_eq!(line("threads"), "threads 4 threads default");
    assert_eq!(line("catalog"), "catalog none default");
    assert_eq!(line("prefix_cache.disk"), "prefix_cache.disk 4096 MiB default");
    let rows = shown(&file, None);
    let row = rows.iter().find(|row| row.key == "tasks").unwrap();
    let expected =
        json!({"key": "tasks", "value": 7, "unit": "tasks", "source": "file", "file": "artel.yaml", "line": 3});
    assert_eq!(row.json(), expected);
}

#[test]
fn a_secret_is_shown_by_its_place() {
    let row = |token: HubTokenSource| {
        let rows = shown(&[written("hf_token_file", 1, json!("token"))], Some(&token));
        rows.into_iter().find(|row| row.key == "hf_token_file").unwrap()
    };
    let file = row(HubTokenSource::File(PathBuf::from("/etc/artel/token")));
    assert_eq!(file.value, json!("/etc/artel/token"));
    assert_eq!(file.source, SettingSource::File { file: "artel.yaml".to_owned(), line: 1 });
    let variable = row(HubTokenSource::Environment);
    assert_eq!(variable.json()["name"], "HF_TOKEN");
    assert_eq!(variable.value, Value::Null);
    assert_eq!(row(HubTokenSource::Credential("/run/c/hf_token".into())).source, SettingSource::Credential);
}
