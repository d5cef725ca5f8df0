//! A TLS reverse proxy between the program and the simulator that passes everything on, but for
//! diff pages, which it spoils in one chosen way.

use super::api::https;
use super::server::Server;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::blocking::Client;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it does to diff pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meddle {
    /// Nothing.
    Nothing,
    /// The first range of each page is missing.
    DropRange,
    /// The lowest bit of the first range of each page is the opposite.
    FlipBit,
    /// Every page after the first has the ranges of the first.
    RepeatPage,
    /// The offset is ignored: every page is the first one.
    IgnoreOffset,
    /// No page says that it goes on.
    EndEarly,
    /// Every call is answered 503 twice before it is passed on, whatever it is.
    UnavailableTwice,
    /// Instead of a page comes 403, with the caller's own token in the text.
    EchoToken,
    /// Calls are taken and never answered, whatever they are.
    Mute,
    /// Every foreign name and every error text holds [`HOSTILE`] and the caller's own token, as it is
    /// and in capitals. Names that begin with `twin` are all `twin`.
    HostileTexts,
}

/// Codes that a terminal obeys, a text from right to left, and marks of HTML and XML.
pub(crate) const HOSTILE: &str =
    "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}<script>alert(1)</script>]]>&\n";

/// Which of the pages that it could spoil it spoils, or calls it does not answer; they are counted
/// from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Always,
    Only(usize),
    From(usize),
}

/// The proxy; dropping it ends it.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    pub(crate) pin: String,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    client: Client,
    meddle: Meddle,
    when: When,
    /// Pages that it could have spoiled, or calls answered 503, so far.
    chances: AtomicUsize,
    meddled: AtomicUsize,
    /// How often each call came.
    seen: Mutex<HashMap<String, usize>>,
    end: AtomicBool,
}

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

type Answer = (u16, String, Vec<u8>);

impl Proxy {
    pub(crate) fn start(server: &Server, meddle: Meddle, when: When) -> Proxy {
        let made = rcgen::generate_simple_self_signed(vec!["api.service".to_owned()]).unwrap();
        let der = made.cert.der().clone();
        let pin = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: server.text("endpoint"),
            client: https(),
            meddle,
            when,
            chances: AtomicUsize::new(0),
            meddled: AtomicUsize::new(0),
            seen: Mutex::default(),
            end: AtomicBool::new(false),
        });
        let (theirs, config) = (Arc::clone(&shared), Arc::new(config));
        std::thread::spawn(move || accept(&listener, &theirs, &config));
        Proxy { endpoint: format!("https://{address}"), pin, address, shared }
    }
    /// How often it meddled.
    pub(crate) fn meddled(&self) -> usize {
        self.shared.meddled.load(Ordering::SeqCst)
    }
    /// The bodies of the calls with this method, each once.
    pub(crate) fn bodies(&self, method: &str) -> Vec<String> {
        let seen = self.shared.seen.lock().unwrap();
        let of_method = seen.keys().filter_map(|call| call.strip_prefix(method));
        let bodies = of_method.filter_map(|call| call.trim_start().split_once(' '));
        bodies.map(|(_, body)| body.replace("\\\"", "\"")).collect()
    }
    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.shared.seen.lock().unwrap().values().sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, config: &Arc<ServerConfig>) {
    for connection in listener.incoming() {
        if shared.end.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { return };
        let (shared, config) = (Arc::clone(shared), Arc::clone(config));
        std::thread::spawn(move || {
            connection.set_nodelay(true).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let tls = ServerConnection::new(config).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(tls, connection));
            // Ends with the connection, or with a client that does not like the certificate.
            while let Some(request) = read_request(&mut stream) {
                let (status, kind, body) = shared.answer(&request);
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let to = stream.get_mut();
                let sent = to.write_all(&[head.as_bytes(), &body].concat());
                if sent.and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
        });
    }
}

