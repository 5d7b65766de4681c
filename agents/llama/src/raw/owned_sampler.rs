//! A sampler of llama.cpp as an owned value.

use std::ffi::CString;
use std::ptr::NonNull;

use artel_engine::request::DryParams;
use llama_cpp_sys_2 as sys;

use super::model::LlamaModel;

/// A llama.cpp sampler, or a chain of them.
pub(super) struct OwnedSampler(NonNull<sys::llama_sampler>);

impl OwnedSampler {
    /// Takes a sampler that nothing else owns.
    pub(super) fn new(sampler: NonNull<sys::llama_sampler>) -> Self {
        Self(sampler)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_sampler {
        self.0.as_ptr()
    }

    /// DRY without a history; `None` if llama.cpp refuses.
    pub(super) fn dry(model: &LlamaModel, dry: &DryParams, last_n: u32) -> Option<Self> {
        let breakers: Vec<CString> = dry.breakers.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect();
        let mut texts: Vec<_> = breakers.iter().map(|text| text.as_ptr()).collect();
        let whole = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        // SAFETY: the vocabulary is used during the call alone, as are the texts, which live until its end.
        let sampler = unsafe {
            sys::llama_sampler_init_dry(
                model.vocab(),
                dry.multiplier,
                dry.base,
                whole(dry.allowed_length),
                whole(last_n),
                texts.as_mut_ptr(),
                texts.len(),
            )
        };
        NonNull::new(sampler).map(Self)
    }

    /// One with the same parameters and the same history.
    pub(super) fn copy(&self) -> Option<Self> {
        // SAFETY: the sampler is alive.
        NonNull::new(unsafe { sys::llama_sampler_clone(self.0.as_ptr()) }).map(Self)
    }

    /// Gives it to an owner that frees it.
    pub(super) fn into_raw(self) -> *mut sys::llama_sampler {
        let raw = self.0.as_ptr();
        std::mem::forget(self);
        raw
    }
}

impl Drop for OwnedSampler {
    fn drop(&mut self) {
        // SAFETY: nothing else owns it; the samplers of a chain are freed with it.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) }
    }
}
