//! A model in pieces of which some are missing: what the hub has of it, and whether all are of one version.
//!
//! The first answer of the hub names the commit that the revision means, and all further requests are for that commit. It is recorded
//! beside the pieces, so that the next start of the program goes on with it. Pieces without a record are compared with what the hub
//! states of them. A server that names no commit is asked again at the end, whether it still has what was asked for at the beginning.
//! Hashes in the YAML make all of that needless: they say which files are meant.

use std::fs;
use std::io::{self, Read as _};
use std::time::Duration;

use artel_model::{PieceNumbers, open_regular_file};
use sha2::{Digest as _, Sha256};

use crate::commit::RepoCommit;
use crate::download::Download;
use crate::error::{Error, MissingPart, VersionDifference};
use crate::parallel::in_parallel;
use crate::partial_file::existing_bytes;
use crate::piece_record::PieceRecord;
use crate::statement::FileStatement;

/// Bytes that are read at once while a piece is hashed: between two reads a download can be stopped.
const HASH_CHUNK_BYTES: usize = 1 << 20;

/// The pieces of a model in their order.
pub(crate) struct PieceSet<'p>(pub(crate) &'p [Download]);

/// What is here of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LocalPieces {
    /// The commit that all that is here is from, if it is recorded.
    commit: Option<RepoCommit>,
    /// The indices of the missing pieces.
    pub(crate) missing: Vec<usize>,
}

/// What the hub states of a model, with the index of each piece that it was asked for.
pub(crate) struct AskedPieces {
    /// The commit that all are from, if the hub names it.
    pub(crate) commit: Option<RepoCommit>,
    /// Those that are missing here.
    pub(crate) missing: Vec<(usize, FileStatement)>,
    /// Those that are here, and were compared with what is here.
    compared: Vec<(usize, FileStatement)>,
}

