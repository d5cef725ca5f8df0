//! A stream for parser tests: answers fixed bytes and keeps what was written.

use std::io::{self, Cursor, Read, Write};

pub(super) struct Script {
    answers: Cursor<Vec<u8>>,
    pub(super) written: Vec<u8>,
}

impl Script {
    pub(super) fn new(answers: impl Into<Vec<u8>>) -> Script {
        Script { answers: Cursor::new(answers.into()), written: Vec::new() }
    }
}

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.answers.read(buf)
    }
}

impl Write for Script {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
