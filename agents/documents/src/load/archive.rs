//! Zip archives, unpacked within a budget.

use std::io::{self, Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::DocumentError;
use crate::limits::LoadLimits;

/// An archive, and what its entries may still unpack to. Sizes that it declares of itself are not believed.
pub(super) struct Archive<'b> {
    zip: ZipArchive<Cursor<&'b [u8]>>,
    format: &'static str,
    left_bytes: u64,
    limits: LoadLimits,
}

impl<'b> Archive<'b> {
    pub(super) fn open(bytes: &'b [u8], format: &'static str, limits: &LoadLimits) -> Result<Self, DocumentError> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| zip_error(format, error))?;
        if zip.len() as u64 > u64::from(limits.archive_entries) {
            return Err(DocumentError::too_many("archive entries", limits.archive_entries.into()));
        }
        Ok(Self { zip, format, left_bytes: limits.unpacked_bytes, limits: *limits })
    }

    /// The content of an entry, if there is one of that name. XML is UTF-8 in what Office writes.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, DocumentError> {
        let mut bytes = Vec::new();
        match self.zip.by_name(name) {
            Ok(entry) => {
                entry
                    .take(self.left_bytes + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| read_error(self.format, name, &error))?;
            }
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(zip_error(self.format, error)),
        }
        self.spend(bytes.len() as u64)?;
        let text =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(Some(text))
    }

    /// Unpacks every entry whose name `test` takes, and keeps nothing: what a library unpacks later is then known to fit.
    pub(super) fn measure(&mut self, test: impl Fn(&str) -> bool) -> Result<(), DocumentError> {
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index(index).map_err(|error| zip_error(self.format, error))?;
            let name = entry.name().map_err(|error| zip_error(self.format, error))?.into_owned();
            if !test(&name) {
                continue;
            }
            let unpacked = io::copy(&mut entry.take(self.left_bytes + 1), &mut io::sink());
            let unpacked = unpacked.map_err(|error| read_error(self.format, &name, &error))?;
            self.spend(unpacked)?;
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), DocumentError> {
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or(DocumentError::UnpacksTooLarge { limit: self.limits.unpacked_bytes })?;
        Ok(())
    }
}

fn zip_error(format: &str, error: ZipError) -> DocumentError {
    match error {
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => DocumentError::Encrypted,
        error => DocumentError::malformed(format, error),
    }
}

fn read_error(format: &str, name: &str, error: &io::Error) -> DocumentError {
    DocumentError::malformed(format, format_args!("its entry {name}: {error}"))
}
