//! Whether systemd's journal reads standard error.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

/// Whether systemd's journal reads standard error: then `JOURNAL_STREAM` names the device and the inode of the stream. A
/// child whose standard error leads elsewhere inherits the variable all the same.
pub fn is_connected_to_journal() -> bool {
    let named = env::var("JOURNAL_STREAM").ok();
    let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    stderr.is_ok_and(|stream| named.as_deref().and_then(parse) == Some((stream.dev(), stream.ino())))
}

/// `DEVICE:INODE`.
fn parse(stream: &str) -> Option<(u64, u64)> {
    let (device, inode) = stream.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_stream_is_a_device_and_an_inode() {
        assert_eq!(parse("8:4711"), Some((8, 4711)));
        assert_eq!([parse(""), parse("8"), parse("8:x"), parse("-1:2")], [None; 4]);
    }
}
