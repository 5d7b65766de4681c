//! Sums of token counts.

use std::ops::AddAssign;

use crate::v1::Usage;

impl AddAssign<&Self> for Usage {
    fn add_assign(&mut self, more: &Self) {
        self.prompt_tokens += more.prompt_tokens;
        self.prefill_tokens += more.prefill_tokens;
        self.cached_tokens += more.cached_tokens;
        self.output_tokens += more.output_tokens;
        self.drafted_tokens += more.drafted_tokens;
        self.accepted_tokens += more.accepted_tokens;
        self.forced_tokens += more.forced_tokens;
        self.reasoning_tokens += more.reasoning_tokens;
    }
}
