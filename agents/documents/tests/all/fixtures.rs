//! Small files of each format, made by code.

pub(crate) mod office;
pub(crate) mod pdf;

use artel_documents::{DocumentError, Format, LoadLimits, LoadedDocument, TokenRates, load};

pub(crate) fn loaded(bytes: impl AsRef<[u8]>, format: Format) -> LoadedDocument {
    try_load(bytes, format).unwrap()
}

pub(crate) fn try_load(bytes: impl AsRef<[u8]>, format: Format) -> Result<LoadedDocument, DocumentError> {
    load(bytes.as_ref(), format, &LoadLimits::default())
}

pub(crate) fn count(text: &str) -> usize {
    TokenRates::default().count(text)
}
