//! The client: set-up, the calls, and its face as an [`Array`].
//!
//! It can read volumes, make, look at and delete snapshots, and fetch diff pages; `super::clones` can
//! make a volume of a snapshot and delete such a one. Nothing else exists in it: no rollback, resize
//! or update, and no other volume is made or deleted. Not covered: how a call
//! is sent (`super::http`), repeated (`super::retry`) and decoded (`super::wire`).

use super::auth::{Redactor, Token, TokenError};
use super::diff::decode_diff_page;
use super::foreign::Foreign;
use super::http::{Answer, Call, Http, Method};
use super::retry::{Budget, Timeouts};
use super::tls::{TlsConfig, TlsSetupError, client_config};
use super::{snapshots, wire};
use crate::array::{ApiError, Array, Latency, Pace, SnapshotInfo, VolumeInfo, escape_text};
use crate::block::{
    BitmapOrder, Capabilities, DiscardEffect, Durability, Lba, LbaCount, Page, RollbackKind,
    SnapshotName, SnapshotUuid, VolumeUuid,
};
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Items of a listing page, the server's default and maximum (`lightbits-api.md` section 2).
const LIST_LIMIT: usize = 1000;
/// Items of a whole listing that this client takes: bounds its memory.
const LIST_MAX: usize = 1 << 20;
/// Bytes of a whole listing that this client takes, over all its pages.
const LIST_BYTES_MAX: usize = 256 << 20;
/// Snapshot sizes remembered at most.
const SIZES_MAX: usize = 4096;
/// Ranges of a diff page at most (section 3).
const PAGE_LIMIT: u32 = 10_000;

/// How to reach an array and as whom.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Equivalent endpoints, for example `https://10.0.0.1:443`; plain http only to loopback.
    pub endpoints: Vec<String>,
    /// The project of the volumes.
    pub project: String,
    /// Who asks.
    pub token: Token,
    /// Whom to believe to be the array.
    pub tls: TlsConfig,
    /// Order of the bytes of a bitmap.
    pub bitmap_order: BitmapOrder,
    /// How long calls may take.
    pub timeouts: Timeouts,
    /// Set when the user asks to stop: ends calls under way, see [`LightbitsClient`].
    pub stop: Arc<AtomicBool>,
}

/// Why a client could not be set up. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint at all.
    #[error("no endpoint; give --endpoint https://HOST[:PORT]")]
    NoEndpoint,
    /// An endpoint that cannot be used.
    #[error("endpoint `{endpoint}` {why}; it should look like https://HOST[:PORT]")]
    BadEndpoint {
        /// The endpoint, escaped.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A project name that cannot stand in a path.
    #[error("`{0}` cannot be the name of a project; check --project")]
    BadProject(String),
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// The HTTP client cannot be built.
    #[error("cannot set up the HTTP client: {0}")]
    Http(String),
}

/// A client of one project of one array.
///
/// When the stop flag is set, a call under way ends with [`ApiError::Interrupted`], whether it waits
/// for an answer or for the next try. A call *begun* after that is clean-up: it runs, but with all
/// its tries it takes no longer than [`Timeouts::closing`].
#[derive(Debug)]
pub struct LightbitsClient {
    http: Http,
    project: String,
    order: BitmapOrder,
    /// Sizes of snapshots seen, to tell a range cut at the end of the volume from a wrong one.
    sizes: Mutex<HashMap<SnapshotUuid, LbaCount>>,
    /// Bytes of a whole listing that it takes.
    pub(super) list_bytes_max: usize,
}

impl LightbitsClient {
    /// A client for the endpoints. It connects with its first call; this sends nothing.
    ///
    /// # Errors
    /// [`ConnectError`], for a configuration that cannot work or an expired token.
    pub fn connect(config: ClientConfig) -> Result<LightbitsClient, ConnectError> {
        let project = config.project;
        if project.is_empty() || project == "." || project == ".." {
            return Err(ConnectError::BadProject(project));
        }
        if config.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let bases: Result<Vec<Url>, ConnectError> =
            config.endpoints.iter().map(|endpoint| base_url(endpoint, &project)).collect();
        let bases = bases?;
        config.token.check_expiry(SystemTime::now())?;
        let mut authorization = HeaderValue::from_str(&config.token.header_text())
            .map_err(|_| TokenError::BadCharacter)?;
        authorization.set_sensitive(true);
        let redactor = config.token.redactor();
        let tls = client_config(&config.tls)?;
        let http = Http::new(tls, bases, authorization, redactor, config.timeouts, config.stop)
            .map_err(ConnectError::Http)?;
        let sizes = Mutex::new(HashMap::new());
        let (order, list_bytes_max) = (config.bitmap_order, LIST_BYTES_MAX);
        Ok(LightbitsClient { http, project, order, sizes, list_bytes_max })
    }

    /// Tries made beyond the first of each call, since the client was set up.
    pub fn retries(&self) -> u64 {
        self.http.retries()
    }

