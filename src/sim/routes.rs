//! From a request to an answer: paths, tokens, permissions, queries, status codes.
//!
//! Follows the vendor's gateway (`lightbits-api.md` sections 1, 2 and 5): what is not routed answers
//! plain text; unknown query keys are ignored, known ones are case-sensitive and a bad value is 400;
//! a trailing slash is an empty last segment, which is how objects are fetched by name. The calls
//! themselves are in [`super::calls`], what goes wrong on the way in [`super::hostile`]. Not covered:
//! HTTP and TLS ([`super::server`]).

use super::hostile::{Carried, FaultSpec, MetFault, Script};
use super::jwt::{Access, TokenKey, now_unix_s};
use super::notes::Notes;
use super::wire::{Cluster, Profile, error_json};
use super::{SimArray, SimError, legal};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// HTTP method.
    pub(super) method: &'a str,
    /// Path as sent, percent-encoded.
    pub(super) path: &'a str,
    /// Query as sent, without the question mark.
    pub(super) query: &'a str,
    /// The `Authorization` header.
    pub(super) authorization: Option<&'a str>,
    /// The `If-Match` header.
    pub(super) if_match: Option<&'a str>,
    /// The body.
    pub(super) body: &'a [u8],
}

/// What it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// Type of the body.
    pub(super) content_type: &'static str,
    /// The body.
    pub(super) body: String,
}

impl Reply {
    fn json(status: u16, body: String) -> Reply {
        Reply { status, content_type: "application/json", body }
    }
    /// The answer to a call that has nothing to say.
    pub(super) fn nothing() -> Reply {
        Reply::json(200, "{}".to_owned())
    }
    fn plain(status: u16, body: &str) -> Reply {
        Reply { status, content_type: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }
    /// An error in the gateway's form, with the gRPC number that goes with the HTTP status.
    pub(super) fn error(status: u16, message: &str) -> Reply {
        let code = match status {
            400 => 3,
            401 => 16,
            403 => 7,
            404 => 5,
            408 => 4,
            409 => 6,
            412 => 9,
            413 | 429 => 8,
            501 => 12,
            503 => 14,
            _ => 13,
        };
        Reply::json(status, error_json(message, code))
    }
}

/// Why a call is not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }
    pub(super) fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(400, message)
    }
    pub(super) fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(404, message)
    }
}

impl From<SimError> for Refusal {
    fn from(error: SimError) -> Refusal {
        Refusal::new(error.http_status(), error.to_string())
    }
}

/// A call of the API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// The API's version.
    Version,
    /// The cluster, for its administrator.
    Cluster,
    /// The cluster, for its tenants.
    ClusterInfo,
    /// All volumes of the project.
    ListVolumes,
    /// One volume.
    GetVolume,
    /// A new volume or a clone.
    CreateVolume,
    /// Size, access or labels of a volume.
    UpdateVolume,
    /// The end of a volume.
    DeleteVolume,
    /// A volume back to one of its snapshots.
    Rollback,
    /// All snapshots of the project.
    ListSnapshots,
    /// One snapshot.
    GetSnapshot,
    /// A new snapshot.
    CreateSnapshot,
    /// The end of a snapshot.
    DeleteSnapshot,
    /// A page of a diff.
    Diff,
}

impl Call {
    /// All of them.
    pub const ALL: &[Call] = &[
        Call::Version,
        Call::Cluster,
        Call::ClusterInfo,
        Call::ListVolumes,
        Call::GetVolume,
        Call::CreateVolume,
        Call::UpdateVolume,
        Call::DeleteVolume,
        Call::Rollback,
        Call::ListSnapshots,
        Call::GetSnapshot,
        Call::CreateSnapshot,
        Call::DeleteSnapshot,
        Call::Diff,
    ];

    /// The stable name, as in the script of a misbehaving server.
    pub const fn name(self) -> &'static str {
        match self {
            Call::Version => "version",
            Call::Cluster => "cluster",
            Call::ClusterInfo => "cluster-info",
            Call::ListVolumes => "list-volumes",
            Call::GetVolume => "get-volume",
            Call::CreateVolume => "create-volume",
            Call::UpdateVolume => "update-volume",
            Call::DeleteVolume => "delete-volume",
            Call::Rollback => "rollback",
            Call::ListSnapshots => "list-snapshots",
            Call::GetSnapshot => "get-snapshot",
            Call::CreateSnapshot => "create-snapshot",
            Call::DeleteSnapshot => "delete-snapshot",
            Call::Diff => "diff",
        }
    }
}

