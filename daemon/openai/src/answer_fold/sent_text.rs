//! A text that was sent in parts, and the attempts that write it.

/// An attempt writes something else than what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerChanged;

/// What was sent of a text, and how far the current attempt agrees with it.
#[derive(Debug, Default)]
pub(super) struct SentText {
    sent: String,
    /// The bytes of the current attempt that came, from its beginning without a gap.
    matched: usize,
    /// Whether a part of the current attempt was missed.
    has_gap: bool,
}

impl SentText {
    /// A new attempt begins.
    pub(super) fn restart(&mut self) {
        (self.matched, self.has_gap) = (0, false);
    }

    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// The bytes of the current attempt so far.
    pub(super) fn matched(&self) -> u64 {
        self.matched as u64
    }

    /// Takes more of the current attempt, from the byte `offset` of its text on; what of it was not sent.
    pub(super) fn advance(&mut self, offset: u64, text: &str) -> Result<String, AnswerChanged> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.has_gap |= offset > self.matched;
        if self.has_gap {
            return Ok(String::new());
        }
        let new = text.get(self.matched - offset..).unwrap_or_default();
        let known = self.sent.as_bytes().get(self.matched..).unwrap_or_default();
        let common = known.len().min(new.len());
        if known[..common] != new.as_bytes()[..common] {
            return Err(AnswerChanged);
        }
        self.matched += new.len();
        // Equal bytes up to the end of a text end a character in both.
        let fresh = &new[common..];
        self.sent.push_str(fresh);
        Ok(fresh.to_owned())
    }

    /// What of the whole text was not sent.
    pub(super) fn rest<'a>(&self, whole: &'a str) -> Result<&'a str, AnswerChanged> {
        whole.strip_prefix(self.sent.as_str()).ok_or(AnswerChanged)
    }
}
