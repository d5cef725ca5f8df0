//! Memory that O_DIRECT accepts: aligned to a page, without `unsafe`. Not covered: huge pages, and
//! buffers shared between requests.

use std::ops::{Deref, DerefMut};

/// Alignment in bytes of every [`AlignedBuf`]; a multiple of every logical sector size in use.
pub const BUF_ALIGN: usize = 4096;

/// A zeroed byte buffer whose first byte is aligned to [`BUF_ALIGN`].
#[derive(Debug)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    offset: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    ///
    /// # Panics
    /// If the allocation fails, or the allocator cannot say where its memory is (never on Linux).
    pub fn new(len: usize) -> AlignedBuf {
        let memory = vec![0; len + BUF_ALIGN];
        let offset = memory.as_ptr().align_offset(BUF_ALIGN);
        assert!(offset <= BUF_ALIGN, "the allocator hides its addresses");
        AlignedBuf { memory, offset, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.offset..self.offset + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.offset..self.offset + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_as_long_as_asked() {
        for len in [0, 1, 64, 4095, 4096, 262_144] {
            let buf = AlignedBuf::new(len);
            assert_eq!(buf.as_ptr() as usize % BUF_ALIGN, 0);
            assert_eq!(buf.len(), len);
            assert!(buf.iter().all(|&b| b == 0));
        }
    }
}
