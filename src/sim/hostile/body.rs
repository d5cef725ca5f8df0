//! What goes over the socket: whole answers, and answers that break off, trickle or never end.
//!
//! Not covered: which fault happens when (`super::script`).

use super::super::routes::Reply;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Pause between two bytes of a trickling body.
const TRICKLE: Duration = Duration::from_millis(100);
/// Pause before a body breaks off, so that its first half is on its way by then.
const BREAK_AFTER: Duration = Duration::from_millis(10);
/// Bytes of an oversized body, and of each piece it is sent in.
const OVERSIZED_BYTES: u64 = 1 << 30;
const PIECE_BYTES: usize = 64 << 10;
/// Bytes that the gzip bomb unpacks to: more than a client may take.
const BOMB_BYTES: usize = 80 << 20;

/// How a request ends.
#[derive(Debug)]
pub(in super::super) enum Carried {
    /// With an answer.
    Answer(Answer),
    /// With the end of the connection.
    HangUp,
    /// Not at all.
    Silent,
    /// With the end of the connection and of the listening socket.
    Refuse {
        /// Whether it never listens again.
        for_ever: bool,
    },
}

/// An answer and how its body arrives.
#[derive(Debug)]
pub(in super::super) struct Answer {
    pub(in super::super) status: u16,
    pub(in super::super) content_type: &'static str,
    pub(in super::super) headers: Vec<(&'static str, String)>,
    pub(in super::super) body: Vec<u8>,
    pub(in super::super) delivery: Delivery,
}

/// How a body arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Delivery {
    Whole,
    /// Half of it, then a reset of the connection.
    Reset,
    /// Half of it, then the end of the connection.
    CutShort,
    Trickle,
    /// Not it, but a string of a gigabyte.
    Oversized,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        let Reply { status, content_type, body } = reply;
        let (body, headers) = (body.into_bytes(), Vec::new());
        Answer { status, content_type, headers, body, delivery: Delivery::Whole }
    }
}

impl Answer {
    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
    /// As sent: a stream of bytes.
    pub(in super::super) fn into_stream(self) -> Stream {
        let half = self.body.len() / 2;
        match self.delivery {
            Delivery::Whole => Stream::Whole(Some(self.body.into())),
            Delivery::Reset | Delivery::CutShort => {
                let len = self.body.len() as u64;
                let sent = Bytes::from(self.body).slice(..half);
                Stream::Broken { sent: Some(sent), promised: len, pause: None }
            }
            Delivery::Trickle => Stream::Trickle { rest: self.body.into(), pause: None },
            Delivery::Oversized => {
                Stream::Oversized { left: OVERSIZED_BYTES, piece: vec![b'a'; PIECE_BYTES].into() }
            }
        }
    }
}

/// A pause that has begun, if it has.
type Pause = Option<Pin<Box<Sleep>>>;

/// Waits for `time`, once; `true` when it is over.
fn paused(pause: &mut Pause, time: Duration, cx: &mut Context<'_>) -> bool {
    let waiting = pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
    let over = waiting.as_mut().poll(cx).is_ready();
    if over {
        *pause = None;
    }
    over
}

/// A body under way.
pub(in super::super) enum Stream {
    Whole(Option<Bytes>),
    /// Fewer bytes than promised.
    Broken {
        sent: Option<Bytes>,
        promised: u64,
        pause: Pause,
    },
    Trickle {
        rest: Bytes,
        pause: Pause,
    },
    /// One string of JSON that never ends.
    Oversized {
        left: u64,
        piece: Bytes,
    },
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.get_mut() {
            Stream::Whole(bytes) => match bytes.take().filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => frame(bytes),
                None => Poll::Ready(None),
            },
            Stream::Broken { sent, pause, .. } => match sent.take().filter(|s| !s.is_empty()) {
                Some(sent) => frame(sent),
                None if !paused(pause, BREAK_AFTER, cx) => Poll::Pending,
                None => Poll::Ready(Some(Err(io::Error::other("a fault breaks the body off")))),
            },
            Stream::Trickle { rest, pause } => {
                if !paused(pause, TRICKLE, cx) {
                    return Poll::Pending;
                }
                if rest.is_empty() {
                    return Poll::Ready(None);
                }
                frame(rest.split_to(1))
            }
            Stream::Oversized { left: 0, .. } => Poll::Ready(None),
            Stream::Oversized { left, piece } => {
                let first = *left == OVERSIZED_BYTES;
                *left = left.saturating_sub(piece.len() as u64);
                frame(if first { Bytes::from_static(b"{\"text\":\"") } else { piece.clone() })
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Stream::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Stream::Broken { promised, .. } => SizeHint::with_exact(*promised),
            Stream::Trickle { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            // Its end is not told beforehand, or it could be refused without reading.
            Stream::Oversized { .. } => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Stream::Whole(None))
    }
}

/// A connection that can be reset instead of closed.
pub(in super::super) struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Socket {
    /// `reset` says, when it ends, that it ends with a reset.
    pub(in super::super) fn new(stream: TcpStream, reset: Arc<AtomicBool>) -> Socket {
        Socket { stream, reset }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // If it cannot be had, the connection just ends.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A gzip stream of [`BOMB_BYTES`] equal bytes, without the checksum at its end: who comes that far
/// has unpacked everything.
pub(super) fn bomb() -> Vec<u8> {
    // RFC 1952: magic, deflate, no flags, no time, no hints, unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut put = |value: u32, len: u32| {
        bits |= value << held;
        held += len;
        while held >= 8 {
            // The low byte of the pending bits.
            out.push(bits.to_le_bytes()[0]);
            bits >>= 8;
            held -= 8;
        }
    };
    // RFC 1951: last block, fixed codes, the literal `a`; Huffman codes go bit-reversed.
    put(0b011, 3);
    put(u32::from((0x30 + b'a').reverse_bits()), 8);
    for _ in 0..BOMB_BYTES / 258 {
        // Length 258 (symbol 285, code 11000101) at distance 1 (code 00000).
        put(u32::from(0b1100_0101_u8.reverse_bits()), 8);
        put(0, 5);
    }
    put(0, 7);
    put(0, 7);
    out.extend([0; 8]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bomb_is_small_and_begins_as_gzip_of_equal_bytes() {
        let bomb = bomb();
        assert!(bomb.len() < 600 << 10, "{}", bomb.len());
        assert_eq!(bomb.get(..4), Some(&[0x1f, 0x8b, 8, 0][..]));
        // Eight codes of 13 bits fill 13 bytes: from then on the stream repeats.
        assert_eq!(bomb.get(13..26), bomb.get(26..39));
        assert!(bomb.len() * 100 < BOMB_BYTES, "it unpacks to a hundred times its size");
    }
}
