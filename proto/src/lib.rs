//! The contract between Artel's daemon and its clients: the messages, clients and servers of package `artel.v1`,
//! generated from the protos in this crate.
//!
//! There is no logic here. The protos are where every message, field and error is described; see them in
//! `proto/artel/v1`. Fields are added under new numbers, and neither numbers nor names are used again.
#![forbid(unsafe_code)]

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    rustdoc::all
)]
mod generated {
    pub mod v1 {
        tonic::include_proto!("artel.v1");
    }
    pub mod engine {
        pub mod v1 {
            tonic::include_proto!("artel.engine.v1");
        }
    }
}

/// Package `artel.engine.v1`: between the daemon and the processes of its engines, for nobody else.
pub use generated::engine;
/// Package `artel.v1`.
pub use generated::v1;

/// The descriptors of all public protos, those they import included, as an encoded `google.protobuf.FileDescriptorSet`: what
/// the reflection service hands out.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/artel.v1.bin"));
