//! The gRPC contract between Artel's daemon and its clients: messages, clients and servers of package `artel.v1`, generated
//! from the protos in this crate.
//!
//! The crate has no logic but sums of token counts. Every message, field and error is documented in the protos in `proto/artel/v1`. The contract only
//! grows: fields are added under new numbers, and neither numbers nor names are reused. `tests/contract.rs` compares it with
//! `recorded/artel.v1.txt`.
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
}

mod usage;

/// Package `artel.v1`.
pub use generated::v1;

/// The descriptors of all protos and of those they import, as an encoded `google.protobuf.FileDescriptorSet`. The
/// reflection service returns them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/artel.v1.bin"));
