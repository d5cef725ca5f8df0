//! What an opened device offers: plain calls on the kernel's file.
//!
//! A trait, so that the handshake can be tried on simulated volumes by the ten thousand. EINTR is
//! retried, but for a flush. Not covered: what may be written where (`super::block`).

use super::host::Node;
use super::ioctl;
use rustix::fs::FallocateFlags;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Positioned I/O below every guard.
pub(super) trait Medium: fmt::Debug + Send + Sync {
    /// Size in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Number of the disk behind the node, which no other disk gets before the next boot. Kernels
    /// before 5.15 have no such number, and files have none.
    fn disk_seq(&self) -> Option<u64>;
    /// Reads some bytes; none at the end.
    fn read_some(&self, at: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes some bytes.
    fn write_some(&self, at: u64, buf: &[u8]) -> io::Result<usize>;
    /// Makes what was written durable. Never repeated, not even after EINTR: the kernel may have
    /// forgotten what it could not write.
    fn flush(&self) -> io::Result<()>;
    /// Makes bytes read as zero.
    fn zero(&self, at: u64, len: u64) -> io::Result<()>;
    /// Gives bytes back.
    fn discard(&self, at: u64, len: u64) -> io::Result<()>;
}

/// A block device or a served file.
#[derive(Debug)]
pub(super) struct OpenNode {
    pub(super) file: File,
    pub(super) node: Node,
}

/// Size in bytes of what `file` is open on.
pub(super) fn size_bytes(file: &File, node: &Node) -> io::Result<u64> {
    match node {
        Node::Block(_) => ioctl::size_bytes(file),
        _ => file.metadata().map(|meta| meta.len()),
    }
}

/// Runs a call again while signals interrupt it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

impl OpenNode {
    /// Calls `on_block` for a block device and `fallocate` with `mode` for a file.
    fn punch(
        &self,
        (at, len): (u64, u64),
        on_block: impl Fn(&File, u64, u64) -> io::Result<()>,
        mode: FallocateFlags,
    ) -> io::Result<()> {
        uninterrupted(|| match self.node {
            Node::Block(_) => on_block(&self.file, at, len),
            _ => {
                let mode = mode | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&self.file, mode, at, len).map_err(io::Error::from)
            }
        })
    }
}

impl Medium for OpenNode {
    fn size_bytes(&self) -> io::Result<u64> {
        size_bytes(&self.file, &self.node)
    }
    fn disk_seq(&self) -> Option<u64> {
        match self.node {
            Node::Block(_) => ioctl::disk_seq(&self.file).ok(),
            _ => None,
        }
    }
    fn read_some(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.file.read_at(buf, at))
    }
    fn write_some(&self, at: u64, buf: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.file.write_at(buf, at))
    }
    fn flush(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.file).map_err(io::Error::from)
    }
    fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        let on_block = |file: &File, at, len| ioctl::zero_out(file, at, len);
        self.punch((at, len), on_block, FallocateFlags::ZERO_RANGE)
    }
    fn discard(&self, at: u64, len: u64) -> io::Result<()> {
        let on_block = |file: &File, at, len| ioctl::discard(file, at, len);
        self.punch((at, len), on_block, FallocateFlags::PUNCH_HOLE)
    }
}
