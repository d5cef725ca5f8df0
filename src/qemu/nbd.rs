//! A client of NBD, the network block device protocol: what is needed to read, write and ask for
//! block status, over any stream.
//!
//! Contract: `doc/proto.md` of NetworkBlockDevice/nbd (fixed newstyle, structured replies, one
//! metadata context). One request is in flight at a time. Not covered: TLS, 64-bit requests.

use std::io::{self, BufReader, Read, Write};

const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR_BIT: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const CHUNK_DONE: u16 = 1;
const CHUNK_NONE: u16 = 0;
const CHUNK_DATA: u16 = 1;
const CHUNK_HOLE: u16 = 2;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR_BIT: u16 = 1 << 15;

/// Most bytes of one READ or WRITE: what every server must take (proto.md, "Block size constraints").
pub(crate) const PAYLOAD_MAX: usize = 32 << 20;
/// Longest option reply accepted, in bytes.
const OPTION_REPLY_MAX: u32 = 64 << 10;
/// Longest status or error chunk accepted, in bytes; QEMU sends 128 KiB at most.
const STATUS_MAX: usize = 1 << 20;
/// Largest number of bytes one WRITE_ZEROES or BLOCK_STATUS names.
pub(crate) const SPAN_MAX: u32 = 1 << 30;

/// An NBD session or request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The socket failed, timed out or was closed.
    #[error("NBD socket of qemu-storage-daemon: {0}")]
    Io(#[from] io::Error),
    /// The server said no to an option; the session ends.
    #[error("NBD server refused option {option} with reply {reply:#x}")]
    Option {
        /// Number of the option.
        option: u32,
        /// Type of the reply.
        reply: u32,
    },
    /// The server answered a request with an error number (those of Linux); the session goes on.
    #[error("NBD {command} at byte {at}: {}", io::Error::from_raw_os_error(*errno))]
    Server {
        /// What was asked.
        command: &'static str,
        /// Where.
        at: u64,
        /// The error.
        errno: i32,
    },
    /// The answer breaks the protocol; the session ends.
    #[error("NBD answer of qemu-storage-daemon cannot be read: {0}")]
    Malformed(String),
}

/// The requests used here, with their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    WriteZeroes = 6,
    BlockStatus = 7,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::Read => "read",
            Command::Write => "write",
            Command::Flush => "flush",
            Command::WriteZeroes => "write-zeroes",
            Command::BlockStatus => "block-status",
        }
    }
}

/// A stretch of the export with one status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Status {
    /// Its length in bytes, at least one.
    pub(crate) len_bytes: u32,
    /// Flags of the context; for `qemu:dirty-bitmap:` bit 0 means dirty.
    pub(crate) flags: u32,
}

/// One piece of an answer.
struct Chunk<'a> {
    kind: u16,
    payload: &'a [u8],
}

/// An open NBD session on one export.
pub(crate) struct Nbd<S> {
    io: BufReader<S>,
    size_bytes: u64,
    context: Option<u32>,
    cookie: u64,
    scratch: Vec<u8>,
    broken: bool,
}

