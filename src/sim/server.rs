//! The simulator behind HTTPS: sockets, TLS, HTTP/1.1 and their limits.
//!
//! Listens on loopback only. Every accepted socket has TCP_NODELAY: the answers are small, and a
//! delayed acknowledgement would cost 40 ms each. What is answered is `super::routes`; this file
//! only carries it, or lets it break as the script of faults (`super::hostile`) says. Not covered:
//! HTTP/2.

use super::SimArray;
use super::hostile::{Answer, Carried, Delivery, FaultSpec, MetFault, Socket, Stream};
use super::jwt::{Claims, KeyError, LIFETIME_S, TokenKey};
use super::routes::{Api, Reply, Request};
use super::tls::{Identity, TlsError};
use super::wire::Profile;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Connections served at once; further ones wait.
const CONNECTIONS_MAX: usize = 256;
/// Longest request body, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;
/// Longest request head, in bytes.
const HEAD_MAX_BYTES: usize = 32 << 10;
const HEADERS_MAX: usize = 64;
/// A connection that takes longer over its handshake or a request body is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// A kept-alive connection may be idle this long: a test copies for minutes between two calls.
const IDLE: Duration = Duration::from_secs(600);
/// How long a server refuses connections after a fault that happens once.
const REFUSES_FOR: Duration = Duration::from_millis(30);
/// How long [`RunningServer::stop`] waits for answers under way.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// How the simulator is served.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 asks for a free one. Loopback only.
    pub listen: SocketAddr,
    /// The one project there is.
    pub project: String,
    /// How JSON is written.
    pub profile: Profile,
    /// What goes wrong on the wire; faults of the data plane are the caller's to arm.
    pub faults: Vec<FaultSpec>,
}

impl Default for ServerConfig {
    /// A free port of 127.0.0.1, project `default`, zeros left out.
    fn default() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            project: "default".to_owned(),
            profile: Profile::A,
            faults: Vec::new(),
        }
    }
}

/// The server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can be reached from other machines.
    #[error("the simulator listens on loopback only, not on {0}; use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The project's name cannot stand in a path.
    #[error("`{0}` is not a project name; use letters, digits, `-`, `_` and `.`")]
    Project(String),
    /// The system did not give the address or threads.
    #[error("cannot serve the simulator on {addr}: {source}")]
    Io {
        /// Where it was to listen.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No token.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A server that runs until it is stopped or dropped.
pub struct RunningServer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// SHA-256 of its certificate, 64 hexadecimal digits: what `--pin-sha256` takes.
    pub pin_sha256: String,
    /// The authority of its certificate, PEM: what `--ca-file` takes. Not enough by itself, because
    /// the certificate names no host, as in the field.
    pub ca_pem: String,
    /// A token of the project's administrator, valid for 30 days. Secret.
    pub token: String,
    api: Arc<Front>,
    runtime: Option<Runtime>,
}

/// What connections are served by, and the task that accepts them.
struct Front {
    addr: SocketAddr,
    tls: TlsAcceptor,
    /// The API that requests are answered by at the moment.
    api: RwLock<Arc<Api>>,
    /// None while connections are refused.
    gate: Mutex<Option<JoinHandle<()>>>,
}

impl Front {
    fn now(&self) -> Arc<Api> {
        Arc::clone(&self.api.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens, if it does not; inside the runtime.
    fn open(self: &Arc<Front>, listener: Option<TcpListener>) -> io::Result<()> {
        let mut gate = self.gate();
        if gate.is_some() {
            return Ok(());
        }
        let listener = match listener {
            Some(listener) => listener,
            None => listen(self.addr)?,
        };
        *gate = Some(tokio::spawn(accept(listener, Arc::clone(self))));
        Ok(())
    }

    /// Listens no more, for a moment or for ever.
    async fn refuse(self: Arc<Front>, for_ever: bool) {
        let Some(gate) = self.gate().take() else { return };
        gate.abort();
        // Once it has ended the socket is closed, and the system refuses for us.
        let _aborted = gate.await;
        if for_ever {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(REFUSES_FOR).await;
            // Somebody may have taken the port meanwhile.
            while self.open(None).is_err() {
                tokio::time::sleep(REFUSES_FOR).await;
            }
        });
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = StdListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl fmt::Debug for RunningServer {
    /// Where it is; never its token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl RunningServer {
    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// A token with other claims, signed by this server's key: expired, of another project, ...
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn mint(&self, claims: &Claims) -> Result<String, KeyError> {
        self.api.now().key().mint(claims)
    }

    /// Serves another array from the next request on, under the same address, certificate and
    /// token, and with these faults.
    ///
    /// # Errors
    /// If it refused connections and cannot listen again.
    pub fn serve_instead(&self, array: SimArray, faults: &[FaultSpec]) -> io::Result<()> {
        let next = Arc::new(self.api.now().of_another(array, self.addr, faults));
        *self.api.api.write().unwrap_or_else(PoisonError::into_inner) = next;
        match self.runtime.as_ref().map(Runtime::handle) {
            Some(runtime) => reopen(runtime, &self.api),
            None => Ok(()),
        }
    }

    /// Faults that happened since it serves this array, in order.
    pub fn faults_met(&self) -> Vec<MetFault> {
        self.api.now().met()
    }

    /// Ends it, waiting a little for answers under way.
    pub fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_WAIT);
        }
    }
}

