//! What `init` says on the way.

use anyhow::Result;
use artel_terminal::CommandOutput;

/// What there is to say on the way: printed at once as text, and with the summary as JSON.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    pub(super) fn push(&mut self, note: impl Into<String>, output: &mut CommandOutput) -> Result<()> {
        let note = note.into();
        if !output.is_json() {
            output.render(|out| {
                out.push(&note).newline();
            })?;
        }
        self.0.push(note);
        Ok(())
    }

    /// All of them so far.
    pub(super) fn all(&self) -> &[String] {
        &self.0
    }
}
