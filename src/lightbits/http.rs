//! HTTP below the calls: one try, reads with retries and fail-over, and what a status means.
//!
//! The token goes only to the endpoints given: redirects are not followed, proxies of the
//! environment are not used. Answers are read whole, up to [`BODY_MAX`], before anything is
//! decoded. Not covered: repeating writes, which needs a look at what happened (`snapshots.rs`).

use super::auth::Redactor;
use super::retry::{Budget, Limits, Stopped, Timeouts, Tries, parse_retry_after};
use super::tls::tls_cause;
use super::wire::{error_text, is_api_error};
use crate::array::{ApiError, Latency, Pace, Reply, escape_text};
use reqwest::Url;
use reqwest::blocking::{Client, Request, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::header::{LOCATION, RETRY_AFTER};
use std::error::Error;
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// Bytes of one answer at most; a full diff page has less than 1 MiB.
pub(super) const BODY_MAX: u64 = 64 << 20;
/// Characters of server text shown to the user.
const TEXT_MAX: usize = 200;
/// Bytes of a body that is quoted.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// How quickly a call under way notices the stop flag.
const STOP_CHECK: Duration = Duration::from_millis(20);
/// Tries while no endpoint has ever answered: a mistyped address should not take long to report.
const FIRST_CONTACT_TRIES: u32 = 3;

/// The HTTP methods of this client. There is no PUT: nothing can be changed or rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Post,
    Delete,
}

/// One call of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Call {
    pub method: Method,
    /// Segments below `/api/v2/projects/{project}`.
    pub path: Vec<String>,
    pub query: Vec<(&'static str, String)>,
    /// JSON, for a POST.
    pub body: Option<Vec<u8>>,
    /// Whether the array has to compute the answer, which may take long.
    pub slow: bool,
}

impl Call {
    pub(super) fn new(method: Method, path: &[&str]) -> Call {
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        Call { method, path, query: Vec::new(), body: None, slow: false }
    }

    pub(super) fn query(mut self, key: &'static str, value: impl fmt::Display) -> Call {
        self.query.push((key, value.to_string()));
        self
    }
}

impl fmt::Display for Call {
    /// For messages: `GET snapshots/diff/2905..`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        };
        write!(f, "{method} {}", self.path.join("/"))
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
    is_html: bool,
    location: Option<String>,
}

impl Answer {
    /// Whether the call was carried out as asked: the statuses that the API has for it
    /// (`lightbits-api.md`), and no other of the 2xx. 202 has only begun, 203 and 206 are somebody
    /// else's or a part.
    pub(super) fn is_success(&self, method: Method) -> bool {
        match method {
            Method::Get => self.status == 200,
            Method::Post => matches!(self.status, 200 | 201),
            Method::Delete => matches!(self.status, 200 | 202 | 204),
        }
    }
    /// Busy or broken for the moment.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..=599)
    }
    /// An HTML page is some proxy's, whatever its status: no refusal by the array.
    fn is_html(&self) -> bool {
        self.is_html || self.body.trim_ascii_start().starts_with(b"<")
    }
}

/// Why one try gave no whole answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The user asked to stop.
    Stopped,
    /// The server's identity was refused; another try would not help.
    Tls(String),
    /// Provably never sent.
    Unsent(String),
    /// Sent, perhaps, and perhaps carried out.
    Lost(String),
    /// Answered with what this client does not take in.
    Unreadable(String),
}

/// What one try came to.
pub(super) type Tried = Result<Answer, Failure>;

/// The connection to one array: its endpoints, its token, its counters.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    /// Each ends in `/api/v2/projects/{project}`.
    bases: Vec<Url>,
    preferred: AtomicUsize,
    reached: AtomicBool,
    authorization: HeaderValue,
    redactor: Redactor,
    timeouts: Timeouts,
    stop: Arc<AtomicBool>,
    retries: AtomicU64,
    latency: Latency,
    pace: OnceLock<Pace>,
}

