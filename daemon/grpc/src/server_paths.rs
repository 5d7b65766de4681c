//! The daemon's own directories, which no message to a client names.

use std::path::Path;
use std::sync::Arc;

/// Directories of the daemon, each with the label that stands for it in messages: `<models>/a.gguf`. Where the directory lies
/// on the server is for the daemon's log. Clones share the state.
#[derive(Debug, Clone)]
pub struct ServerPaths(Arc<[(String, &'static str)]>);

impl ServerPaths {
    /// The directories of models, of the catalog if there is one, and of data. A relative path needs no label.
    pub fn new(models: &Path, catalog: Option<&Path>, data: &Path) -> Self {
        let labelled = [(Some(models), "<models>"), (catalog, "<catalog>"), (Some(data), "<data>")];
        let mut dirs: Vec<(String, &'static str)> = Vec::new();
        for (dir, label) in labelled {
            let Some(dir) = dir else { continue };
            let normal = std::path::absolute(dir).ok();
            for form in [Some(dir), normal.as_deref()].into_iter().flatten() {
                // The root is part of every path.
                if form.is_absolute() && form.parent().is_some() {
                    dirs.push((form.to_string_lossy().trim_end_matches('/').to_owned(), label));
                }
            }
        }
        // One directory may lie in another: the innermost one names a file best.
        dirs.sort_by_key(|(dir, _)| std::cmp::Reverse(dir.len()));
        Self(dirs.into())
    }

    /// A message with labels in place of the directories.
    pub(crate) fn hide(&self, message: &str) -> String {
        self.0.iter().fold(message.to_owned(), |message, (dir, label)| replace(&message, dir, label))
    }
}

/// Replaces a directory where a path begins with it.
fn replace(message: &str, dir: &str, label: &str) -> String {
    let is_in_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let (mut text, mut rest) = (String::with_capacity(message.len()), message);
    while let Some((before, after)) = rest.split_once(dir) {
        text.push_str(before);
        let begins = !text.ends_with(|c: char| is_in_name(c) || matches!(c, '.' | '/' | '~'));
        // A dot ends a sentence, or is in the name of another file.
        let ends = !after.trim_start_matches('.').starts_with(is_in_name);
        text.push_str(if begins && ends { label } else { dir });
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> ServerPaths {
        ServerPaths::new(Path::new("/srv/artel/models"), Some(Path::new("/etc/artel/")), Path::new("/srv/artel"))
    }

    #[test]
    fn the_directories_of_the_daemon_are_labelled() {
        for (message, hidden) in [
            ("no file: /etc/artel/a, nor /srv/artel/models/a", "no file: <catalog>/a, nor <models>/a"),
            ("/srv/artel/weights/a.gguf: cannot be written", "<data>/weights/a.gguf: cannot be written"),
            ("`/srv/artel/models`", "`<models>`"),
            ("nothing lies in /srv/artel.", "nothing lies in <data>."),
            ("/srv/artel.bak/a and ~/srv/artel/a are others", "/srv/artel.bak/a and ~/srv/artel/a are others"),
        ] {
            assert_eq!(paths().hide(message), hidden);
        }
    }

    #[test]
    fn paths_that_a_client_wrote_stay() {
        for message in ["/home/ann/a.gguf", "/srv/artel-2/a.gguf", "/mnt/srv/artel/a.gguf", "/srv/artels/a.gguf"] {
            assert_eq!(paths().hide(message), message);
        }
        let all = ServerPaths::new(Path::new("/"), None, Path::new("data"));
        assert_eq!(all.hide("/a.gguf: damaged"), "/a.gguf: damaged", "the root directory is in every path");
    }
}
