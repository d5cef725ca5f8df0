//! The REST API by hand: just enough to see what is on the array without this program's client.

use super::home::until;
use reqwest::Method;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use std::sync::Once;
use std::time::Duration;

/// A plain HTTPS client. Who answers does not matter here: everything is on loopback.
pub(super) fn https() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test cannot have set one: this is the only place.
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
    let builder = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    builder.timeout(Duration::from_secs(60)).build().unwrap()
}

/// One project of one array.
pub(crate) struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    pub(crate) fn new(endpoint: &str, project: &str, token: &str) -> Api {
        let base = format!("{endpoint}/api/v2/projects/{project}");
        Api { client: https(), base, token: token.to_owned() }
    }
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = self.client.request(method, format!("{}/{path}", self.base));
        let request = request.bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        };
        let response = request.send().unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().unwrap()).unwrap_or_default())
    }
    /// Names of all snapshots there are, those being deleted too.
    pub(crate) fn snapshot_names(&self) -> Vec<String> {
        self.names("snapshots")
    }
    /// Names of all volumes there are, clones too.
    pub(crate) fn volume_names(&self) -> Vec<String> {
        self.names("volumes")
    }
    fn names(&self, what: &str) -> Vec<String> {
        let (status, list) = self.call(Method::GET, &format!("{what}?showAll=true"), None);
        assert_eq!(status, 200, "{list}");
        let none = Vec::new();
        let list = list[what].as_array().unwrap_or(&none);
        let mut names: Vec<String> =
            list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }
    /// Takes a snapshot and waits until it is there; answers its UUID.
    pub(crate) fn take(&self, volume: &str, name: &str) -> String {
        let body = json!({ "sourceVolumeUUID": volume, "name": name });
        // One at a time: another may be in the making.
        let made = until("the snapshot is made", Duration::from_secs(20), || {
            let (status, made) = self.call(Method::POST, "snapshots", Some(&body));
            assert!(matches!(status, 200 | 503), "{made}");
            (status == 200).then_some(made)
        });
        let uuid = made["UUID"].as_str().unwrap().to_owned();
        until("the snapshot is Available", Duration::from_secs(20), || {
            let (_, now) = self.call(Method::GET, &format!("snapshots/{uuid}"), None);
            (now["state"] == "Available").then_some(())
        });
        uuid
    }
    /// Makes a volume of a snapshot; answers its UUID.
    pub(crate) fn clone_of(&self, snapshot: &str, name: &str) -> String {
        let (_, from) = self.call(Method::GET, &format!("snapshots/{snapshot}"), None);
        let body = json!({ "name": name, "sourceSnapshotUUID": snapshot, "size": from["size"],
            "replicaCount": 1, "acl": { "values": ["ALLOW_ANY"] } });
        let (status, made) = self.call(Method::POST, "volumes", Some(&body));
        assert_eq!(status, 200, "{made}");
        made["UUID"].as_str().unwrap().to_owned()
    }
    /// Asks for a snapshot to be deleted.
    pub(crate) fn delete(&self, snapshot: &str) {
        let (status, answer) = self.call(Method::DELETE, &format!("snapshots/{snapshot}"), None);
        assert_eq!(status, 200, "{answer}");
    }
    /// One page of a diff, as it comes.
    pub(crate) fn diff(&self, snapshot: &str, base: &str) -> Value {
        let path = format!("snapshots/diff/{snapshot}?baseSnapshotUUID={base}");
        let (status, page) = self.call(Method::GET, &path, None);
        assert_eq!(status, 200, "{page}");
        page
    }
}

/// Shows that nothing at all was written to two volumes: the array tracks every write as it
/// arrives, also one that changes no content.
pub(crate) struct Idle<'a> {
    api: &'a Api,
    volumes: [String; 2],
    since: [String; 2],
}

impl<'a> Idle<'a> {
    pub(crate) fn since_now(api: &'a Api, volumes: [String; 2]) -> Idle<'a> {
        let since = [0, 1].map(|i| api.take(&volumes[i], &format!("idle-since-{i}")));
        Idle { api, volumes, since }
    }
    /// Asserts that no write arrived, and takes the marks away.
    #[track_caller]
    pub(crate) fn assert_untouched(self, what: &str) {
        for (i, base) in self.since.iter().enumerate() {
            let now = self.api.take(&self.volumes[i], &format!("idle-now-{i}"));
            let page = self.api.diff(&now, base);
            let ranges = page["lbaRanges"].as_array().map_or(0, Vec::len);
            assert_eq!(ranges, 0, "{what}: volume {i} was written: {page}");
            for snapshot in [&now, base] {
                self.api.delete(snapshot);
            }
        }
        until("the marks are gone", Duration::from_secs(20), || {
            let names = self.api.snapshot_names();
            names.iter().all(|name| !name.starts_with("idle-")).then_some(())
        });
    }
}
