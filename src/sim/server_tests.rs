use super::*;
use crate::array::BlockDevice as _;
use crate::array::Clock;
use crate::array::{RealClock, VirtualClock};
use crate::block::{ByteOffset, LbaCount, VolumeUuid};
use crate::sim::{SimConfig, SimDevice};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream as StdStream;

/// Accepts exactly the certificate with this fingerprint.
#[derive(Debug)]
struct Pinned(String);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hex: String = Sha256::digest(end_entity).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, self.0, "the server shows another certificate than it says");
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

type Tls = StreamOwned<ClientConnection, StdStream>;

/// One kept-alive connection, and the token it sends.
struct Client {
    stream: BufReader<Tls>,
    token: Option<String>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
    /// The body, once the status is 200.
    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
    /// The error text, once status and gRPC code are these.
    #[track_caller]
    fn refused(&self, status: u16, code: u64) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["error"], body["message"]);
        assert_eq!(body["details"], json!([]));
        body["error"].as_str().unwrap().to_owned()
    }
}

fn connect(addr: SocketAddr, verifier: Arc<dyn ServerCertVerifier>) -> Tls {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .dangerous()
    .with_custom_certificate_verifier(verifier)
    .with_no_client_auth();
    let name = ServerName::from(addr.ip());
    let socket = StdStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

impl Client {
    fn of(server: &RunningServer) -> Client {
        let tls = connect(server.addr, Arc::new(Pinned(server.pin_sha256.clone())));
        Client { stream: BufReader::new(tls), token: Some(server.token.clone()) }
    }

    fn send(&mut self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let auth = self.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n"));
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: sim\r\n{}{headers}Content-Length: {}\r\n\r\n{body}",
            auth.unwrap_or_default(),
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        self.read_answer()
    }

    fn read_answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.stream.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
        }
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        let length: usize = length.split_once('\r').unwrap().0.parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target, "", "")
    }
    fn delete(&mut self, target: &str) -> Answer {
        self.send("DELETE", target, "", "")
    }
    fn post(&mut self, target: &str, body: &Value) -> Answer {
        self.send("POST", target, "Content-Type: application/json\r\n", &body.to_string())
    }
    fn put(&mut self, target: &str, body: &Value) -> Answer {
        self.send("PUT", target, "Content-Type: application/json\r\n", &body.to_string())
    }
}

const VOLUMES: &str = "/api/v2/projects/default/volumes";
const SNAPSHOTS: &str = "/api/v2/projects/default/snapshots";
/// 1 GiB: the golden write of the field is at LBA 250912 of it.
const LEN: LbaCount = LbaCount::mib(1024);
const DELAY: Duration = Duration::from_secs(5);

/// A server on an array whose time moves only when a test says so.
struct Rig {
    server: RunningServer,
    client: Client,
    clock: Arc<VirtualClock>,
    array: SimArray,
    source: VolumeUuid,
}

fn rig_with(change: impl FnOnce(&mut SimConfig, &mut ServerConfig)) -> Rig {
    let (mut sim, mut http) = (SimConfig::default(), ServerConfig::default());
    change(&mut sim, &mut http);
    let clock = Arc::new(VirtualClock::new());
    let array = SimArray::new(sim, Arc::clone(&clock) as Arc<dyn Clock + Send + Sync>);
    let source = array.create_volume("vol-src", LEN, None).unwrap();
    array.create_volume("vol-dst", LEN, None).unwrap();
    let server = start(array.clone(), http).unwrap();
    Rig { client: Client::of(&server), server, clock, array, source }
}

fn rig() -> Rig {
    rig_with(|_, _| {})
}

impl Rig {
    fn write(&self, lba: u64, len_lbas: usize) {
        let device: SimDevice = self.array.device(self.source).unwrap();
        let (mut at, mut left) = (lba * 4096, vec![0xa5; len_lbas * 4096]);
        while !left.is_empty() {
            let taken = device.write_at(ByteOffset::new(at), &left).unwrap();
            left.drain(..taken);
            at += taken as u64;
        }
    }
    /// Takes a snapshot over HTTP, lets it become Available, and answers its UUID.
    fn take(&mut self, name: &str) -> String {
        let body = json!({"name": name, "sourceVolumeUUID": self.source.to_string()});
        let made = self.client.post(SNAPSHOTS, &body).ok();
        self.clock.sleep(DELAY);
        made["UUID"].as_str().unwrap().to_owned()
    }
}

