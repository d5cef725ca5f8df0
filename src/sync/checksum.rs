//! SHA-256 of a stretch of a device: in process with O_DIRECT, or by `dd` piped into `sha256sum`.
//!
//! The external way shares no code with the copy that it proves; both give the same digest. No
//! shell is involved. Not covered: which digest is right (the oracle computes it from the model).

use crate::array::{AlignedBuf, BlockDevice, DeviceError};
use crate::block::{BlockSize, ByteOffset, Extent};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;
/// Where `dd` and `sha256sum` are looked for; nothing else of the environment is passed on.
const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes kept of what a tool says.
const TOOL_TEXT_MAX: u64 = 4096;
/// Pause between two looks at whether a tool has finished.
const TOOL_PAUSE: Duration = Duration::from_millis(2);

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
    /// The bytes of the digest.
    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }
    /// The digest of these pieces, one after the other.
    pub fn of<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Digest {
        let mut hasher = Sha256::new();
        for piece in pieces {
            hasher.update(piece);
        }
        Digest(hasher.finalize().into())
    }
    /// The first 16 hex digits and an ellipsis, for notes.
    pub fn short(self) -> String {
        let mut hex = self.to_string();
        hex.truncate(16);
        hex.push('…');
        hex
    }
}

impl fmt::Display for Digest {
    /// 64 lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest of 64 lower-case hex digits")]
pub struct BadDigest;

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(BadDigest),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(BadDigest);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Ok(Digest(bytes))
    }
}

/// Who computes a digest (`--checksum`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumMethod {
    /// This process.
    Direct,
    /// `dd` and `sha256sum`.
    External,
}

