//! Where the catalog goes, and how the commands that follow find it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use artel_args::{DaemonArgs, InitArgs};

use super::questions::Questions;
use crate::serve::config::{Config, config_dir};

/// The directory of the catalog.
pub(super) struct CatalogPlace {
    pub(super) dir: PathBuf,
    /// Whether a daemon reads this directory without being told.
    is_default: bool,
}

impl CatalogPlace {
    /// The directory of the command line, or else the one that a daemon with the same settings reads; a person may name another.
    pub(super) fn find(args: &InitArgs, questions: &mut Questions) -> Result<Self> {
        let DaemonArgs { config, data, models, .. } = daemon_args(args, PathBuf::new());
        let settings = Config::of(&DaemonArgs { config, data, models, ..DaemonArgs::default() }, None)?;
        let default = settings.catalog.or_else(|| config_dir().map(|dir| dir.join("catalog")));
        let dir = match (&args.dir, &default) {
            (Some(dir), _) => dir.clone(),
            (None, Some(default)) => questions.place(default)?,
            (None, None) => {
                return Err(anyhow::anyhow!("no directory for the catalog: name one, or set XDG_CONFIG_HOME or HOME"));
            }
        };
        let dir = std::path::absolute(&dir).with_context(|| format!("failed to find {}", dir.display()))?;
        let is_default =
            default.is_some_and(|default| std::path::absolute(default).is_ok_and(|default| default == dir));
        Ok(Self { dir, is_default })
    }

    /// The flags of a daemon that reads this catalog.
    pub(super) fn daemon_args(&self, args: &InitArgs) -> DaemonArgs {
        daemon_args(args, self.dir.clone())
    }

    /// The flags to write after `artel serve` and `artel fetch`, each with a space before it.
    pub(super) fn flags(&self, args: &InitArgs) -> String {
        let catalog = (!self.is_default).then_some(&self.dir);
        let flags = [
            ("--config", args.data.config.as_ref()),
            ("--data", args.data.data.as_ref()),
            ("--catalog", catalog),
            ("--models", args.models.as_ref()),
        ];
        flags.into_iter().filter_map(|(flag, path)| Some(format!(" {flag} {}", shell_word(path?)))).collect()
    }
}

/// The flags of `serve` with which a daemon finds the catalog.
fn daemon_args(args: &InitArgs, catalog: PathBuf) -> DaemonArgs {
    DaemonArgs {
        config: args.data.config.clone(),
        data: args.data.data.clone(),
        catalog: Some(catalog),
        models: args.models.clone(),
        offline: args.offline,
    }
}

/// A path as a shell takes it for one word.
pub(super) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@:,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(shell_word(Path::new("/home/me/.config")), "/home/me/.config");
        assert_eq!(shell_word(Path::new("my models/$x")), "'my models/$x'");
        assert_eq!(shell_word(Path::new("it's")), r"'it'\''s'");
    }
}
