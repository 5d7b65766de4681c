//! Certificates for a home network: names and a directory go in, PEM files come out that a daemon and its clients read.
//!
//! A directory holds one certificate authority. The first call makes it together with a certificate for the daemon; later calls
//! sign certificates for clients, or another one for the daemon after the old files were moved away. No file is ever replaced,
//! each appears with its whole content, and only its owner can read a key.
//!
//! What reads the files, and which settings name them, this crate does not know. It opens no connection.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authority;
mod error;
mod files;
mod host_names;
mod request;
#[cfg(test)]
mod tests;

pub use authority::Authority;
pub use error::Error;
pub use files::{CertFiles, CertPair};
pub use host_names::{ClientName, HostNames};
pub use request::{CreatedCertificates, create_for_client, create_for_server};