impl<S: Read + Write> Nbd<S> {
    /// Opens `export`; with `context`, that metadata context must exist on it.
    ///
    /// # Errors
    /// When the server refuses an option, has no such export or context, or breaks the protocol.
    pub(crate) fn open(stream: S, export: &str, context: Option<&str>) -> Result<Nbd<S>, NbdError> {
        let io = BufReader::new(stream);
        let mut nbd =
            Nbd { io, size_bytes: 0, context: None, cookie: 0, scratch: Vec::new(), broken: false };
        if nbd.u64()? != INIT_MAGIC || nbd.u64()? != OPTION_MAGIC {
            return malformed("the greeting is not that of an NBD server");
        }
        let flags = nbd.u16()?;
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return malformed("the server does not negotiate");
        }
        let answer = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
        nbd.io.get_mut().write_all(&answer.to_be_bytes())?;
        nbd.option(OPT_STRUCTURED_REPLY, &[])?;
        if let Some(context) = context {
            nbd.context = Some(nbd.set_context(export, context)?);
        }
        nbd.size_bytes = nbd.go(export)?;
        Ok(nbd)
    }

    /// Size of the export in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the session cannot be used any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Fills `buf` (at most [`PAYLOAD_MAX`] bytes) from byte `at`.
    ///
    /// # Errors
    /// As every request; also when the answer does not cover the range exactly once.
    pub(crate) fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), NbdError> {
        let len = buf.len();
        let mut parts: Vec<(usize, usize)> = Vec::new();
        self.request(Command::Read, at, request_len(len)?, &[], |chunk| {
            let (offset, mut rest) = take_u64(chunk.payload)?;
            let (start, part_len) = match chunk.kind {
                CHUNK_DATA => (part_start(offset, at)?, rest.len()),
                CHUNK_HOLE => {
                    let hole = u32::from_be_bytes(take(&mut rest)?);
                    (part_start(offset, at)?, usize::try_from(hole).unwrap_or(usize::MAX))
                }
                other => return malformed(format!("chunk type {other} answers a read")),
            };
            let end = start.saturating_add(part_len);
            match buf.get_mut(start..end) {
                Some(part) if chunk.kind == CHUNK_DATA => part.copy_from_slice(rest),
                Some(part) => part.fill(0),
                None => return malformed("data outside the range that was read"),
            }
            parts.push((start, end));
            Ok(())
        })?;
        parts.sort_unstable();
        let covered = parts
            .iter()
            .try_fold(0, |at, &(start, end)| if start == at { Some(end) } else { None });
        if covered != Some(len) {
            self.broken = true;
            return malformed("a read was not answered exactly once for every byte");
        }
        Ok(())
    }

    /// Writes `data` (at most [`PAYLOAD_MAX`] bytes) from byte `at`.
    ///
    /// # Errors
    /// As every request.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) -> Result<(), NbdError> {
        self.request(Command::Write, at, request_len(data.len())?, data, no_payload)
    }

    /// Sends `command`, one without data: flush (with `len_bytes` 0) or write-zeroes.
    ///
    /// # Errors
    /// As every request.
    pub(crate) fn simple(
        &mut self,
        command: Command,
        at: u64,
        len_bytes: u32,
    ) -> Result<(), NbdError> {
        self.request(command, at, len_bytes, &[], no_payload)
    }

    /// Status of the bytes from `at`, in the context chosen at [`Nbd::open`]. At least one stretch;
    /// they may end before `at + len_bytes`, and the last one may end after it.
    ///
    /// # Errors
    /// As every request; also without a context.
    pub(crate) fn block_status(
        &mut self,
        at: u64,
        len_bytes: u32,
    ) -> Result<Vec<Status>, NbdError> {
        let context = self.context;
        let mut found = Vec::new();
        self.request(Command::BlockStatus, at, len_bytes, &[], |chunk| {
            if chunk.kind != CHUNK_STATUS {
                return malformed(format!("chunk type {} answers a block status", chunk.kind));
            }
            let mut rest = chunk.payload;
            if Some(u32::from_be_bytes(take(&mut rest)?)) != context || !found.is_empty() {
                return malformed("block status of a context that was not asked for");
            }
            while !rest.is_empty() {
                let len_bytes = u32::from_be_bytes(take(&mut rest)?);
                let flags = u32::from_be_bytes(take(&mut rest)?);
                if len_bytes == 0 {
                    return malformed("block status with an empty stretch");
                }
                found.push(Status { len_bytes, flags });
            }
            Ok(())
        })?;
        if found.is_empty() {
            self.broken = true;
            return malformed("block status without any stretch");
        }
        Ok(found)
    }

    /// Sends one request and hands every chunk of the answer to `on_chunk`.
    fn request(
        &mut self,
        command: Command,
        at: u64,
        len_bytes: u32,
        payload: &[u8],
        on_chunk: impl FnMut(Chunk<'_>) -> Result<(), NbdError>,
    ) -> Result<(), NbdError> {
        if self.broken {
            return Err(NbdError::Io(io::ErrorKind::BrokenPipe.into()));
        }
        let outcome = self.exchange(command, at, len_bytes, payload, on_chunk);
        self.broken =
            matches!(outcome, Err(ref error) if !matches!(error, NbdError::Server { .. }));
        outcome
    }

    fn exchange(
        &mut self,
        command: Command,
        at: u64,
        len_bytes: u32,
        payload: &[u8],
        mut on_chunk: impl FnMut(Chunk<'_>) -> Result<(), NbdError>,
    ) -> Result<(), NbdError> {
        self.cookie += 1;
        let mut head = Vec::with_capacity(28);
        head.extend(REQUEST_MAGIC.to_be_bytes());
        head.extend(0u16.to_be_bytes());
        head.extend((command as u16).to_be_bytes());
        head.extend(self.cookie.to_be_bytes());
        head.extend(at.to_be_bytes());
        head.extend(len_bytes.to_be_bytes());
        self.io.get_mut().write_all(&head)?;
        self.io.get_mut().write_all(payload)?;

        let mut errno = 0;
        loop {
            let magic = self.u32()?;
            let (kind, done, len) = match magic {
                SIMPLE_REPLY_MAGIC => {
                    errno = self.u32()?;
                    (CHUNK_NONE, true, 0)
                }
                CHUNK_MAGIC => {
                    let done = self.u16()? & CHUNK_DONE != 0;
                    (self.u16()?, done, 0)
                }
                other => return malformed(format!("reply magic {other:#x}")),
            };
            if self.u64()? != self.cookie {
                return malformed("a reply to another request");
            }
            let len = if magic == CHUNK_MAGIC { self.u32()? as usize } else { len };
            if len > chunk_max(command, len_bytes) {
                return malformed(format!("a chunk of {len} bytes"));
            }
            self.scratch.resize(len, 0);
            self.io.read_exact(&mut self.scratch)?;
            let payload = self.scratch.as_slice();
            if kind & CHUNK_ERROR_BIT != 0 {
                errno = error_number(payload)?;
            } else if kind != CHUNK_NONE {
                on_chunk(Chunk { kind, payload })?;
            } else if len > 0 {
                return malformed("an empty chunk with content");
            }
            if !done {
                continue;
            }
            return match i32::try_from(errno) {
                Ok(0) => Ok(()),
                Ok(errno) => Err(NbdError::Server { command: command.name(), at, errno }),
                Err(_) => malformed(format!("error number {errno}")),
            };
        }
    }

    fn set_context(&mut self, export: &str, context: &str) -> Result<u32, NbdError> {
        let mut data = counted(export)?;
        data.extend(1u32.to_be_bytes());
        data.extend(counted(context)?);
        let mut id = None;
        for (kind, reply) in self.option(OPT_SET_META_CONTEXT, &data)? {
            let mut rest = reply.as_slice();
            if kind != REP_META_CONTEXT {
                return malformed(format!("reply {kind} to a metadata context"));
            }
            let number = u32::from_be_bytes(take(&mut rest)?);
            if rest == context.as_bytes() {
                id = Some(number);
            }
        }
        id.map_or_else(|| malformed(format!("the export has no context {context}")), Ok)
    }

    fn go(&mut self, export: &str) -> Result<u64, NbdError> {
        let mut data = counted(export)?;
        data.extend(0u16.to_be_bytes());
        let mut size = None;
        for (kind, reply) in self.option(OPT_GO, &data)? {
            let mut rest = reply.as_slice();
            if kind != REP_INFO {
                return malformed(format!("reply {kind} to the choice of an export"));
            }
            if u16::from_be_bytes(take(&mut rest)?) == INFO_EXPORT {
                size = Some(u64::from_be_bytes(take(&mut rest)?));
            }
        }
        size.map_or_else(|| malformed("the server does not tell the size of the export"), Ok)
    }

    /// Sends one option and collects the replies before the final acknowledgement.
    fn option(&mut self, option: u32, data: &[u8]) -> Result<Vec<(u32, Vec<u8>)>, NbdError> {
        /// More replies than any option used here has.
        const REPLIES_MAX: usize = 64;
        let mut message = Vec::with_capacity(16 + data.len());
        message.extend(OPTION_MAGIC.to_be_bytes());
        message.extend(option.to_be_bytes());
        message.extend(wire_len(data.len())?.to_be_bytes());
        message.extend(data);
        self.io.get_mut().write_all(&message)?;
        let mut replies = Vec::new();
        while replies.len() < REPLIES_MAX {
            if self.u64()? != OPTION_REPLY_MAGIC || self.u32()? != option {
                return malformed("a reply to another option");
            }
            let (reply, len) = (self.u32()?, self.u32()?);
            if len > OPTION_REPLY_MAX {
                return malformed(format!("an option reply of {len} bytes"));
            }
            let mut payload = vec![0; len as usize];
            self.io.read_exact(&mut payload)?;
            match reply {
                REP_ACK => return Ok(replies),
                refused if refused & REP_ERROR_BIT != 0 => {
                    return Err(NbdError::Option { option, reply });
                }
                other => replies.push((other, payload)),
            }
        }
        malformed("an option without end")
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], NbdError> {
        let mut bytes = [0; N];
        self.io.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    fn u16(&mut self) -> Result<u16, NbdError> {
        Ok(u16::from_be_bytes(self.bytes()?))
    }
    fn u32(&mut self) -> Result<u32, NbdError> {
        Ok(u32::from_be_bytes(self.bytes()?))
    }
    fn u64(&mut self) -> Result<u64, NbdError> {
        Ok(u64::from_be_bytes(self.bytes()?))
    }
}

fn malformed<T>(what: impl Into<String>) -> Result<T, NbdError> {
    Err(NbdError::Malformed(what.into()))
}

fn no_payload(chunk: Chunk<'_>) -> Result<(), NbdError> {
    malformed(format!("chunk type {} answers a request without answer", chunk.kind))
}

/// Longest chunk that may answer a request, in bytes.
fn chunk_max(command: Command, len_bytes: u32) -> usize {
    match command {
        // Eight bytes of offset go before the data; an error text may be longer than a short read.
        Command::Read => (len_bytes as usize + 8).max(OPTION_REPLY_MAX as usize),
        _ => STATUS_MAX,
    }
}

/// The error number that opens an error chunk. Zero would be no error at all.
fn error_number(mut payload: &[u8]) -> Result<u32, NbdError> {
    match u32::from_be_bytes(take(&mut payload)?) {
        0 => malformed("an error chunk without an error"),
        errno => Ok(errno),
    }
}

/// Takes the first `N` bytes off.
fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], NbdError> {
    match from.split_first_chunk::<N>() {
        Some((head, rest)) => {
            *from = rest;
            Ok(*head)
        }
        None => malformed("an answer ends early"),
    }
}

fn take_u64(mut from: &[u8]) -> Result<(u64, &[u8]), NbdError> {
    let number = u64::from_be_bytes(take(&mut from)?);
    Ok((number, from))
}

/// Where a piece of the export lies in the buffer that is read from byte `at` on.
fn part_start(offset: u64, at: u64) -> Result<usize, NbdError> {
    let start = offset.checked_sub(at).and_then(|start| usize::try_from(start).ok());
    start.map_or_else(|| malformed("data outside the range that was read"), Ok)
}

fn wire_len(len: usize) -> Result<u32, NbdError> {
    u32::try_from(len).map_err(|_| NbdError::Io(io::ErrorKind::InvalidInput.into()))
}

fn request_len(len: usize) -> Result<u32, NbdError> {
    if len > PAYLOAD_MAX {
        return Err(NbdError::Io(io::ErrorKind::InvalidInput.into()));
    }
    wire_len(len)
}

fn counted(text: &str) -> Result<Vec<u8>, NbdError> {
    let mut bytes = wire_len(text.len())?.to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
#[path = "nbd_tests.rs"]
mod tests;