    /// How long its calls took, those with an answer.
    pub fn latency(&self) -> &Latency {
        self.http.latency()
    }

    /// From now on makes no more calls than that, tries that are repeated included. The first pace
    /// that is set counts.
    pub fn keep_pace(&self, pace: Pace) {
        self.http.keep_pace(pace);
    }

    /// Removes this client's token from texts.
    pub fn redactor(&self) -> Redactor {
        self.http.redactor().clone()
    }

    /// Every volume of the project.
    ///
    /// # Errors
    /// As the calls of [`Array`].
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>, ApiError> {
        let call = Call::new(Method::Get, &["volumes"]);
        self.list(&call, &self.http.budget(), wire::decode_volumes, |volume| volume.uuid)
    }

    /// The volume of this name, if there is one.
    ///
    /// # Errors
    /// As the calls of [`Array`].
    pub fn volume_by_name(&self, name: &str) -> Result<Option<VolumeInfo>, ApiError> {
        let call = Call::new(Method::Get, &["volumes"]).query("name", name);
        let volumes =
            self.list(&call, &self.http.budget(), wire::decode_volumes, |volume| volume.uuid)?;
        // A server that does not know the parameter ignores it and lists everything.
        Ok(volumes.into_iter().find(|volume| volume.name == name))
    }

    /// The snapshot of this name, if there is one, whatever its state.
    ///
    /// # Errors
    /// As the calls of [`Array`].
    pub fn snapshot_by_name(&self, name: &str) -> Result<Option<SnapshotInfo>, ApiError> {
        self.find_snapshot(name, &self.http.budget())
    }