/// Every route below `/api/v2/`; a segment in braces matches anything, also nothing.
const ROUTES: &[(&str, &str, Call)] = &[
    ("GET", "version", Call::Version),
    ("GET", "cluster", Call::Cluster),
    ("GET", "clusterinfo", Call::ClusterInfo),
    ("GET", "volumes", Call::ListVolumes),
    ("POST", "volumes", Call::CreateVolume),
    ("GET", "volumes/{uuid}", Call::GetVolume),
    ("GET", "projects/{project}/volumes", Call::ListVolumes),
    ("POST", "projects/{project}/volumes", Call::CreateVolume),
    ("GET", "projects/{project}/volumes/{uuid}", Call::GetVolume),
    ("PUT", "projects/{project}/volumes/{uuid}", Call::UpdateVolume),
    ("DELETE", "projects/{project}/volumes/{uuid}", Call::DeleteVolume),
    ("PUT", "projects/{project}/volumes/{uuid}/rollback", Call::Rollback),
    ("GET", "projects/{project}/snapshots", Call::ListSnapshots),
    ("POST", "projects/{project}/snapshots", Call::CreateSnapshot),
    ("GET", "projects/{project}/snapshots/{uuid}", Call::GetSnapshot),
    ("DELETE", "projects/{project}/snapshots/{uuid}", Call::DeleteSnapshot),
    ("GET", "projects/{project}/snapshots/diff/{uuid}", Call::Diff),
];

/// What the braces of a route matched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Captured {
    pub(super) project: Option<String>,
    pub(super) uuid: String,
}

/// What a path leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Routed {
    To(Call, Captured),
    OtherMethod,
    Nowhere,
}

fn route(method: &str, path: &str) -> Routed {
    let Some(path) = path.strip_prefix("/api/v2/") else {
        return Routed::Nowhere;
    };
    let mut found = Routed::Nowhere;
    for (route_method, pattern, call) in ROUTES {
        let Some(captured) = capture(pattern, path) else {
            continue;
        };
        if *route_method == method {
            return Routed::To(*call, captured);
        }
        found = Routed::OtherMethod;
    }
    found
}

fn capture(pattern: &str, path: &str) -> Option<Captured> {
    let mut captured = Captured::default();
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        let segment = segments.next()?;
        match part {
            "{project}" => captured.project = Some(segment.to_owned()),
            "{uuid}" => segment.clone_into(&mut captured.uuid),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(captured)
}

/// The keys and values after the question mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Query, Refusal> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| percent_decode(&text.replace('+', " "));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(Refusal::bad("invalid percent-encoding in the query"));
            };
            pairs.push((key, value));
        }
        Ok(Query(pairs))
    }
    /// The first value of `key`, if it is there and not empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.raw(key).filter(|value| !value.is_empty())
    }
    /// A number; an empty value is a bad one, as for the vendor's gateway.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let parse = |value: &str| {
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let number = digits.then(|| value.parse().ok()).flatten();
            number.ok_or_else(|| Refusal::bad(format!("invalid value {value:?} for {key}")))
        };
        self.raw(key).map(parse).transpose()
    }
    /// A boolean in the spellings of the gateway.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Refusal> {
        match self.raw(key) {
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => Err(Refusal::bad(format!("invalid value {other:?} for {key}"))),
        }
    }
    /// An identity.
    pub(super) fn uuid<T: FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        self.text(key).map(parse_uuid).transpose()
    }
    fn raw(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// An identity in its usual spelling of 36 characters.
pub(super) fn parse_uuid<T: FromStr>(text: &str) -> Result<T, Refusal> {
    // `Uuid` also reads spellings with braces or without hyphens; the API does not.
    let usual = text.len() == uuid::fmt::Hyphenated::LENGTH && Uuid::from_str(text).is_ok();
    let parsed = if usual { text.parse().ok() } else { None };
    parsed.ok_or_else(|| Refusal::bad(format!("invalid UUID {text:?}")))
}

/// Whether `text` is a name the API takes: 1 to 253 of letters, digits, `-`, `_` and `.`.
pub(super) fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(legal)
}

/// Undoes percent-encoding; `None` if it is broken or not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            other => other,
        };
        out.push(byte);
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The management API of one array.
pub(super) struct Api {
    pub(super) array: SimArray,
    pub(super) project: String,
    profile: Profile,
    /// Calls answered so far, for the freedoms that are drawn by call.
    calls: AtomicU64,
    pub(super) cluster: Cluster,
    /// The one node.
    pub(super) node: String,
    /// Unix time at which the array's clock read zero.
    pub(super) clock_zero: Duration,
    pub(super) notes: Mutex<Notes>,
    key: Arc<TokenKey>,
    /// What goes wrong on the way.
    script: Script,
}

