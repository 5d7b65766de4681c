//! What a daemon's settings say that is valid and may be a mistake.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use artel_args::Args;
use artel_hub::HubTokenSource;
use artel_roles::nearest;

use crate::serve::config::Config;

/// What the variables of this program begin with.
const VARIABLE_PREFIX: &str = "ARTEL_";
/// Variables that no flag has, and beginnings of others, which tests and `cargo xtask` use.
const OTHER_VARIABLES: [&str; 5] =
    ["ARTEL_CACHE", "ARTEL_FAILPOINT", "ARTEL_REHEARSAL_DEATH", "ARTEL_TOKEN", "ARTEL_TOKEN_FILE"];
const OTHER_PREFIXES: [&str; 2] = ["ARTEL_TEST_", "ARTEL_RECORD"];
/// The bits of a mode that let other users read or write.
const OTHERS_MODE: u32 = 0o077;

/// Everything that is to be said, as one text each.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    warnings.extend(unknown_variables(names, &Args::variables()));
    warnings.extend(token_warning(HubTokenSource::find(config.hf_token_file.as_deref())));
    warnings
        .extend(config.traces.headers_file.as_deref().and_then(|path| exposed_file(path, "the headers of `traces`")));
    warnings
}

/// A misspelt variable has no effect, and says nothing by itself.
fn unknown_variables(names: impl Iterator<Item = String>, known: &BTreeSet<String>) -> Vec<String> {
    let is_other =
        |name: &str| OTHER_VARIABLES.contains(&name) || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let own = names.filter(|name| name.starts_with(VARIABLE_PREFIX));
    let unknown: BTreeSet<String> = own.filter(|name| !known.contains(name) && !is_other(name)).collect();
    let warning = |name: String| match nearest(&name, known.iter().map(String::as_str)) {
        Some(near) => format!("the environment variable {name} is unknown and has no effect; did you mean {near}?"),
        None => format!("the environment variable {name} is unknown and has no effect"),
    };
    unknown.into_iter().map(warning).collect()
}

/// A secret belongs in a file that only the daemon's user reads.
fn token_warning(source: Option<HubTokenSource>) -> Option<String> {
    match source? {
        HubTokenSource::Environment => Some(
            "the token of the hub is in the environment (HF_TOKEN), which service managers show: write it to a file and name \
             the file with `hf_token_file`, or pass the credential `hf_token` of systemd"
                .to_owned(),
        ),
        HubTokenSource::File(path) => exposed_file(&path, "the token"),
        // systemd chose its mode.
        HubTokenSource::Credential(_) => None,
    }
}

/// A file with a secret that others can read.
fn exposed_file(path: &Path, what: &str) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    (mode & OTHERS_MODE != 0).then(|| {
        format!("{0} has mode {mode:04o}: other users can read {what}; `chmod 600 {0}` ends that", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn misspelt_variables_are_named_with_the_nearest() {
        let names = ["ARTEL_MODLES", "ARTEL_DATA", "ARTEL_TEST_MODELS", "PATH", "ARTEL_NONSENSE_AT_ALL", "HF_TOKEN"];
        let warnings = unknown_variables(names.into_iter().map(str::to_owned), &Args::variables());
        let [modles, nonsense] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(
            modles.contains("ARTEL_MODLES is unknown") && modles.ends_with("did you mean ARTEL_MODELS?"),
            "{modles}"
        );
        assert!(nonsense.ends_with("ARTEL_NONSENSE_AT_ALL is unknown and has no effect"), "{nonsense}");
    }

    #[test]
    fn a_token_that_others_can_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "hf_of_a_test").unwrap();
        let warning = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            token_warning(Some(HubTokenSource::File(file.clone())))
        };
        assert_eq!(warning(0o600), None);
        let warning = warning(0o644).unwrap();
        assert!(warning.contains("mode 0644") && !warning.contains("hf_of"), "{warning}");
        assert!(token_warning(Some(HubTokenSource::Environment)).unwrap().contains("HF_TOKEN"));
        assert_eq!(token_warning(None), None);
    }
}