impl Http {
    /// # Errors
    /// If the HTTP client cannot be built, in words.
    pub(super) fn new(
        tls: rustls::ClientConfig,
        bases: Vec<Url>,
        authorization: HeaderValue,
        redactor: Redactor,
        timeouts: Timeouts,
        stop: Arc<AtomicBool>,
    ) -> Result<Http, String> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("lbaudit/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(timeouts.connect)
            .timeout(None)
            .build()
            .map_err(|e| root_cause(&e))?;
        Ok(Http {
            client,
            bases,
            preferred: AtomicUsize::new(0),
            reached: AtomicBool::new(false),
            authorization,
            redactor,
            timeouts,
            stop,
            retries: AtomicU64::new(0),
            latency: Latency::default(),
            pace: OnceLock::new(),
        })
    }

    pub(super) fn budget(&self) -> Budget<'_> {
        Budget::start(&self.timeouts, &self.stop)
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Holds every later try to a pace; the first one counts.
    pub(super) fn keep_pace(&self, pace: Pace) {
        let _kept_already = self.pace.set(pace);
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Asks until there is a good answer or a final one, on all endpoints in turn.
    pub(super) fn read(&self, call: &Call, budget: &Budget<'_>) -> Result<Answer, ApiError> {
        let mut tries = Tries::new(Limits::READ);
        loop {
            let tried = self.try_once(call, budget, &mut tries);
            let again = match &tried {
                Ok(answer) => answer.is_transient(),
                Err(failure) => matches!(failure, Failure::Unsent(_) | Failure::Lost(_)),
            };
            if !again || !self.wait(budget, &tries, &tried)? {
                return self.conclude(call, tried, &tries);
            }
        }
    }

    /// Sends `call` once, to the endpoint that worked last.
    pub(super) fn try_once(&self, call: &Call, budget: &Budget<'_>, tries: &mut Tries) -> Tried {
        tries.begin();
        let limit = if call.slow { self.timeouts.diff } else { self.timeouts.call };
        let at = self.preferred.load(Ordering::Relaxed);
        let base = self
            .bases
            .get(at % self.bases.len().max(1))
            .ok_or_else(|| Failure::Unsent("there is no endpoint".to_owned()))?;
        let request = self.request(call, base, limit.min(budget.left()))?;
        if let Some(pace) = self.pace.get() {
            pace.wait(1, &self.stop);
        }
        let sent = Instant::now();
        let tried = self.send(request, budget).map_err(|failure| failure.at(base));
        if tried.is_ok() {
            self.latency.add(sent.elapsed());
        }
        match &tried {
            Ok(answer) => {
                self.reached.store(true, Ordering::Relaxed);
                if answer.is_transient() {
                    self.prefer_other(at);
                }
            }
            Err(Failure::Unsent(_) | Failure::Lost(_)) => self.prefer_other(at),
            Err(Failure::Stopped | Failure::Tls(_) | Failure::Unreadable(_)) => {}
        }
        tried
    }

    /// Endpoints are equivalent; another thread may have moved on already.
    fn prefer_other(&self, at: usize) {
        let next = at.wrapping_add(1);
        let _moved_on =
            self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Waits before the next try; `false` when there may be none. Counts the retry.
    pub(super) fn wait(
        &self,
        budget: &Budget<'_>,
        tries: &Tries,
        last: &Tried,
    ) -> Result<bool, ApiError> {
        let contact_tries =
            FIRST_CONTACT_TRIES.saturating_mul(u32::try_from(self.bases.len()).unwrap_or(1));
        if !self.reached.load(Ordering::Relaxed) && tries.done() >= contact_tries {
            return Ok(false);
        }
        let asked = last.as_ref().ok().and_then(|answer| answer.retry_after);
        let again = tries.next(budget, asked).map_err(|Stopped| ApiError::Interrupted)?;
        if again {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
        Ok(again)
    }

    fn request(&self, call: &Call, base: &Url, limit: Duration) -> Result<Request, Failure> {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut request = self
            .client
            .request(method, url)
            .header(AUTHORIZATION, self.authorization.clone())
            .timeout(limit.max(Duration::from_millis(1)));
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        request.build().map_err(|e| Failure::Unsent(root_cause(&e)))
    }

    /// Sends in a thread of its own, so that a stop need not wait for a server that is silent. An
    /// abandoned thread ends with the request's own timeout.
    fn send(&self, request: Request, budget: &Budget<'_>) -> Tried {
        let (answered, answers) = sync_channel(1);
        let client = self.client.clone();
        let hard_end = request.timeout().map(|limit| Instant::now() + *limit + STOP_CHECK * 50);
        let send = move || {
            // Nobody listens any more after a stop.
            let _abandoned = answered.send(send_and_read(&client, request));
        };
        let thread = std::thread::Builder::new().name("lightbits-call".to_owned()).spawn(send);
        let thread = thread.map_err(|e| Failure::Unsent(format!("cannot start a thread: {e}")))?;
        loop {
            match answers.recv_timeout(STOP_CHECK) {
                Ok(tried) => {
                    let _ended = thread.join();
                    return tried;
                }
                Err(RecvTimeoutError::Timeout) if budget.stopped() => return Err(Failure::Stopped),
                Err(RecvTimeoutError::Timeout)
                    if hard_end.is_some_and(|end| Instant::now() > end) =>
                {
                    return Err(Failure::Lost("no whole answer in time".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match thread.join() {
                    // A bug of ours must not be taken for the network's.
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => {
                        return Err(Failure::Lost("the sending thread broke off".to_owned()));
                    }
                },
            }
        }
    }

    /// The final meaning of the last try.
    pub(super) fn conclude(
        &self,
        call: &Call,
        tried: Tried,
        tries: &Tries,
    ) -> Result<Answer, ApiError> {
        let transport = |cause: &str| ApiError::Transport {
            call: call.to_string(),
            cause: self.shown(cause),
            tries: tries.done(),
        };
        match tried {
            Ok(answer) if answer.is_success(call.method) => Ok(answer),
            Ok(answer) if (200..300).contains(&answer.status) => Err(self
                .malformed(call, &format!("status {}, which is no whole answer", answer.status))),
            Ok(answer) => Err(self.refusal(call, &answer, tries.done())),
            Err(Failure::Stopped) => Err(ApiError::Interrupted),
            Err(Failure::Tls(cause)) => Err(ApiError::Tls(self.redactor.redact(&cause))),
            Err(Failure::Unsent(cause) | Failure::Lost(cause)) => Err(transport(&cause)),
            Err(Failure::Unreadable(what)) => Err(self.malformed(call, &what)),
        }
    }

    /// What an unsuccessful status means.
    fn refusal(&self, call: &Call, answer: &Answer, tries: u32) -> ApiError {
        let reply = || self.reply(call, answer);
        let status = answer.status;
        match status {
            404 if is_api_error(&answer.body) => ApiError::NotFound(reply()),
            404 | 405 => ApiError::NoSuchCall(reply()),
            401 | 403 => ApiError::Auth(reply()),
            _ if answer.is_transient() => ApiError::Server(reply(), tries),
            400 | 409 | 412 | 422 if answer.is_html() => self.malformed(
                call,
                &format!("status {status} with an HTML page, which is not the array's own answer"),
            ),
            400 | 422 if !is_api_error(&answer.body) => self.malformed(
                call,
                &format!(
                    "status {status} with what is not the array's own error: {}",
                    error_words(answer)
                ),
            ),
            400 | 422 => ApiError::Refused(reply()),
            409 | 412 => ApiError::Conflict(reply()),
            300..400 => self.malformed(
                call,
                &format!(
                    "status {status} points to {}; redirects are not followed, because the token \
                     belongs to the endpoint given",
                    answer.location.as_deref().unwrap_or("nowhere")
                ),
            ),
            _ => self.malformed(
                call,
                &format!("status {status}, which the API does not use: {}", error_words(answer)),
            ),
        }
    }

    fn reply(&self, call: &Call, answer: &Answer) -> Reply {
        let text = match error_words(answer) {
            words if words.is_empty() => "no reason given".to_owned(),
            words => words,
        };
        Reply { status: Some(answer.status), text: self.shown(&text), call: call.to_string() }
    }

    pub(super) fn malformed(&self, call: &Call, what: &str) -> ApiError {
        ApiError::Malformed { call: call.to_string(), what: self.shown(what) }
    }

    /// An answer that cannot be read. Its text is not quoted if the token stands in it: a quotation
    /// may cut the token so that redaction would miss it.
    pub(super) fn unreadable(&self, call: &Call, body: &[u8], what: &str) -> ApiError {
        if self.redactor.is_in(&String::from_utf8_lossy(body)) {
            return self.malformed(call, "it repeats the token, so it is not quoted here");
        }
        self.malformed(call, what)
    }

    /// Foreign text, safe to show: without the token, escaped, cut.
    fn shown(&self, text: &str) -> String {
        escape_text(&self.redactor.redact(text), TEXT_MAX)
    }
}

impl Failure {
    /// Names the endpoint; with several, the user must know which one is meant.
    fn at(self, base: &Url) -> Failure {
        let place = base.origin().ascii_serialization();
        match self {
            Failure::Unsent(cause) => Failure::Unsent(format!("{place}: {cause}")),
            Failure::Lost(cause) => Failure::Lost(format!("{place}: {cause}")),
            Failure::Tls(cause) => Failure::Tls(format!("{place}: {cause}")),
            other => other,
        }
    }
}

/// The server's words. A long body is not quoted in part: a cut could hide a token from redaction.
fn error_words(answer: &Answer) -> String {
    match answer.body.len() {
        0..=TEXT_BYTES_MAX => error_text(&answer.body),
        long => format!("an answer of {long} bytes"),
    }
}

fn send_and_read(client: &Client, request: Request) -> Tried {
    let response = client.execute(request).map_err(failure)?;
    let headers = response.headers();
    let coded = header(headers, CONTENT_ENCODING).filter(|coding| coding != "identity");
    if let Some(coding) = coded {
        return Err(Failure::Unreadable(format!("encoded as {coding}, which was not asked for")));
    }
    let retry_after =
        header(headers, RETRY_AFTER).and_then(|value| parse_retry_after(&value, SystemTime::now()));
    let is_html = header(headers, CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let location = header(headers, LOCATION);
    let status = response.status().as_u16();
    let body = read_body(response)?;
    Ok(Answer { status, body, retry_after, is_html, location })
}

fn header(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn read_body(response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    response
        .take(BODY_MAX + 1)
        .read_to_end(&mut body)
        .map_err(|e| Failure::Lost(format!("the answer broke off: {}", root_cause(&e))))?;
    if body.len() as u64 > BODY_MAX {
        return Err(Failure::Unreadable(format!("more than {} MiB", BODY_MAX >> 20)));
    }
    Ok(body)
}

fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    if let Some(cause) = tls_cause(&error) {
        return Failure::Tls(cause);
    }
    if error.is_connect() {
        let cause = if error.is_timeout() { "timed out".to_owned() } else { root_cause(&error) };
        return Failure::Unsent(format!("cannot connect: {cause}"));
    }
    if error.is_timeout() {
        return Failure::Lost("no whole answer in time".to_owned());
    }
    if error.is_builder() {
        return Failure::Unsent(root_cause(&error));
    }
    Failure::Lost(root_cause(&error))
}

/// The deepest cause, which says what really happened.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    loop {
        let wrapped = deepest.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        match wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| deepest.source())
        {
            Some(cause) => deepest = cause,
            None => return deepest.to_string(),
        }
    }
}