    /// Every snapshot of this name: nothing keeps an array from having two.
    ///
    /// # Errors
    /// As the calls of [`Array`].
    pub fn snapshots_by_name(&self, name: &str) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.find_snapshots(name, &self.http.budget())
    }

    pub(super) fn find_snapshot(
        &self,
        name: &str,
        budget: &Budget<'_>,
    ) -> Result<Option<SnapshotInfo>, ApiError> {
        Ok(self.find_snapshots(name, budget)?.into_iter().next())
    }

    fn find_snapshots(
        &self,
        name: &str,
        budget: &Budget<'_>,
    ) -> Result<Vec<SnapshotInfo>, ApiError> {
        let call =
            Call::new(Method::Get, &["snapshots"]).query("Name", name).query("showAll", true);
        let mut found = self.list(&call, budget, wire::decode_snapshots, |info| info.uuid)?;
        found.retain(|snapshot| snapshot.name == name);
        Ok(found)
    }

    pub(super) fn get_snapshot(
        &self,
        uuid: SnapshotUuid,
        budget: &Budget<'_>,
    ) -> Result<SnapshotInfo, ApiError> {
        let call = Call::new(Method::Get, &["snapshots", &uuid.to_string()]);
        let answer = self.http.read(&call, budget)?;
        let info = self.decoded(&call, &answer.body, wire::decode_snapshot)?;
        if info.uuid != uuid {
            return Err(self.http.malformed(&call, &format!("it is of {}", info.uuid)));
        }
        self.remember(&info);
        Ok(info)
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// What an answer holds, its texts made harmless.
    pub(super) fn decoded<T: Foreign>(
        &self,
        call: &Call,
        body: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, ApiError> {
        decode(body)
            .map(|found| found.harmless(self.http.redactor()))
            .map_err(|what| self.http.unreadable(call, body, &what))
    }

    /// All pages of a listing, each item once (section 9, rule 14).
    fn list<T: Foreign, K: Eq + Hash + Copy + std::fmt::Display>(
        &self,
        call: &Call,
        budget: &Budget<'_>,
        decode: fn(&[u8]) -> Result<Vec<T>, String>,
        key: fn(&T) -> K,
    ) -> Result<Vec<T>, ApiError> {
        let mut items = Vec::new();
        let mut seen = HashSet::new();
        let mut page = call.clone().query("limit", LIST_LIMIT);
        let mut bytes = 0;
        loop {
            let Answer { body, .. } = self.http.read(&page, budget)?;
            bytes += body.len();
            if bytes > self.list_bytes_max {
                let what = format!("the listing is larger than {} bytes", self.list_bytes_max);
                return Err(self.http.malformed(call, &what));
            }
            let found = self.decoded(call, &body, decode)?;
            let last = found.last().map(key);
            let is_full = found.len() >= LIST_LIMIT;
            // A server may have a smaller limit of its own, and such limits are round.
            let may_be_cut = is_full || (found.len() >= 10 && is_round(found.len()));
            let known = items.len();
            items.extend(found.into_iter().filter(|item| seen.insert(key(item))));
            let Some(last) = last.filter(|_| may_be_cut) else {
                return Ok(items);
            };
            if items.len() == known && !is_full {
                // It was whole, and this server ignores where to go on.
                return Ok(items);
            }
            if items.len() == known {
                let what = format!("the listing does not end: after {known} items it repeats");
                return Err(self.http.malformed(call, &what));
            }
            if items.len() > LIST_MAX {
                let what = format!("the listing has more than {LIST_MAX} items");
                return Err(self.http.malformed(call, &what));
            }
            page = call.clone().query("limit", LIST_LIMIT).query("offsetUUID", last);
        }
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<SnapshotUuid, LbaCount>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember(&self, info: &SnapshotInfo) {
        // While it is being made a snapshot may not know its size.
        if info.len > LbaCount::ZERO {
            let mut sizes = self.sizes();
            if sizes.len() >= SIZES_MAX {
                sizes.clear();
            }
            sizes.insert(info.uuid, info.len);
        }
    }

    /// Forgets the sizes of snapshots that were seen: another array answers from now on.
    pub fn forget_snapshots(&self) {
        self.sizes().clear();
    }

    pub(super) fn forget(&self, uuid: SnapshotUuid) {
        self.sizes().remove(&uuid);
    }

    /// The size of a snapshot; asked for if it was not seen yet. `None` if it cannot be known: then
    /// the page must do without.
    fn size_of(&self, uuid: SnapshotUuid, budget: &Budget<'_>) -> Option<LbaCount> {
        let known = self.sizes().get(&uuid).copied();
        known.or_else(|| {
            let info = self.get_snapshot(uuid, budget).ok()?;
            (info.len > LbaCount::ZERO).then_some(info.len)
        })
    }
}

impl Array for LightbitsClient {
    /// What may be relied upon on a live array without knowing its release: unknowns count as
    /// absent (`lightbits-api.md` section 9).
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshot_readable: false,
            discard: DiscardEffect::Undefined,
            durable: Durability::OnAck,
            tracking_survives_kill: false,
            rollback: RollbackKind::None,
            clone_full_diff: None,
            resize: false,
            shrink_zeroes: false,
            restart: false,
            volume_lifecycle: false,
            // The interpreter runs one at a time.
            concurrent_ops: false,
            atomic_write_bytes: 4096,
            concurrent_snapshots: 1,
            granularity: LbaCount::new(1),
            page_limit: Some(PAGE_LIMIT),
            refuses_deleted_base: true,
        }
    }

    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        let call = Call::new(Method::Get, &["volumes", &volume.to_string()]);
        let answer = self.http.read(&call, &self.http.budget())?;
        let info = self.decoded(&call, &answer.body, wire::decode_volume)?;
        if info.uuid != volume {
            return Err(self.http.malformed(&call, &format!("it is of {}", info.uuid)));
        }
        Ok(info)
    }

    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        snapshots::create(self, volume, name)
    }

    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.get_snapshot(snapshot, &self.http.budget())
    }

    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        let call = Call::new(Method::Get, &["snapshots"]).query("showAll", true);
        self.list(&call, &self.http.budget(), wire::decode_snapshots, |snapshot| snapshot.uuid)
    }

    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        snapshots::delete(self, snapshot)
    }

    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        let mut call = Call::new(Method::Get, &["snapshots", "diff", &snapshot.to_string()]);
        call.slow = true;
        if let Some(base) = base {
            call = call.query("baseSnapshotUUID", base);
        }
        if from > Lba::new(0) {
            call = call.query("offsetLBA", from);
        }
        let budget = self.http.budget();
        let answer = self.http.read(&call, &budget)?;
        let len = self.size_of(snapshot, &budget);
        self.decoded(&call, &answer.body, |body| decode_diff_page(body, self.order, len))
    }
}

/// Whether a page of so many items looks as if a limit had cut it.
const fn is_round(items: usize) -> bool {
    items.is_multiple_of(10) || items.is_power_of_two()
}

/// `{endpoint}/api/v2/projects/{project}`.
fn base_url(endpoint: &str, project: &str) -> Result<Url, ConnectError> {
    // What stands before an `@` may be a password.
    let shown = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
    let bad = |why| ConnectError::BadEndpoint { endpoint: escape_text(shown, 100), why };
    let mut url = Url::parse(endpoint.trim()).map_err(|_| bad("is not a URL"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(bad("would send the token unprotected; http goes to loopback only")),
        _ => return Err(bad("is neither https nor http")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        // It is not repeated: it may hold a password.
        let endpoint = url.origin().ascii_serialization();
        let why = "was given with a user name or password, which the API does not use";
        return Err(ConnectError::BadEndpoint { endpoint, why });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has a query or fragment"));
    }
    if !matches!(url.path().trim_end_matches('/'), "" | "/api/v2") {
        return Err(bad("has a path"));
    }
    url.set_path("/api/v2/projects");
    url.path_segments_mut().map_err(|()| bad("has no path"))?.push(project);
    Ok(url)
}

/// Whether the host is this machine by its very address.
fn is_loopback(url: &Url) -> bool {
    // The `[..]` of an IPv6 host is URL syntax.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