fn reopen(runtime: &Handle, front: &Arc<Front>) -> io::Result<()> {
    let _inside = runtime.enter();
    front.open(None)
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The only way that neither blocks nor panics wherever the drop happens.
            runtime.shutdown_background();
        }
    }
}

/// Serves `array` on threads of its own and answers when connections are accepted.
///
/// # Errors
/// [`ServeError`] says what could not be had.
pub fn start(array: SimArray, config: ServerConfig) -> Result<RunningServer, ServeError> {
    if !config.listen.ip().is_loopback() {
        return Err(ServeError::NotLoopback(config.listen));
    }
    if !super::routes::is_name(&config.project) {
        return Err(ServeError::Project(config.project));
    }
    let io_error = |source| ServeError::Io { addr: config.listen, source };
    let identity = Identity::generate()?;
    let key = TokenKey::generate()?;
    let token = key.mint(&Claims::admin(&config.project, LIFETIME_S))?;
    let listener = StdListener::bind(config.listen).map_err(io_error)?;
    listener.set_nonblocking(true).map_err(io_error)?;
    let addr = listener.local_addr().map_err(io_error)?;
    let (project, profile) = (config.project, config.profile);
    let api = Api::new(array, Arc::new(key), project, profile, addr, &config.faults);
    let api = Arc::new(Front {
        addr,
        tls: TlsAcceptor::from(identity.server),
        api: RwLock::new(Arc::new(api)),
        gate: Mutex::new(None),
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sim-https")
        .enable_all()
        .build()
        .map_err(io_error)?;
    {
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(listener).map_err(io_error)?;
        api.open(Some(listener)).map_err(io_error)?;
    }
    Ok(RunningServer {
        addr,
        pin_sha256: identity.pin_sha256,
        ca_pem: identity.ca_pem,
        token,
        api,
        runtime: Some(runtime),
    })
}

/// Takes connections until it is aborted or the runtime ends.
async fn accept(listener: TcpListener, api: Arc<Front>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((socket, _)) = listener.accept().await else {
            // Out of descriptors, most likely: let some connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            serve_connection(socket, api).await;
            drop(place);
        });
    }
}

/// Serves one connection to its end. Whatever goes wrong on it concerns that client alone.
async fn serve_connection(socket: TcpStream, api: Arc<Front>) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket::new(socket, Arc::clone(&reset));
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, api.tls.accept(socket)).await else {
        return;
    };
    let service = service_fn(move |request| {
        let (api, reset) = (Arc::clone(&api), Arc::clone(&reset));
        async move { answer(api, &reset, request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // An error here is a client that went away or broke the protocol, or a fault that we play.
    let _ = connection.await;
}

/// A fault ends the connection instead of answering.
#[derive(Debug, thiserror::Error)]
#[error("a fault ends the connection")]
struct HungUp;

/// Reads the body, has the API answer, and dresses the answer up as HTTP.
async fn answer(
    front: Arc<Front>,
    reset: &AtomicBool,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Stream>, HungUp> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX_BYTES).collect();
    let carried = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => front.now().carry(&Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            authorization: text_header(&head.headers, &header::AUTHORIZATION),
            if_match: text_header(&head.headers, &header::IF_MATCH),
            body: &body.to_bytes(),
        }),
        Ok(Err(_)) => {
            Carried::Answer(Reply::error(413, "request body is broken or longer than 1 MiB").into())
        }
        Err(_) => Carried::Answer(Reply::error(408, "request body did not arrive in time").into()),
    };
    match carried {
        Carried::Answer(answer) => {
            if answer.delivery == Delivery::Reset {
                reset.store(true, Ordering::Relaxed);
            }
            Ok(respond(answer))
        }
        Carried::HangUp => Err(HungUp),
        Carried::Refuse { for_ever } => {
            front.refuse(for_ever).await;
            Err(HungUp)
        }
        // The client goes away some day, and this with it.
        Carried::Silent => std::future::pending().await,
    }
}

fn respond(answer: Answer) -> hyper::Response<Stream> {
    // Every status of the API is a valid one; anything else would be an error of the simulator.
    let status = hyper::StatusCode::from_u16(answer.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let mut extra = HeaderMap::new();
    extra.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in &answer.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            extra.insert(HeaderName::from_static(name), value);
        }
    }
    let mut response = hyper::Response::new(answer.into_stream());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(extra);
    if status == hyper::StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if matches!(status.as_u16(), 408 | 413) {
        // The rest of the body was not read, so the connection cannot be used again.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A header as text; one that is not text counts as absent.
fn text_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