/// One HTTP/1.1 request with a body of known length: all that this client sends.
fn read_request(from: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        let len = from.read_line(&mut line).ok()?;
        (len > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(Request { method, target, headers, body })
}

impl Shared {
    fn answer(&self, request: &Request) -> Answer {
        let call = format!("{} {} {}", request.method, request.target, request.body.escape_ascii());
        let times = {
            let mut seen = self.seen.lock().unwrap();
            let times = seen.entry(call).or_default();
            *times += 1;
            *times
        };
        if self.meddle == Meddle::UnavailableTwice && times <= 2 {
            self.meddled.fetch_add(1, Ordering::SeqCst);
            let body = br#"{"error":"try again","message":"try again","code":14}"#;
            return (503, "application/json".to_owned(), body.to_vec());
        }
        if self.meddle == Meddle::Mute && self.is_time() {
            self.meddled.fetch_add(1, Ordering::SeqCst);
            while !self.end.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Nobody waits any more, and nothing may happen on the array now.
            return (503, "text/plain".to_owned(), Vec::new());
        }
        if self.meddle == Meddle::HostileTexts {
            return self.hostile(request);
        }
        let (status, kind, body) = self.forward(request, &request.target);
        if status != 200 || !request.target.contains("/snapshots/diff/") {
            return (status, kind, body);
        }
        let spoilt = self.spoilt(request, &body).filter(|_| self.is_time());
        spoilt.map_or((status, kind.clone(), body), |(status, page)| {
            self.meddled.fetch_add(1, Ordering::SeqCst);
            (status, kind, page.to_string().into_bytes())
        })
    }

    /// Whether the page at hand, which could be spoilt, is to be spoilt.
    fn is_time(&self) -> bool {
        let nth = self.chances.fetch_add(1, Ordering::SeqCst) + 1;
        match self.when {
            When::Always => true,
            When::Only(only) => nth == only,
            When::From(first) => nth >= first,
        }
    }

    fn forward(&self, request: &Request, target: &str) -> Answer {
        let method = request.method.parse().unwrap();
        let mut onward = self.client.request(method, format!("{}{target}", self.upstream));
        for (name, value) in &request.headers {
            if matches!(name.as_str(), "authorization" | "content-type" | "if-match" | "accept") {
                onward = onward.header(name, value);
            }
        }
        let answer = onward.body(request.body.clone()).send().unwrap();
        let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or("text/plain").to_owned();
        (answer.status().as_u16(), kind, answer.bytes().unwrap().to_vec())
    }

    /// What the page would be if it were spoilt; `None` if there is nothing to spoil.
    fn spoilt(&self, request: &Request, body: &[u8]) -> Option<(u16, Value)> {
        let mut page: Value = serde_json::from_slice(body).unwrap();
        let ranges = page["lbaRanges"].as_array_mut().filter(|ranges| !ranges.is_empty());
        match self.meddle {
            Meddle::Nothing | Meddle::UnavailableTwice | Meddle::Mute | Meddle::HostileTexts => {
                return None;
            }
            Meddle::DropRange => drop(ranges?.remove(0)),
            Meddle::FlipBit => {
                let bitmap = &mut ranges?[0]["dataBitMap"];
                let mut bits = STANDARD.decode(bitmap.as_str().unwrap()).unwrap();
                bits[0] ^= 1;
                *bitmap = STANDARD.encode(bits).into();
            }
            Meddle::EndEarly => drop(page.as_object_mut()?.remove("nextOffsetLBA")?),
            Meddle::RepeatPage => page["lbaRanges"] = self.first_page(request)?["lbaRanges"].take(),
            Meddle::IgnoreOffset => page = self.first_page(request)?,
            Meddle::EchoToken => {
                let authorization =
                    request.headers.iter().find(|(name, _)| name == "authorization");
                let text = format!("not with {}", authorization?.1);
                return Some((403, json!({ "error": text, "message": text, "code": 7 })));
            }
        }
        Some((200, page))
    }

    /// The upstream's answer with texts of somebody who means harm.
    fn hostile(&self, request: &Request) -> Answer {
        // Upstream the names are others.
        let (status, kind, body) = self.forward(request, &request.target.replace("Name=twin&", ""));
        let Ok(mut tree) = serde_json::from_slice::<Value>(&body) else {
            return (status, kind, body);
        };
        let authorization = request.headers.iter().find(|(name, _)| name == "authorization");
        let token = authorization.map_or("", |(_, value)| value.trim_start_matches("Bearer "));
        let text = format!("{HOSTILE}{token} {}", token.to_uppercase());
        self.meddled.fetch_add(usize::from(spoil_texts(&mut tree, &text)), Ordering::SeqCst);
        (status, kind, tree.to_string().into_bytes())
    }

    /// The first page of the diff of which a later page is asked for.
    fn first_page(&self, request: &Request) -> Option<Value> {
        let (_, _, body) = self.forward(request, &first_page_target(&request.target)?);
        Some(serde_json::from_slice(&body).unwrap())
    }
}

/// Puts `text` in place of foreign names and error texts; whether there were some.
fn spoil_texts(tree: &mut Value, text: &str) -> bool {
    match tree {
        Value::Array(items) => items.iter_mut().fold(false, |any, it| spoil_texts(it, text) | any),
        Value::Object(fields) => fields.iter_mut().fold(false, |any, (name, value)| {
            let is_text = matches!(name.as_str(), "name" | "error" | "message" | "description");
            match value.as_str() {
                Some(known) if is_text && known.starts_with("twin") => *value = "twin".into(),
                Some(known) if is_text && !known.starts_with("tsync-") => *value = text.into(),
                _ => return spoil_texts(value, text) | any,
            }
            true
        }),
        _ => false,
    }
}

/// The call for the first page, if this one asks for a later page.
fn first_page_target(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let (offset, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with("offsetLBA="));
    let later = offset.first().is_some_and(|pair| *pair != "offsetLBA=0");
    later.then(|| format!("{path}?{}", rest.join("&")))
}
