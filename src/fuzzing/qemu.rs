//! A daemon that answers anything over NBD and QMP. Not covered: what commands mean.

use crate::engine::Entropy;
use crate::qemu::nbd::{Command, Nbd, NbdError};
use crate::qemu::qmp::{Qmp, QmpError};
use arbitrary::Unstructured;
use serde_json::{Value, json};
use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

/// A stream that answers these bytes and takes whatever is written.
struct Script<'a>(Cursor<&'a [u8]>);

impl<'a> Script<'a> {
    fn new(bytes: &'a [u8]) -> Script<'a> {
        Script(Cursor::new(bytes))
    }
}

impl Read for Script<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const EXPORT: &str = "volume";
const CONTEXT: &str = "qemu:dirty-bitmap:b";
const CONTEXT_ID: u32 = 5;
const SIZE_BYTES: u64 = 1 << 20;

/// What an honest server says up to the first request (proto.md, "Fixed newstyle negotiation").
fn greeting() -> Vec<u8> {
    let mut said = Vec::new();
    said.extend(b"NBDMAGICIHAVEOPT\x00\x03");
    let mut reply = |option: u32, kind: u32, data: &[u8]| {
        said.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
        for word in [option, kind, u32::try_from(data.len()).unwrap_or(0)] {
            said.extend(word.to_be_bytes());
        }
        said.extend(data);
    };
    reply(8, 1, &[]);
    reply(10, 4, &[&CONTEXT_ID.to_be_bytes(), CONTEXT.as_bytes()].concat());
    reply(10, 1, &[]);
    reply(7, 3, &[&[0, 0][..], &SIZE_BYTES.to_be_bytes(), &[0, 0]].concat());
    reply(7, 1, &[]);
    said
}

/// Bytes instead of a server: from the first byte on, after an honest greeting, or as the pieces of
/// an answer to a read.
pub(super) fn nbd(bytes: &[u8]) {
    let (mode, rest) = bytes.split_first().unwrap_or((&0, &[]));
    match mode % 3 {
        0 => requests(rest),
        1 => requests(&[&greeting(), rest].concat()),
        _ => pieces(rest),
    }
}

fn requests(said: &[u8]) {
    let mut session = match Nbd::open(Script::new(said), EXPORT, Some(CONTEXT)) {
        Ok(session) => session,
        Err(error) => return check_error(&error),
    };
    let mut buf = [0; 4096];
    if let Err(error) = session.read(8192, &mut buf) {
        check_error(&error);
    }
    match session.block_status(0, 1 << 16) {
        Ok(found) => {
            assert!(!found.is_empty());
            assert!(found.iter().all(|status| status.len_bytes > 0), "{found:?}");
        }
        Err(error) => check_error(&error),
    }
    if let Err(error) = session.simple(Command::Flush, 0, 0) {
        check_error(&error);
    }
    if session.is_broken() {
        assert!(session.write(0, &buf).is_err(), "a broken session goes on");
    }
}

fn check_error(error: &NbdError) {
    let shown = error.to_string();
    assert!(!shown.is_empty() && !shown.chars().any(char::is_control), "{shown:?}");
}

/// Bytes asked for by a read whose answer comes in pieces.
const READ_AT: u64 = 4096;
const READ_LEN: usize = 512;

/// Pieces of data and holes: the read succeeds if and only if they cover it exactly once.
fn pieces(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut said = greeting();
    let mut wanted = vec![None; READ_LEN];
    let (mut legal, mut at) = (true, 0);
    while !input.is_spent() && at < 2 * READ_LEN {
        // Mostly one piece after the other, or no answer would ever be whole.
        let start =
            if input.chance(1, 8) { usize::try_from(input.below(600)).unwrap_or(0) } else { at };
        let len = 1 + usize::try_from(input.below(200)).unwrap_or(0);
        let len =
            if input.chance(1, 2) { len.min(READ_LEN.saturating_sub(start).max(1)) } else { len };
        let byte = input.chance(1, 2).then(|| input.below(256).to_le_bytes()[0]);
        for place in start..start + len {
            match wanted.get_mut(place) {
                Some(free @ None) => *free = Some(byte.unwrap_or(0)),
                _ => legal = false,
            }
        }
        push_piece(&mut said, start, len, byte);
        at = start + len;
    }
    let whole = wanted.iter().all(Option::is_some);
    said.extend(chunk(0, 1, &[]));
    let mut session = Nbd::open(Script::new(&said), EXPORT, Some(CONTEXT)).expect("a greeting");
    assert_eq!(session.size_bytes(), SIZE_BYTES);
    let mut buf = [0xa5; READ_LEN];
    let answer = session.read(READ_AT, &mut buf);
    assert_eq!(answer.is_ok(), legal && whole, "{answer:?}");
    if answer.is_ok() {
        assert!(wanted.into_iter().flatten().eq(buf), "other bytes than were sent");
    }
}

fn push_piece(said: &mut Vec<u8>, start: usize, len: usize, byte: Option<u8>) {
    let offset = (READ_AT + start as u64).to_be_bytes();
    match byte {
        Some(byte) => said.extend(chunk(1, 0, &[&offset[..], &vec![byte; len]].concat())),
        None => {
            let len = u32::try_from(len).unwrap_or(0).to_be_bytes();
            said.extend(chunk(2, 0, &[&offset[..], &len].concat()));
        }
    }
}

/// A chunk of a structured reply to the first request.
fn chunk(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut said = 0x668e_33ef_u32.to_be_bytes().to_vec();
    said.extend(flags.to_be_bytes());
    said.extend(kind.to_be_bytes());
    said.extend(1u64.to_be_bytes());
    said.extend(u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    said.extend(payload);
    said
}

/// Lines of a daemon: greeting, answers, events.
pub(super) fn qmp(bytes: &[u8]) {
    let mut session = match Qmp::open(Script::new(bytes)) {
        Ok(session) => session,
        Err(error) => return check_refusal(&error),
    };
    // The negotiation was command 1.
    for id in 2..5 {
        match session.command("query-jobs", &json!({})) {
            Ok(answer) => assert!(is_said(bytes, id, &answer), "nobody said {answer} to {id}"),
            Err(error) => check_refusal(&error),
        }
    }
    if bytes.len().is_multiple_of(2) {
        session.forget_events();
    }
    if let Err(error) = session.wait_event("JOB", &[("id", "x")], Duration::from_millis(1)) {
        check_refusal(&error);
    }
}

/// Whether a line answers that command so.
fn is_said(bytes: &[u8], id: u64, answer: &Value) -> bool {
    bytes.split(|&byte| byte == b'\n').any(|line| {
        let line: Value = serde_json::from_slice(line).unwrap_or_default();
        line["id"] == json!(id) && line["return"] == *answer
    })
}

fn check_refusal(error: &QmpError) {
    let shown = error.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?} steers a terminal");
}