#[test]
fn only_loopback_addresses_and_plain_project_names_are_served() {
    let array = SimArray::new(SimConfig::default(), Arc::new(RealClock::new()));
    let listen = "0.0.0.0:0".parse().unwrap();
    let config = ServerConfig { listen, ..ServerConfig::default() };
    let error = start(array.clone(), config).unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
    let config = ServerConfig { project: "a/b".to_owned(), ..ServerConfig::default() };
    assert!(matches!(start(array, config), Err(ServeError::Project(_))));
}

#[test]
fn a_taken_port_is_an_error_that_names_it_and_a_stopped_server_frees_its_port() {
    let rig = rig();
    let addr = rig.server.addr;
    let config = ServerConfig { listen: addr, ..ServerConfig::default() };
    let error = start(rig.array.clone(), config.clone()).unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    rig.server.stop();
    assert!(StdStream::connect(addr).is_err(), "still listening after stop");
    start(rig.array, config).unwrap().stop();
}

#[test]
fn the_certificate_is_refused_by_a_verifier_that_has_the_authority_because_it_names_no_host() {
    use rustls::pki_types::pem::PemObject as _;
    let rig = rig();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(rig.server.ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .unwrap();
    let mut tls = connect(rig.server.addr, verifier);
    let error = tls.write_all(b"x").unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[test]
fn version_and_cluster_information_are_there_for_tenants_and_cluster_for_administrators() {
    let mut rig = rig();
    assert_eq!(rig.client.get("/api/v2/version").ok(), json!({"apiVersion": "v2.0"}));
    let info = rig.client.get("/api/v2/clusterinfo").ok();
    assert_eq!(info["apiEndpoints"], json!([rig.server.addr.to_string()]));
    rig.client.get("/api/v2/cluster").refused(403, 7);
    let admin = Claims { roles: vec!["system:cluster-admin".into()], ..Claims::admin("x", 60) };
    rig.client.token = Some(rig.server.mint(&admin).unwrap());
    assert_eq!(rig.client.get("/api/v2/cluster").ok()["UUID"], info["UUID"]);
    rig.client.get(VOLUMES).ok();
}

#[test]
fn a_missing_foreign_or_expired_token_is_401_and_another_project_403() {
    let mut rig = rig();
    rig.client.token = None;
    let answer = rig.client.get(VOLUMES);
    answer.refused(401, 16);
    assert!(answer.head.contains("www-authenticate: bearer\r\n"), "{}", answer.head);
    for (token, words) in [
        ("nonsense".to_owned(), "malformed"),
        (TokenKey::generate().unwrap().mint(&Claims::admin("default", 60)).unwrap(), "signature"),
        (rig.server.mint(&Claims::admin("default", -60)).unwrap(), "expired"),
    ] {
        rig.client.token = Some(token);
        let words_sent = rig.client.get(VOLUMES).refused(401, 16);
        assert!(words_sent.contains(words), "{words_sent}");
    }
    rig.client.token = Some(rig.server.mint(&Claims::admin("other", 60)).unwrap());
    rig.client.get(VOLUMES).refused(403, 7);
    rig.client.get("/api/v2/projects/other/volumes").refused(403, 7);
    rig.client.token = Some(rig.server.token.clone());
    rig.client.get("/api/v2/projects/nosuch/snapshots").refused(403, 7);
    rig.client.get("/api/v2/volumes").refused(403, 7);
    let viewer = Claims { roles: vec!["default:viewer".into()], ..Claims::admin("default", 60) };
    rig.client.token = Some(rig.server.mint(&viewer).unwrap());
    rig.client.get(VOLUMES).ok();
    rig.client.post(SNAPSHOTS, &json!({})).refused(403, 7);
}

#[test]
fn paths_that_are_not_routed_answer_plain_text_even_without_a_token() {
    let mut rig = rig();
    rig.client.token = None;
    for (method, path, status, body) in [
        ("GET", "/", 404, "Not Found\n"),
        ("GET", "/api/v2/nosuch", 404, "Not Found\n"),
        ("GET", "/api/v2/projects/default/volumes/a/b", 404, "Not Found\n"),
        ("GET", "/api/v2/projects/default/snapshots/diff/a/b", 404, "Not Found\n"),
        ("GET", "/api/v2/snapshots", 404, "Not Found\n"),
        ("DELETE", "/api/v2/projects/default/volumes", 405, "Method Not Allowed\n"),
        ("PATCH", "/api/v2/version", 405, "Method Not Allowed\n"),
        ("GET", "/api/v2/projects/%zz/volumes", 400, "Bad Request\n"),
    ] {
        let answer = rig.client.send(method, path, "", "");
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {path}");
        assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    }
}

#[test]
fn volumes_are_found_by_uuid_by_name_with_a_trailing_slash_and_on_the_route_without_project() {
    let mut rig = rig();
    let uuid = rig.source.to_string();
    let volume = rig.client.get(&format!("{VOLUMES}/{uuid}")).ok();
    assert_eq!(volume["name"], "vol-src");
    assert_eq!(volume["size"], "1073741824");
    assert_eq!(volume["sectorSize"], 4096);
    assert_eq!(volume["state"], "Available");
    assert_eq!(volume["protectionState"], "FullyProtected");
    assert_eq!(volume["compression"], "false");
    assert_eq!(rig.client.get(&format!("{VOLUMES}/?name=vol-src")).ok(), volume);
    assert_eq!(rig.client.get(&format!("/api/v2/volumes/{uuid}?projectName=default")).ok(), volume);
    let listed = rig.client.get("/api/v2/volumes?projectName=default&name=vol-src").ok();
    assert_eq!(listed, json!({"volumes": [volume]}));

    rig.client.get(&format!("{VOLUMES}/?name=nosuch")).refused(404, 5);
    // Keys are case-sensitive: this one is unknown, so neither UUID nor name is given.
    rig.client.get(&format!("{VOLUMES}/?Name=vol-src")).refused(400, 3);
    rig.client.get(&format!("{VOLUMES}/vol-src")).refused(400, 3);
    rig.client.get(&format!("{VOLUMES}/{}", VolumeUuid::random())).refused(404, 5);
}

#[test]
fn lists_are_paged_by_limit_and_offset_uuid_and_end_before_deleted_marks() {
    let mut rig = rig();
    let mut made: Vec<String> = (0..5).map(|n| rig.take(&format!("s{n}"))).collect();
    made.sort();
    let uuids = |list: &Value| -> Vec<String> {
        let list = list["snapshots"].as_array().cloned().unwrap_or_default();
        list.iter().map(|s| s["UUID"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = Vec::new();
    for expected in [2, 2, 1, 0] {
        let after = seen.last().map(|uuid| format!("&offsetUUID={uuid}")).unwrap_or_default();
        let page = uuids(&rig.client.get(&format!("{SNAPSHOTS}?limit=2{after}")).ok());
        assert_eq!(page.len(), expected);
        seen.extend(page);
    }
    assert_eq!(seen, made);
    assert_eq!(uuids(&rig.client.get(SNAPSHOTS).ok()), made);
    assert_eq!(uuids(&rig.client.get(&format!("{SNAPSHOTS}?limit=0")).ok()), made);
    assert_eq!(uuids(&rig.client.get(&format!("{SNAPSHOTS}?limit=99999")).ok()), made);
    for bad in ["limit=-1", "limit=x", "limit=", "offsetUUID=x", "UUID=x", "showAll=yes", "Name=%f"]
    {
        rig.client.get(&format!("{SNAPSHOTS}?{bad}")).refused(400, 3);
    }
}

#[test]
fn a_list_holds_at_most_1000() {
    let mut rig = rig();
    for n in 0..1003 {
        rig.array.create_snapshot(rig.source, format!("s{n}")).unwrap();
    }
    let first = rig.client.get(SNAPSHOTS).ok();
    let first = first["snapshots"].as_array().unwrap();
    assert_eq!(first.len(), 1000);
    let last = first[999]["UUID"].as_str().unwrap();
    let rest = rig.client.get(&format!("{SNAPSHOTS}?limit=5000&offsetUUID={last}")).ok();
    assert_eq!(rest["snapshots"].as_array().unwrap().len(), 3);
}

#[test]
fn unknown_query_keys_are_ignored_and_known_ones_are_case_sensitive() {
    let mut rig = rig();
    let one = rig.take("s1");
    rig.take("s2");
    let count = |list: Value| list["snapshots"].as_array().unwrap().len();
    assert_eq!(count(rig.client.get(&format!("{SNAPSHOTS}?Name=s1")).ok()), 1);
    assert_eq!(count(rig.client.get(&format!("{SNAPSHOTS}?name=s1")).ok()), 2);
    assert_eq!(count(rig.client.get(&format!("{SNAPSHOTS}?Limit=1&x=%20&y")).ok()), 2);
    assert_eq!(count(rig.client.get(&format!("{SNAPSHOTS}?UUID={one}&UUID=x")).ok()), 1);
}

#[test]
fn a_snapshot_is_creating_then_available_then_deleting_then_gone() {
    let mut rig = rig_with(|sim, _| {
        sim.create_delay = DELAY;
        sim.delete_delay = DELAY;
    });
    let body = json!({"name": "s0", "sourceVolumeName": "vol-src", "description": "d",
        "retentionTime": "3600s", "unknown": 1});
    let made = rig.client.post(SNAPSHOTS, &body).ok();
    assert_eq!(made["state"], "Creating");
    assert_eq!(made.get("creationTime"), None);
    assert_eq!(made["sourceVolumeUUID"], rig.source.to_string());
    assert_eq!(made["size"], "1073741824");
    let path = format!("{SNAPSHOTS}/{}", made["UUID"].as_str().unwrap());
    rig.client.delete(&path).refused(503, 14);
    let second = json!({"name": "s1", "sourceVolumeUUID": rig.source.to_string()});
    rig.client.post(SNAPSHOTS, &second).refused(503, 14);

    rig.clock.sleep(DELAY);
    let ready = rig.client.get(&path).ok();
    assert_eq!(ready["state"], "Available");
    assert!(ready["creationTime"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&ready["description"], &ready["retentionTime"]), (&json!("d"), &json!("3600s")));
    assert_eq!(rig.client.get(&format!("{SNAPSHOTS}/?Name=s0")).ok(), ready);
    let clash = json!({"name": "s0", "sourceVolumeUUID": rig.source.to_string()});
    rig.client.post(SNAPSHOTS, &clash).refused(409, 6);

    assert_eq!(rig.client.delete(&path).ok(), json!({}));
    assert_eq!(rig.client.get(&path).ok()["state"], "Deleting");
    rig.client.delete(&path).refused(400, 3);
    assert_eq!(rig.client.get(SNAPSHOTS).ok(), json!({}));
    let all = rig.client.get(&format!("{SNAPSHOTS}?showAll=true")).ok();
    assert_eq!(all["snapshots"][0]["state"], "Deleting");

    rig.clock.sleep(DELAY);
    rig.client.get(&path).refused(404, 5);
    rig.client.delete(&path).refused(404, 5);
    assert_eq!(rig.client.get(&format!("{SNAPSHOTS}?showAll=true")).ok(), json!({}));
}

#[test]
fn snapshots_that_make_no_sense_are_refused() {
    let mut rig = rig();
    let uuid = rig.source.to_string();
    for (body, status, code) in [
        (json!({"sourceVolumeUUID": uuid}), 400, 3),
        (json!({"name": "a/b", "sourceVolumeUUID": uuid}), 400, 3),
        (json!({"name": "s"}), 400, 3),
        (json!({"name": "s", "sourceVolumeUUID": "x"}), 400, 3),
        (json!({"name": "s", "sourceVolumeUUID": VolumeUuid::random().to_string()}), 404, 5),
        (json!({"name": "s", "sourceVolumeName": "nosuch"}), 404, 5),
        (json!({"name": "s", "sourceVolumeUUID": uuid, "retentionTime": "1h"}), 400, 3),
        (json!({"name": "s", "sourceVolumeUUID": uuid, "description": "é".repeat(129)}), 400, 3),
        (json!([]), 400, 3),
    ] {
        let answer = rig.client.post(SNAPSHOTS, &body);
        answer.refused(status, code);
    }
    rig.client.send("POST", SNAPSHOTS, "", "{").refused(400, 3);
    rig.client.send("POST", SNAPSHOTS, "", "").refused(400, 3);
    assert_eq!(rig.client.get(SNAPSHOTS).ok(), json!({}));
}

#[test]
fn the_golden_write_is_these_bytes_on_the_wire() {
    let mut rig = rig();
    let base = rig.take("s0");
    rig.write(250_912, 256);
    let snap = rig.take("s1");
    let answer = rig.client.get(&format!("{SNAPSHOTS}/diff/{snap}?baseSnapshotUUID={base}"));
    let full = |chunk: u64| {
        let (start, end) = (chunk * 64, chunk * 64 + 63);
        format!(r#"{{"lbaStart":"{start}","lbaEnd":"{end}","dataBitMap":"//////////8="}}"#)
    };
    let expected = format!(
        concat!(
            r#"{{"lbaRanges":[{{"lbaStart":"250880","lbaEnd":"250943","dataBitMap":"AAAAAP////8="}},"#,
            r#"{},{},{},{{"lbaStart":"251136","lbaEnd":"251199","dataBitMap":"/////wAAAAA="}}]}}"#
        ),
        full(3921),
        full(3922),
        full(3923)
    );
    assert_eq!((answer.status, answer.body), (200, expected));
    let by_name = format!("{SNAPSHOTS}/diff/?snapshotName=s1&baseSnapshotName=s0");
    assert_eq!(rig.client.get(&by_name).ok()["lbaRanges"].as_array().unwrap().len(), 5);
    let nothing = rig.take("s2");
    let none = rig.client.get(&format!("{SNAPSHOTS}/diff/{nothing}?baseSnapshotUUID={snap}"));
    assert_eq!(none.body, "{}");
}

#[test]
fn profile_b_writes_the_zeros_that_profile_a_leaves_out() {
    let mut rig = rig_with(|_, http| http.profile = Profile::B);
    rig.write(1, 1);
    let snap = rig.take("s0");
    let answer = rig.client.get(&format!("{SNAPSHOTS}/diff/{snap}"));
    assert_eq!(
        answer.body,
        concat!(
            r#"{"nextOffsetLBA":"0","lbaRanges":"#,
            r#"[{"lbaStart":"0","lbaEnd":"63","dataBitMap":"AgAAAAAAAAA="}]}"#
        )
    );
    let snapshot = rig.client.get(&format!("{SNAPSHOTS}/{snap}")).ok();
    assert_eq!(snapshot["compression"], false);
    assert_eq!(snapshot["retentionTime"], Value::Null);
    assert_eq!(snapshot["labels"], json!([]));
}

#[test]
fn a_diff_is_walked_by_offset_rounded_down_to_its_chunk() {
    let mut rig = rig_with(|sim, _| sim.page_limit = 2);
    for chunk in [1, 5, 9] {
        rig.write(chunk * 64 + 1, 1);
    }
    let snap = rig.take("s0");
    let diff = format!("{SNAPSHOTS}/diff/{snap}");
    let starts = |page: &Value| -> Vec<String> {
        let ranges = page["lbaRanges"].as_array().cloned().unwrap_or_default();
        ranges.iter().map(|r| r["lbaStart"].as_str().unwrap().to_owned()).collect()
    };
    let first = rig.client.get(&diff).ok();
    assert_eq!(starts(&first), ["64", "320"]);
    let next: u64 = first["nextOffsetLBA"].as_str().unwrap().parse().unwrap();
    assert!(next > 320 && next <= 576 && next.is_multiple_of(64), "{next}");
    let second = rig.client.get(&format!("{diff}?offsetLBA={next}")).ok();
    assert_eq!(starts(&second), ["576"]);
    assert_eq!(second.get("nextOffsetLBA"), None);
    // Rounded down: LBA 383 lies in chunk 5.
    assert_eq!(starts(&rig.client.get(&format!("{diff}?offsetLBA=383")).ok()), ["320", "576"]);
    // Misspelt, so ignored: page 1 again.
    assert_eq!(rig.client.get(&format!("{diff}?offsetLba={next}")).ok(), first);
    for bad in ["", "x", "-64", "%2B64", "1e3", "18446744073709551616"] {
        rig.client.get(&format!("{diff}?offsetLBA={bad}")).refused(400, 3);
    }
    let beyond = LEN.get() + 64;
    rig.client.get(&format!("{diff}?offsetLBA={beyond}")).refused(400, 3);
    rig.client.get(&format!("{diff}?offsetLBA=18446744073709551615")).refused(400, 3);
}

#[test]
fn pairs_that_make_no_diff_are_refused() {
    let mut rig = rig();
    let (old, new) = (rig.take("s0"), rig.take("s1"));
    let foreign = rig.array.volumes().into_iter().find(|v| v.name == "vol-dst").unwrap();
    let foreign = rig.array.create_snapshot(foreign.uuid, "f0").unwrap().uuid;
    let diff = |snap: &str, base: &str| format!("{SNAPSHOTS}/diff/{snap}?baseSnapshotUUID={base}");
    rig.client.get(&diff(&new, &new)).refused(400, 3);
    rig.client.get(&diff(&old, &new)).refused(400, 3);
    rig.client.get(&diff(&new, &foreign.to_string())).refused(400, 3);
    rig.client.get(&diff(&new, "x")).refused(400, 3);
    rig.client.get(&diff(&new, &VolumeUuid::random().to_string())).refused(404, 5);
    rig.client.get(&diff(&VolumeUuid::random().to_string(), &old)).refused(404, 5);
    rig.client.get(&format!("{SNAPSHOTS}/diff/")).refused(400, 3);
    rig.client.get(&format!("{SNAPSHOTS}/diff/{new}?baseSnapshotName=nosuch")).refused(404, 5);
    assert_eq!(rig.client.delete(&format!("{SNAPSHOTS}/{old}")).ok(), json!({}));
    rig.client.get(&diff(&new, &old)).refused(404, 5);
}

#[test]
fn volumes_are_created_cloned_resized_rolled_back_and_deleted() {
    let mut rig = rig();
    let body = json!({"name": "v", "size": "4 gib", "replicaCount": "2", "compression": "enabled",
        "acl": {"values": ["nqn.a"]}, "IPAcl": null, "sectorSize": "sectorSize_4K",
        "labels": [{"key": "k", "value": "x"}], "sourceSnapshotUUID": null});
    let made = rig.client.post(VOLUMES, &body).ok();
    assert_eq!((&made["size"], &made["replicaCount"]), (&json!("4294967296"), &json!(2)));
    assert_eq!((&made["compression"], &made["acl"]), (&json!("true"), &body["acl"]));
    assert_eq!(made["labels"], body["labels"]);
    rig.client.post(VOLUMES, &body).refused(409, 6);
    let path = format!("{VOLUMES}/{}", made["UUID"].as_str().unwrap());

    // Sizes round up to 4 KiB; shrinking needs Force.
    assert_eq!(rig.client.put(&path, &json!({"size": 4_294_967_297_u64})).ok(), json!({}));
    assert_eq!(rig.client.get(&path).ok()["size"], "4294971392");
    rig.client.put(&path, &json!({"size": "1gib"})).refused(400, 3);
    assert_eq!(rig.client.put(&path, &json!({"size": "1gib", "Force": true})).ok(), json!({}));
    let shrunk = rig.client.get(&path).ok();
    assert_eq!((&shrunk["size"], &shrunk["ETag"]), (&json!("1073741824"), &json!("3")));

    // A clone has the size of its snapshot and remembers it.
    let snap = rig.take("s0");
    let mut clone = json!({"name": "c", "size": "1073741824", "replicaCount": 1,
        "acl": {"values": []}, "sourceSnapshotUUID": snap});
    let cloned = rig.client.post(VOLUMES, &clone).ok();
    assert_eq!(cloned["sourceSnapshotUUID"], snap);
    assert_eq!(cloned["sourceSnapshotName"], "s0");
    let listed = rig.client.get(&format!("{VOLUMES}?snapshotUUID={snap}")).ok();
    assert_eq!(listed["volumes"].as_array().unwrap().len(), 1);
    clone["size"] = json!("4096");
    clone["name"] = json!("c2");
    rig.client.post(VOLUMES, &clone).refused(400, 3);

    let source = format!("{VOLUMES}/{}", rig.source);
    let back = json!({"srcSnapshotUUID": snap});
    assert_eq!(rig.client.put(&format!("{source}/rollback"), &back).ok(), json!({}));
    rig.client.put(&format!("{source}/rollback"), &json!({})).refused(400, 3);
    rig.client.put(&format!("{path}/rollback"), &back).refused(400, 3);

    assert_eq!(rig.client.delete(&path).ok(), json!({}));
    rig.client.delete(&path).refused(404, 5);
    // The snapshots of a deleted volume stay.
    assert_eq!(rig.client.delete(&source).ok(), json!({}));
    assert_eq!(rig.client.get(&format!("{SNAPSHOTS}/{snap}")).ok()["name"], "s0");
}

#[test]
fn volumes_that_make_no_sense_are_refused() {
    let mut rig = rig();
    let good = json!({"name": "v", "size": "4096", "replicaCount": 1, "acl": {"values": ["a"]},
        "projectName": "default"});
    for (field, value, status, code) in [
        ("name", json!(null), 400, 3),
        ("name", json!("a b"), 400, 3),
        ("size", json!("0"), 400, 3),
        ("size", json!("much"), 400, 3),
        ("replicaCount", json!(0), 400, 3),
        ("replicaCount", json!(4), 400, 3),
        ("acl", json!(null), 400, 3),
        ("compression", json!("maybe"), 400, 3),
        ("sectorSize", json!("8K"), 400, 3),
        ("sectorSize", json!("512B"), 501, 12),
        ("sourceSnapshotName", json!("nosuch"), 404, 5),
        ("projectName", json!("other"), 403, 7),
    ] {
        let mut body = good.clone();
        body[field] = value;
        rig.client.post("/api/v2/volumes", &body).refused(status, code);
    }
    rig.client.post("/api/v2/volumes", &good).ok();
}

#[test]
fn if_match_is_optional_and_a_stale_one_is_412() {
    let mut rig = rig();
    let path = format!("{VOLUMES}/{}", rig.source);
    let etag = rig.client.get(&path).ok()["ETag"].as_str().unwrap().to_owned();
    let labels = r#"{"labels":[{"key":"k","value":"v"}]}"#;
    let matching = format!("If-Match: {etag}\r\n");
    assert_eq!(rig.client.send("PUT", &path, &matching, labels).ok(), json!({}));
    rig.client.send("PUT", &path, &matching, labels).refused(412, 9);
    rig.client.send("DELETE", &path, &matching, "").refused(412, 9);
    let snap = rig.take("s0");
    let snap = format!("{SNAPSHOTS}/{snap}");
    rig.client.send("DELETE", &snap, "If-Match: 77\r\n", "").refused(412, 9);
    assert_eq!(rig.client.send("DELETE", &snap, "If-Match: \"2\"\r\n", "").ok(), json!({}));
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_server_lives_on() {
    let mut rig = rig();
    let head = format!("POST {SNAPSHOTS} HTTP/1.1\r\nHost: sim\r\nContent-Length: 2000000\r\n\r\n");
    rig.client.stream.get_mut().write_all(head.as_bytes()).unwrap();
    let body = vec![b' '; 1 << 20];
    rig.client.stream.get_mut().write_all(&body).unwrap();
    // One more byte than the limit; the rest of the body is never sent.
    rig.client.stream.get_mut().write_all(b" ").unwrap();
    let answer = rig.client.read_answer();
    answer.refused(413, 8);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    Client::of(&rig.server).get("/api/v2/version").ok();
}

#[test]
fn broken_http_ends_one_connection_only() {
    let mut rig = rig();
    let mut broken = Client::of(&rig.server);
    broken.stream.get_mut().write_all(b"\x00\x01\x02 nonsense\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    // The end may come with or without the TLS farewell.
    let _ = broken.stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 << 10));
    let mut huge_client = Client::of(&rig.server);
    let _ = huge_client.stream.get_mut().write_all(huge.as_bytes());
    let _ = huge_client.stream.read_to_end(&mut rest);
    rig.client.get("/api/v2/version").ok();
}

#[path = "server_fault_tests.rs"]
mod faults;
