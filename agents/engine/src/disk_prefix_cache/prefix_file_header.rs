//! The part of a prefix file before the cells.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::backend::Token;

/// What the cells in a file depend on: a hash of the model, the adapter and the types of the KV cache.
pub(crate) type CacheFingerprint = [u8; 32];

const MAGIC: &[u8; 8] = b"ARTELPX1";
/// Tokens that a file may claim: more than any context.
const MAX_TOKENS: usize = 1 << 24;

/// The header of a file, before the cells.
pub(super) struct PrefixFileHeader {
    pub(super) tokens: Arc<[Token]>,
    pub(super) seconds: f64,
    /// The SHA-256 of the cells.
    pub(super) hash: [u8; 32],
    /// Bytes of the cells.
    pub(super) length: u64,
}

impl PrefixFileHeader {
    pub(super) fn read(file: &mut File, fingerprint: &CacheFingerprint) -> Option<Self> {
        let mut start = [0u8; 8 + 32 + 8 + 4];
        file.read_exact(&mut start).ok()?;
        let (magic, rest) = start.split_at(8);
        let (stored_fingerprint, rest) = rest.split_at(32);
        let (seconds, count) = rest.split_at(8);
        let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
        if magic != MAGIC || stored_fingerprint != fingerprint || count > MAX_TOKENS {
            return None;
        }
        let mut tokens = vec![0u8; count * 4];
        file.read_exact(&mut tokens).ok()?;
        let mut end = [0u8; 32 + 8];
        file.read_exact(&mut end).ok()?;
        let token = |b: &[u8]| Token(i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Some(Self {
            tokens: tokens.chunks_exact(4).map(token).collect(),
            seconds: f64::from_le_bytes(seconds.try_into().ok()?),
            hash: end[..32].try_into().ok()?,
            length: u64::from_le_bytes(end[32..].try_into().ok()?),
        })
    }
}

/// Writes the header of these cells.
pub(super) fn write(
    fingerprint: &CacheFingerprint,
    seconds: f64,
    tokens: &[Token],
    cells: &[u8],
    out: &mut impl io::Write,
) -> io::Result<()> {
    out.write_all(MAGIC)?;
    out.write_all(fingerprint)?;
    out.write_all(&seconds.to_le_bytes())?;
    out.write_all(&(tokens.len() as u32).to_le_bytes())?;
    tokens.iter().try_for_each(|token| out.write_all(&token.0.to_le_bytes()))?;
    out.write_all(&Sha256::digest(cells))?;
    out.write_all(&(cells.len() as u64).to_le_bytes())
}
