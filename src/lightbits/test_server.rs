//! A scripted HTTP/1.1 server on loopback for the client's tests: each request takes the next line
//! of the script and is written down. It knows nothing of the API.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A JSON answer.
    Json(u16, String),
    /// Exactly these bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// The end of the connection without an answer.
    HangUp,
    /// No answer while the server lives.
    Silence,
    /// A head that promises a body, then a byte of it every 20 ms.
    Trickle,
}

impl Act {
    pub(super) fn ok(body: impl Into<String>) -> Act {
        Act::Json(200, body.into())
    }
    /// A status with a header line and an error body as the array's gateway writes it.
    pub(super) fn error(status: u16, text: &str) -> Act {
        Act::Json(status, format!(r#"{{"error":"{text}","message":"{text}","code":2}}"#))
    }
    /// An answer with these header lines (each ended by CRLF).
    pub(super) fn raw(status: u16, headers: &str, body: &str) -> Act {
        let len = body.len();
        let text = format!(
            "HTTP/1.1 {status} X\r\n{headers}content-length: {len}\r\nconnection: close\r\n\r\n{body}"
        );
        Act::Raw(text.into_bytes())
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `METHOD /path?query`.
    pub line: String,
    pub headers: String,
    pub body: String,
}

/// The server; dropping it ends its threads.
pub(super) struct TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    script: Mutex<std::vec::IntoIter<Act>>,
    seen: Mutex<Vec<Seen>>,
    end: AtomicBool,
}

impl TestServer {
    pub(super) fn http(script: Vec<Act>) -> TestServer {
        TestServer::start(script, None)
    }

    pub(super) fn https(script: Vec<Act>, tls: Arc<ServerConfig>) -> TestServer {
        TestServer::start(script, Some(tls))
    }

    fn start(script: Vec<Act>, tls: Option<Arc<ServerConfig>>) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script.into_iter()),
            seen: Mutex::new(Vec::new()),
            end: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &theirs, tls.as_ref()));
        TestServer { address, shared, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The request lines, without the part that all share.
    pub(super) fn lines(&self) -> Vec<String> {
        let cut = |seen: Seen| seen.line.replace("/api/v2/projects/default/", "");
        self.seen().into_iter().map(cut).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        // Wakes the accept call.
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    for stream in listener.incoming() {
        if shared.end.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = shared.clone();
        let tls = tls.cloned();
        std::thread::spawn(move || {
            // A refused handshake or a client that went away is no fault of the server.
            let _served = match tls {
                None => serve(stream, &shared),
                Some(tls) => ServerConnection::new(tls)
                    .map_err(std::io::Error::other)
                    .and_then(|connection| serve(StreamOwned::new(connection, stream), &shared)),
            };
        });
    }
}

fn serve(stream: impl Read + Write, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(seen) = read_request(&mut stream)? else { return Ok(()) };
        shared.seen.lock().unwrap().push(seen);
        let act = shared.script.lock().unwrap().next();
        let stream = stream.get_mut();
        match act {
            Some(Act::Json(status, body)) => {
                let kind = "content-type: application/json";
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\n{kind}\r\ncontent-length: {len}\r\n\r\n{body}"
                )?;
                stream.flush()?;
            }
            Some(Act::Raw(bytes)) => {
                stream.write_all(&bytes)?;
                return stream.flush();
            }
            Some(Act::HangUp) => return Ok(()),
            Some(Act::Silence) => {
                while !shared.end.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(());
            }
            Some(Act::Trickle) => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
                while !shared.end.load(Ordering::Relaxed) {
                    stream.write_all(b" ")?;
                    stream.flush()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(());
            }
            // A status the client never retries: the script was too short.
            None => {
                write!(stream, "HTTP/1.1 418 X\r\ncontent-length: 15\r\n\r\nscript is over.")?;
                stream.flush()?;
            }
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> std::io::Result<Option<Seen>> {
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = String::new();
    let mut len = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap_or(0);
        }
        headers.push_str(&line);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    let line = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Some(Seen { line, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}