/// A digest that could not be computed: nothing is known about the contents.
#[derive(Debug, thiserror::Error)]
pub enum ChecksumError {
    /// The device could not be read.
    #[error("reading for a checksum: {0}")]
    Device(#[from] DeviceError),
    /// The stretch ends past the end of the device.
    #[error("cannot take a checksum of {0}: the device ends before that")]
    Outside(Extent),
    /// The device has no path that another program could open.
    #[error("this device has no path for dd to read; use --checksum direct")]
    NoPath,
    /// A tool could not be started.
    #[error("cannot run {tool}: {source}; install coreutils or use --checksum direct")]
    Start {
        /// Which tool.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A tool could not be watched or its output not be read.
    #[error("{tool}: {source}")]
    Pipe {
        /// Which tool.
        tool: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{tool} failed ({status}): {said}; use --checksum direct to read in process")]
    Failed {
        /// Which tool.
        tool: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said, escaped and cut.
        said: String,
    },
    /// A tool said it was fine but its output is not what it should be.
    #[error("{tool} answered `{said}`, expected {expected}; use --checksum direct")]
    Output {
        /// Which tool.
        tool: &'static str,
        /// What it said, escaped and cut.
        said: String,
        /// What it should have said.
        expected: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The digest of `extent` of `device`, by `method`.
///
/// # Errors
/// As [`direct`] and [`external`]; [`ChecksumError::NoPath`] if the external tools cannot open it.
pub fn digest(
    method: ChecksumMethod,
    device: &dyn BlockDevice,
    extent: Extent,
    stop: &AtomicBool,
) -> Result<Digest, ChecksumError> {
    match method {
        ChecksumMethod::Direct => direct(device, extent, stop),
        ChecksumMethod::External => {
            let path = device.path().ok_or(ChecksumError::NoPath)?;
            external(path, extent, device.block_size(), stop)
        }
    }
}

/// The digest of `extent`, read in process through the device's own (direct) reads.
///
/// # Errors
/// If it lies outside the device or cannot be read, or `stop` is set.
pub fn direct(
    device: &dyn BlockDevice,
    extent: Extent,
    stop: &AtomicBool,
) -> Result<Digest, ChecksumError> {
    if extent.end().get() > device.len_lbas().get() {
        return Err(ChecksumError::Outside(extent));
    }
    let (start, len) = byte_range(extent, device.block_size())?;
    let mut buf = AlignedBuf::new(usize::try_from(len).unwrap_or(READ_BYTES).min(READ_BYTES));
    let mut hasher = Sha256::new();
    let mut done = 0;
    while done < len {
        if stop.load(Ordering::Relaxed) {
            return Err(ChecksumError::Interrupted);
        }
        let left = usize::try_from(len - done).unwrap_or(READ_BYTES);
        let part = &mut buf[..left.min(READ_BYTES)];
        device.read_at(ByteOffset::new(start + done), part)?;
        hasher.update(&*part);
        done += part.len() as u64;
    }
    Ok(Digest(hasher.finalize().into()))
}

fn byte_range(extent: Extent, block: BlockSize) -> Result<(u64, u64), ChecksumError> {
    let outside = || ChecksumError::Outside(extent);
    let start = extent.start().byte_offset(block).ok_or_else(outside)?.get();
    let end = extent.end().byte_offset(block).ok_or_else(outside)?.get();
    Ok((start, end - start))
}

/// The digest of `extent` of the device at `path`, as `dd iflag=direct | sha256sum` gives it.
///
/// # Errors
/// If a tool is missing or fails, if `dd` read fewer bytes than asked, or `stop` is set.
pub fn external(
    path: &Path,
    extent: Extent,
    block: BlockSize,
    stop: &AtomicBool,
) -> Result<Digest, ChecksumError> {
    let (start, len) = byte_range(extent, block)?;
    let mut input = OsString::from("if=");
    input.push(path);
    let mut dd = tool("dd");
    dd.arg(input)
        .arg("iflag=direct,fullblock,skip_bytes,count_bytes")
        .arg(format!("bs={READ_BYTES}"))
        .arg(format!("skip={start}"))
        .arg(format!("count={len}"))
        .stdin(Stdio::null());
    let mut dd = Tool::start("dd", &mut dd)?;
    let bytes = dd.child.stdout.take().ok_or_else(|| ChecksumError::Pipe {
        tool: "dd",
        source: io::ErrorKind::BrokenPipe.into(),
    })?;
    let mut sha256sum = Tool::start("sha256sum", tool("sha256sum").stdin(bytes))?;
    let copied = dd.finish(stop)?;
    let digest = sha256sum.finish(stop)?;
    must_have_copied(&copied.stderr, len)?;
    parse_sha256sum(&digest.stdout)
}

fn tool(name: &'static str) -> Command {
    let mut command = Command::new(name);
    // No locale: the messages that are read below come in English.
    command.env_clear().env("PATH", TOOL_PATH).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `dd` ends well at the end of a device; only its last line tells that it came that far.
fn must_have_copied(said: &str, len: u64) -> Result<(), ChecksumError> {
    let copied = said.lines().last().and_then(|line| line.split_once(" bytes"));
    // One byte is `1 byte`, but no block is so small.
    if copied.and_then(|(bytes, _)| bytes.parse().ok()) == Some(len) {
        return Ok(());
    }
    let expected = format!("{len} bytes copied");
    Err(ChecksumError::Output { tool: "dd", said: escaped(said), expected })
}

fn parse_sha256sum(said: &str) -> Result<Digest, ChecksumError> {
    let digest = said.strip_suffix("  -\n").and_then(|hex| hex.parse().ok());
    digest.ok_or_else(|| ChecksumError::Output {
        tool: "sha256sum",
        said: escaped(said),
        expected: "64 hex digits and ` -`".to_owned(),
    })
}

/// One line that is safe on a terminal.
fn escaped(said: &str) -> String {
    said.trim().escape_default().take(300).collect()
}

/// A running tool, which is ended and reaped when this is dropped.
struct Tool {
    name: &'static str,
    child: Child,
}

/// What a tool that ended well said.
struct Said {
    stdout: String,
    stderr: String,
}

impl Tool {
    fn start(name: &'static str, command: &mut Command) -> Result<Tool, ChecksumError> {
        match command.spawn() {
            Ok(child) => Ok(Tool { name, child }),
            Err(source) => Err(ChecksumError::Start { tool: name, source }),
        }
    }

    /// Waits for the end. Both tools say a few lines at most, which fit into the pipes.
    fn finish(&mut self, stop: &AtomicBool) -> Result<Said, ChecksumError> {
        let tool = self.name;
        let pipe = |source| ChecksumError::Pipe { tool, source };
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(pipe)? {
                break status;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(ChecksumError::Interrupted);
            }
            std::thread::sleep(TOOL_PAUSE);
        };
        let stderr = text_of(self.child.stderr.take()).map_err(pipe)?;
        let stdout = text_of(self.child.stdout.take()).map_err(pipe)?;
        if status.success() {
            Ok(Said { stdout, stderr })
        } else {
            Err(ChecksumError::Failed { tool, status, said: escaped(&stderr) })
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Both fail only if it has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text_of(pipe: Option<impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(TOOL_TEXT_MAX).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Does two things at once, each on its own thread: the two sides of a comparison.
pub fn pair<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
