//! DRY samplers without a history, copied for each sequence.

use artel_engine::request::DryParams;

use super::model::LlamaModel;
use super::owned_sampler::OwnedSampler;

/// Parameters of which a sampler is kept: those of the roles of one model.
const MAX_KEPT_ENTRIES: usize = 16;

/// Looking for the tokens of a breaker goes over the whole vocabulary, which takes milliseconds that all sequences wait; a copy
/// takes none.
#[derive(Default)]
pub(crate) struct DrySamplers(Vec<(DryParams, u32, OwnedSampler)>);

impl DrySamplers {
    /// One without a history; `None` if llama.cpp refuses.
    pub(super) fn get(&mut self, model: &LlamaModel, dry: &DryParams, last_n: u32) -> Option<OwnedSampler> {
        if let Some((.., sampler)) = self.0.iter().find(|(known, tokens, _)| (known, *tokens) == (dry, last_n)) {
            return sampler.copy();
        }
        let sampler = OwnedSampler::dry(model, dry, last_n)?;
        let copy = sampler.copy();
        if self.0.len() == MAX_KEPT_ENTRIES {
            self.0.remove(0);
        }
        self.0.push((dry.clone(), last_n, sampler));
        copy
    }
}
