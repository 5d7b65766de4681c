//! The headers of a collector: secrets, which lie in a file.

use std::io::{self, Read as _};
use std::path::Path;

use artel_model::open_regular_file;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};

use crate::error::{CollectorHeaderFault, Error};

/// The largest file: some tokens fit.
const MAX_FILE_BYTES: u64 = 16 << 10;

/// The headers that go with each message.
#[derive(Clone, Default)]
pub(crate) struct CollectorHeaders(Vec<(AsciiMetadataKey, AsciiMetadataValue)>);

impl CollectorHeaders {
    /// Reads a file with a header on each line, `NAME: VALUE`; empty lines and those that begin with `#` say nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadHeaders { path: path.to_owned(), source };
        let mut text = String::new();
        open_regular_file(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(failed(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes"))));
        }
        let written = (1..).zip(text.lines().map(str::trim));
        let written = written.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let header = |(line, text)| header(text).map_err(|fault| Error::Header { path: path.to_owned(), line, fault });
        written.map(header).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AsciiMetadataKey, AsciiMetadataValue)> + '_ {
        self.0.iter().cloned()
    }
}

fn header(line: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue), CollectorHeaderFault> {
    let (name, value) = line.split_once(':').ok_or(CollectorHeaderFault::NoColon)?;
    let name = AsciiMetadataKey::from_bytes(name.trim().to_ascii_lowercase().as_bytes())
        .map_err(|_| CollectorHeaderFault::Name)?;
    let value = value.trim();
    let mut value: AsciiMetadataValue = value.parse().map_err(|_| CollectorHeaderFault::Value)?;
    // Neither shown nor kept in the compression of headers.
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        std::fs::write(&path, text).unwrap();
        let headers = CollectorHeaders::read(&path).map_err(|error| error.to_string())?;
        Ok(headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn a_header_is_a_line() {
        let headers = read("# of the collector\n\nAuthorization: Bearer a:b\nx-scope-orgid:  crew \n").unwrap();
        assert_eq!(headers, ["authorization=Bearer a:b", "x-scope-orgid=crew"]);
        assert_eq!(read("").unwrap(), [""; 0]);
    }

    #[test]
    fn a_fault_names_the_line_and_not_its_text() {
        let line = |text: &str| read(text).unwrap_err();
        for (text, place) in
            [("Bearer secret\n", "headers:1: "), ("a: b\nsec ret: x\n", "headers:2: "), ("a-bin: x", ":1: ")]
        {
            let error = line(text);
            assert!(error.contains(place) && !error.contains("secret") && !error.contains("sec ret"), "{error}");
        }
        assert!(line("a: b\u{7f}").contains("visible ASCII"));
        assert!(line(&"x".repeat(MAX_FILE_BYTES as usize + 1)).contains("more than"));
    }
}