impl Api {
    /// The API of `array`, found at `addr`.
    pub(super) fn new(
        array: SimArray,
        key: Arc<TokenKey>,
        project: String,
        profile: Profile,
        addr: SocketAddr,
        faults: &[FaultSpec],
    ) -> Api {
        let cluster = Cluster {
            uuid: Uuid::new_v4().to_string(),
            subsystem_nqn: format!("nqn.2016-01.com.lightbitslabs:uuid:{}", Uuid::new_v4()),
            api_endpoints: vec![addr.to_string()],
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock_zero = now.saturating_sub(array.clock().now());
        Api {
            array,
            project,
            profile,
            calls: AtomicU64::new(0),
            cluster,
            node: Uuid::new_v4().to_string(),
            clock_zero,
            notes: Mutex::new(Notes::default()),
            key,
            script: Script::new(faults),
        }
    }

    /// The API of another array at the same address, with faults of its own: its calls are counted
    /// anew, and the tokens stay good.
    pub(super) fn of_another(
        &self,
        array: SimArray,
        addr: SocketAddr,
        faults: &[FaultSpec],
    ) -> Api {
        let key = Arc::clone(&self.key);
        Api::new(array, key, self.project.clone(), self.profile, addr, faults)
    }

    /// Faults that happened so far, in order.
    pub(super) fn met(&self) -> Vec<MetFault> {
        self.script.met()
    }

    /// The key of its tokens.
    pub(super) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// How the answer at hand is written.
    pub(super) fn profile(&self) -> Profile {
        let freedoms = &self.array.config().freedoms;
        if !freedoms.omitted_zeros {
            return self.profile;
        }
        let call = self.calls.load(Ordering::Relaxed);
        if legal::omits_zeros(freedoms, call) { Profile::A } else { Profile::B }
    }

    /// Counts a call; the status it is refused with this once, if it is. Only calls that may be
    /// asked again are.
    fn refused_once(&self, call: Call, method: &str) -> Option<u16> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let collides = matches!(call, Call::CreateSnapshot | Call::DeleteSnapshot);
        let repeatable = collides || method == "GET";
        let status = legal::refusal(&self.array.config().freedoms, number, collides);
        status.filter(|_| repeatable)
    }

    /// Answers one request as the script of faults has it.
    pub(super) fn carry(&self, request: &Request<'_>) -> Carried {
        let path = percent_decode(request.path);
        match path.map(|path| route(request.method, &path)) {
            Some(Routed::To(call, captured)) => self.script.play(self, call, &captured, request),
            _ => Carried::Answer(self.answer(request).into()),
        }
    }

    /// Answers one request honestly.
    pub(super) fn answer(&self, request: &Request<'_>) -> Reply {
        let Some(path) = percent_decode(request.path) else {
            return Reply::plain(400, "Bad Request");
        };
        match route(request.method, &path) {
            Routed::Nowhere => Reply::plain(404, "Not Found"),
            Routed::OtherMethod => Reply::plain(405, "Method Not Allowed"),
            Routed::To(call, captured) => match self.call(call, &captured, request) {
                Ok(body) => Reply::json(200, body),
                Err(refusal) => Reply::error(refusal.status, &refusal.message),
            },
        }
    }

    fn call(
        &self,
        call: Call,
        captured: &Captured,
        request: &Request<'_>,
    ) -> Result<String, Refusal> {
        let token = request.authorization.and_then(bearer);
        let token = token.ok_or_else(|| Refusal::new(401, "bearer token is missing"))?;
        let claims = self.key.verify(token, now_unix_s());
        let claims = claims.map_err(|error| Refusal::new(401, error.to_string()))?;
        if let Some(status) = self.refused_once(call, request.method) {
            return Err(Refusal::new(status, "try again"));
        }

        let query = Query::parse(request.query)?;
        let denied = || Refusal::new(403, "permission denied");
        match call {
            // Any tenant may ask these.
            Call::Version | Call::ClusterInfo => {}
            Call::Cluster if claims.is_cluster_admin() => {}
            Call::Cluster => return Err(denied()),
            _ => {
                let project = self.project_of(call, captured, &query, request)?;
                let access = if request.method == "GET" { Access::Read } else { Access::Write };
                // A project that does not exist is nobody's, and is not told apart.
                if project != self.project || !claims.allow(&project, access) {
                    return Err(denied());
                }
            }
        }
        self.run(call, &captured.uuid, &query, request)
    }

    /// The project a call is about: in the path, or on the routes without one, in query or body.
    fn project_of(
        &self,
        call: Call,
        captured: &Captured,
        query: &Query,
        request: &Request<'_>,
    ) -> Result<String, Refusal> {
        if let Some(project) = &captured.project {
            return Ok(project.clone());
        }
        if call == Call::CreateVolume {
            let body: super::wire::CreateVolume = parse_body(request.body)?;
            return Ok(body.project_name.map(|name| name.0).unwrap_or_default());
        }
        Ok(query.text("projectName").unwrap_or_default().to_owned())
    }
}

/// The token of an `Authorization` header. The scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A request body; none at all is an empty object.
pub(super) fn parse_body<T: for<'de> serde::Deserialize<'de> + Default>(
    body: &[u8],
) -> Result<T, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("invalid body: {error}")))
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