impl PieceSet<'_> {
    /// What is here.
    pub(crate) fn local(&self) -> LocalPieces {
        let missing = (0..self.0.len()).filter(|at| !self.0[*at].path.exists()).collect();
        // Without a byte of it, a record holds no one to an old version.
        let has_bytes = self.0.iter().any(|piece| existing_bytes(&piece.path) > 0);
        LocalPieces { commit: PieceRecord::read(&self.0[0].path).filter(|_| has_bytes), missing }
    }

    /// Asks the hub for the missing pieces, and compares those that are here if it is not recorded which version they are of.
    ///
    /// # Errors
    /// It has not all of them, or not all of one version; or a request fails.
    pub(crate) fn ask(&self, local: &LocalPieces) -> Result<AskedPieces, Error> {
        self.ask_at(local, local.commit.as_ref())
    }

    fn ask_at(&self, local: &LocalPieces, recorded: Option<&RepoCommit>) -> Result<AskedPieces, Error> {
        let is_known = recorded.is_some() || self.has_hashes();
        let wanted: Vec<usize> = (0..self.0.len()).filter(|at| !is_known || local.missing.contains(at)).collect();
        let Some((first, rest)) = wanted.split_first() else {
            return Ok(AskedPieces { commit: None, missing: Vec::new(), compared: Vec::new() });
        };
        let found = match self.0[*first].statement(recorded) {
            // The history of the repository was rewritten.
            Err(Error::NotFound { .. }) if recorded.is_some() => return self.ask_at(local, None),
            other => unless_missing(other)?,
        };
        let commit = found.as_ref().and_then(|stated| stated.commit.clone()).or_else(|| recorded.cloned());
        let others = in_parallel(rest.len(), &self.0[0].stop, |at| self.ask_again(rest[at], commit.as_ref()))?;
        let stated: Vec<_> = wanted.iter().copied().zip([found].into_iter().chain(others)).collect();
        self.refuse_missing(&stated)?;
        let pinned = |(at, stated): (usize, Option<FileStatement>)| {
            Some((at, FileStatement { commit: commit.clone(), ..stated? }))
        };
        let stated = stated.into_iter().filter_map(pinned);
        let (missing, compared) = stated.partition::<Vec<_>, _>(|(at, _)| local.missing.contains(at));
        compared.iter().try_for_each(|(at, stated)| self.compare(&self.0[*at], stated))?;
        Ok(AskedPieces { commit, missing, compared })
    }

    /// What the hub states of a piece at the commit of the others; none if it has it not.
    fn ask_again(&self, at: usize, commit: Option<&RepoCommit>) -> Result<Option<FileStatement>, Error> {
        let stated = unless_missing(self.0[at].statement(commit))?;
        let named = stated.as_ref().and_then(|stated| stated.commit.as_ref());
        match named.zip(commit).is_some_and(|(named, commit)| named != commit) && !self.has_hashes() {
            true => Err(Error::VersionChanged(Box::new(self.0[at].address.clone()))),
            false => Ok(stated),
        }
    }

    /// An error that names the pieces which the hub has not.
    fn refuse_missing(&self, stated: &[(usize, Option<FileStatement>)]) -> Result<(), Error> {
        let without = stated.iter().filter(|(_, stated)| stated.is_none());
        let numbers: Vec<u32> = without.map(|(at, _)| *at as u32 + 1).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let missing = PieceNumbers { numbers, count: self.0.len() as u32 };
        Err(Error::PiecesNotFound { address: Box::new(self.0[0].address.clone()), missing })
    }

    /// An error if a piece that is here is of another version than stated.
    fn compare(&self, piece: &Download, stated: &FileStatement) -> Result<(), Error> {
        let read = |e: io::Error| Error::file("read", &piece.path, e);
        let here_bytes = fs::metadata(&piece.path).map_err(read)?.len();
        let size = stated.size_bytes.filter(|stated_bytes| *stated_bytes != here_bytes);
        let difference = match (size, stated.sha256()) {
            (Some(stated_bytes), _) => Some(VersionDifference::Size { here_bytes, stated_bytes }),
            (None, Some(stated)) => {
                let here = sha256(piece)?;
                (here != stated.to_lowercase()).then(|| VersionDifference::Hash { here, stated: stated.to_owned() })
            }
            (None, None) => None,
        };
        let Some(difference) = difference else { return Ok(()) };
        let (address, path) = (Box::new(piece.address.clone()), piece.path.clone());
        Err(Error::OtherVersion { address, path, difference })
    }

    /// Asks a server that names no commit once more, after all was fetched.
    ///
    /// # Errors
    /// It has another version of a piece now. Those that were fetched and have changed are removed, so that the next request fetches
    /// them again.
    pub(crate) fn confirm(&self, asked: &AskedPieces) -> Result<(), Error> {
        if asked.commit.is_some() || self.has_hashes() {
            return Ok(());
        }
        let before: Vec<&(usize, FileStatement)> = asked.missing.iter().chain(&asked.compared).collect();
        let now = in_parallel(before.len(), &self.0[0].stop, |at| self.0[before[at].0].statement(None))?;
        let has_changed = |((_, before), now): &(&(usize, FileStatement), FileStatement)| now.contradicts(before);
        let changed: Vec<usize> = before.into_iter().zip(now).filter(has_changed).map(|((at, _), _)| *at).collect();
        let Some(first) = changed.first() else { return Ok(()) };
        for (at, _) in asked.missing.iter().filter(|(at, _)| changed.contains(at)) {
            fs::remove_file(&self.0[*at].path).map_err(|e| Error::file("remove", &self.0[*at].path, e))?;
        }
        Err(Error::VersionChanged(Box::new(self.0[*first].address.clone())))
    }

    /// Whether the YAML says which files are meant: it has a hash for each piece, or for none.
    fn has_hashes(&self) -> bool {
        self.0[0].sha256.is_some()
    }
}

/// None of a file that the hub has not.
fn unless_missing(stated: Result<FileStatement, Error>) -> Result<Option<FileStatement>, Error> {
    match stated {
        Err(Error::NotFound { part: MissingPart::File, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The SHA-256 of a piece that is here, in hexadecimal digits.
fn sha256(piece: &Download) -> Result<String, Error> {
    let read = |e: io::Error| Error::file("read", &piece.path, e);
    let mut file = open_regular_file(&piece.path).map_err(read)?;
    let (mut buffer, mut hash) = (vec![0; HASH_CHUNK_BYTES], Sha256::new());
    loop {
        piece.wait(Duration::ZERO)?;
        match file.read(&mut buffer).map_err(read)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}
