//! Data plane over NBD: a volume without a path, for machines without FUSE; and the reader of
//! snapshots, which is the same thing without the right to write.
//!
//! The volume is a file this tool made in its private directory, so no guard stands before it. Not
//! covered: write-zeroes and discard beyond what NBD offers, and devices of anybody else.

use super::daemon::open_socket;
use super::nbd::{Command, Nbd, NbdError, PAYLOAD_MAX, SPAN_MAX};
use crate::array::{BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Extent, Lba, LbaCount};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Held while the daemon carries out a command, and while a session is being opened.
///
/// A session that joins an export while a command waits for all requests to end makes QEMU wait for
/// ever, in a busy loop (seen with 10.0.2): the newcomer is asked to finish, but never told to stop.
pub(super) type Gate = Arc<Mutex<()>>;

/// Waits for the gate.
pub(super) fn pass(gate: &Gate) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sessions on one export, opened as threads need them and used again.
pub(super) struct Sessions {
    socket: PathBuf,
    export: String,
    len: LbaCount,
    gate: Gate,
    idle: Mutex<Vec<Nbd<UnixStream>>>,
}

impl Sessions {
    /// Sessions on `export`, which must be as long as told; none is opened yet.
    pub(super) fn new(socket: PathBuf, export: String, len: LbaCount, gate: Gate) -> Sessions {
        Sessions { socket, export, len, gate, idle: Mutex::new(Vec::new()) }
    }

    /// Runs `work` on a session of its own. One that broke is not used again.
    ///
    /// # Errors
    /// As [`Nbd::open`] and `work`.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Nbd<UnixStream>) -> Result<T, NbdError>,
    ) -> Result<T, NbdError> {
        // Taken in a statement of its own, or the lock would be held while working.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match idle {
            Some(session) => session,
            None => {
                let _alone = pass(&self.gate);
                open_session(&self.socket, &self.export, None, self.len)?
            }
        };
        let outcome = work(&mut session);
        if !session.is_broken() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        outcome
    }

    /// Fills `buf` from byte `at`.
    ///
    /// # Errors
    /// As [`Nbd::read`].
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), NbdError> {
        self.with(|session| {
            let mut at = at;
            for piece in buf.chunks_mut(PAYLOAD_MAX) {
                session.read(at, piece)?;
                at += piece.len() as u64;
            }
            Ok(())
        })
    }
}

/// Opens a session on an export of the daemon and checks its size.
///
/// # Errors
/// As [`Nbd::open`].
pub(super) fn open_session(
    socket: &Path,
    export: &str,
    context: Option<&str>,
    len: LbaCount,
) -> Result<Nbd<UnixStream>, NbdError> {
    let session = Nbd::open(open_socket(socket)?, export, context)?;
    let (found, expected) = (session.size_bytes(), len.bytes(BlockSize::DEVICE).get());
    if found != expected {
        return Err(NbdError::Malformed(format!(
            "export {export} has {found} bytes instead of {expected}"
        )));
    }
    Ok(session)
}

/// A volume of [`super::QemuArray`] reached over NBD. It holds no connection while idle, and its
/// calls fail once the array is dropped.
pub struct NbdDevice {
    sessions: Sessions,
}

impl NbdDevice {
    pub(super) fn new(socket: PathBuf, export: String, len: LbaCount, gate: Gate) -> NbdDevice {
        NbdDevice { sessions: Sessions::new(socket, export, len, gate) }
    }

    /// Sends `command` for `len` LBAs from `at`, in pieces that one request can name.
    fn span(
        &self,
        op: &'static str,
        command: Command,
        at: Lba,
        len: LbaCount,
    ) -> Result<(), DeviceError> {
        let span = Extent::new(at, len).filter(|span| span.end().get() <= self.sessions.len.get());
        let Some(span) = span else {
            return Err(DeviceError::Forbidden { op, at, len: len.get() });
        };
        let max = LbaCount::new(u64::from(SPAN_MAX) / BlockSize::DEVICE.bytes());
        for piece in span.pieces(max) {
            let start = piece.start().get() * BlockSize::DEVICE.bytes();
            let bytes = u32::try_from(piece.len_lbas().bytes(BlockSize::DEVICE).get());
            let sent = match bytes {
                Ok(bytes) => self.sessions.with(|session| session.simple(command, start, bytes)),
                Err(_) => Err(NbdError::Io(io::ErrorKind::InvalidInput.into())),
            };
            sent.map_err(|error| device_error(op, start, error))?;
        }
        Ok(())
    }
}

fn device_error(op: &'static str, at: u64, error: NbdError) -> DeviceError {
    let source = match error {
        NbdError::Io(source) => source,
        NbdError::Server { errno, .. } => io::Error::from_raw_os_error(errno),
        other => io::Error::other(other),
    };
    DeviceError::Io { op, at: ByteOffset::new(at), source }
}

impl BlockDevice for NbdDevice {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        self.sessions.len
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.sessions.read(at.get(), buf).map_err(|error| device_error("read", at.get(), error))
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let taken = &buf[..buf.len().min(PAYLOAD_MAX)];
        let sent = self.sessions.with(|session| session.write(at.get(), taken));
        sent.map_err(|error| device_error("write", at.get(), error))?;
        Ok(taken.len())
    }
    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        self.span("write-zeroes", Command::WriteZeroes, at, len)
    }
    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        // QEMU drops NBD_CMD_TRIM silently while a backup job is above the volume, that is, while
        // any snapshot lives (seen with 10.0.2). Its own FUSE export turns a punched hole into
        // write-zeroes that may unmap; this does the same, so that both planes discard alike.
        self.span("discard", Command::WriteZeroes, at, len)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        let sent = self.sessions.with(|session| session.simple(Command::Flush, 0, 0));
        sent.map_err(|error| device_error("flush", 0, error))
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}
