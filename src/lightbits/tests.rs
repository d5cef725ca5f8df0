//! The client against a scripted server: calls, retries, ambiguous writes, classes of errors.

use super::test_server::{Act, TestServer};
use super::*;
use crate::array::{ApiError, Array, SnapshotState};
use crate::block::{BitmapOrder, Lba, LbaCount, RunId, SnapshotName, SnapshotUuid, VolumeUuid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const VOLUME: VolumeUuid = VolumeUuid::from_u128(0xa1);
const OTHER: VolumeUuid = VolumeUuid::from_u128(0xa2);
const SNAP: SnapshotUuid = SnapshotUuid::from_u128(0xb1);
const BASE: SnapshotUuid = SnapshotUuid::from_u128(0xb2);
const CANARY: &str = "eyJjYW5hcnktaGVhZCI.eyJjYW5hcnktYm9keSI6MX0.canary-signature";

fn name() -> SnapshotName {
    SnapshotName::new(RunId::from_u128(5), 1)
}

fn config(servers: &[&TestServer]) -> ClientConfig {
    ClientConfig {
        endpoints: servers.iter().map(|server| format!("http://{}", server.address())).collect(),
        project: "default".to_owned(),
        token: Token::from_text(CANARY).unwrap(),
        tls: TlsConfig::default(),
        bitmap_order: BitmapOrder::Little,
        timeouts: Timeouts::default(),
        stop: Arc::default(),
    }
}

/// A client and the server whose script it meets.
fn meet(script: Vec<Act>) -> (LightbitsClient, TestServer) {
    let server = TestServer::http(script);
    (LightbitsClient::connect(config(&[&server])).unwrap(), server)
}

fn snapshot_json(volume: VolumeUuid, state: &str) -> String {
    let name = name();
    format!(
        r#"{{"UUID":"{SNAP}","name":"{name}","state":"{state}","sourceVolumeUUID":"{volume}","size":"409600"}}"#
    )
}

fn listed(snapshots: &[String]) -> Act {
    Act::ok(format!(r#"{{"snapshots":[{}]}}"#, snapshots.join(",")))
}

fn creating() -> Act {
    Act::ok(snapshot_json(VOLUME, "Creating"))
}

fn look_up() -> String {
    format!("GET snapshots?Name={}&showAll=true&limit=1000", name())
}

#[test]
fn calls_use_the_routes_and_names_of_the_api() {
    let (client, server) = meet(vec![
        Act::ok(format!(r#"{{"UUID":"{VOLUME}","name":"a"}}"#)),
        creating(),
        Act::ok(snapshot_json(VOLUME, "Available")),
        Act::ok("{}"),
        Act::ok(
            r#"{"nextOffsetLBA":"64","lbaRanges":[{"lbaEnd":"63","dataBitMap":"AQAAAAAAAAA="}]}"#,
        ),
        listed(&[snapshot_json(VOLUME, "Deleting")]),
        Act::ok("{}"),
        Act::ok(format!(r#"{{"volumes":[{{"UUID":"{VOLUME}","name":"a"}}]}}"#)),
        Act::ok(format!(r#"{{"volumes":[{{"UUID":"{VOLUME}","name":"b"}}]}}"#)),
    ]);
    assert_eq!(client.volume(VOLUME).unwrap().name, "a");
    let made = client.create_snapshot(VOLUME, name()).unwrap();
    assert_eq!(
        (made.uuid, made.state, made.len),
        (SNAP, SnapshotState::Creating, LbaCount::new(100))
    );
    assert_eq!(client.snapshot(SNAP).unwrap().state, SnapshotState::Available);
    assert_eq!(client.diff_page(SNAP, None, Lba::new(0)).unwrap().ranges, 0);
    let page = client.diff_page(SNAP, Some(BASE), Lba::new(640)).unwrap();
    assert_eq!((page.ranges, page.next), (1, Some(Lba::new(64))));
    assert_eq!(client.snapshots().unwrap().len(), 1);
    client.delete_snapshot(SNAP).unwrap();
    assert_eq!(client.volume_by_name("a").unwrap().unwrap().uuid, VOLUME);
    assert_eq!(client.volume_by_name("a").unwrap(), None, "the server ignored the name");
    assert_eq!(
        server.lines(),
        [
            format!("GET volumes/{VOLUME}"),
            "POST snapshots".to_owned(),
            format!("GET snapshots/{SNAP}"),
            format!("GET snapshots/diff/{SNAP}"),
            format!("GET snapshots/diff/{SNAP}?baseSnapshotUUID={BASE}&offsetLBA=640"),
            "GET snapshots?showAll=true&limit=1000".to_owned(),
            format!("DELETE snapshots/{SNAP}"),
            "GET volumes?name=a&limit=1000".to_owned(),
            "GET volumes?name=a&limit=1000".to_owned(),
        ]
    );
    let post = &server.seen()[1];
    let body =
        format!(r#"{{"name":"{}","sourceVolumeUUID":"{VOLUME}","projectName":"default"}}"#, name());
    assert_eq!(post.body, body);
    let headers = post.headers.to_lowercase();
    assert!(headers.contains("content-type: application/json"));
    assert!(headers.contains(&format!("authorization: bearer {}", CANARY.to_lowercase())));
    assert_eq!(client.retries(), 0);
}

#[test]
fn a_proxy_that_is_busy_twice_changes_nothing_and_costs_little() {
    for act in [
        Act::error(503, "busy"),
        Act::error(500, "oops"),
        Act::error(504, "context deadline exceeded"),
        Act::error(408, "slow"),
        Act::raw(429, "retry-after: 0\r\n", ""),
        Act::raw(502, "content-type: text/html\r\n", "<html>bad gateway</html>"),
        Act::HangUp,
        Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"lbaRanges\"".to_vec()),
        Act::Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"lba".to_vec()),
        Act::Raw(b"not http at all\r\n\r\n".to_vec()),
    ] {
        let answer = Act::ok(snapshot_json(VOLUME, "Available"));
        let (client, server) = meet(vec![act.clone(), act.clone(), answer]);
        let start = Instant::now();
        assert_eq!(client.snapshot(SNAP).unwrap().volume, VOLUME, "{act:?}");
        assert_eq!((client.retries(), server.lines().len()), (2, 3), "{act:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{act:?}: {:?}", start.elapsed());
    }
}

#[test]
fn a_server_that_stays_broken_is_given_up_with_its_words() {
    let (client, server) = meet(vec![Act::error(503, "we are \x1b[2J down"); 64]);
    let mut config = config(&[&server]);
    config.timeouts.total = Duration::from_millis(300);
    let hasty = LightbitsClient::connect(config).unwrap();
    drop(client);
    match hasty.volume(VOLUME) {
        Err(ApiError::Malformed { .. }) => panic!("an invalid JSON error body must not matter"),
        Err(ApiError::Server(reply, tries)) => {
            assert_eq!(reply.status, Some(503));
            assert!(tries > 1 && u64::from(tries) == hasty.retries() + 1, "{tries}");
            assert!(reply.text.contains("we are \\u{1b}[2J down"), "{}", reply.text);
            assert_eq!(reply.call, format!("GET volumes/{VOLUME}"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_status_means_its_own_error() {
    let html = "<html>not here</html>";
    let class = |act: Act| {
        let (client, server) = meet(vec![act]);
        let error = client.snapshot(SNAP).unwrap_err();
        assert_eq!(server.lines().len(), 1, "{error} was retried");
        let kind = match &error {
            ApiError::NotFound(_) => "not found",
            ApiError::Refused(_) => "refused",
            ApiError::Conflict(_) => "conflict",
            ApiError::NoSuchCall(_) => "no such call",
            ApiError::Auth(_) => "auth",
            ApiError::Malformed { .. } => "malformed",
            _ => "other",
        };
        (kind, error.to_string())
    };
    for (act, kind, says) in [
        (Act::error(404, "no such snapshot"), "not found", "answered 404: no such snapshot"),
        (Act::Json(404, "Not Found\n".into()), "no such call", "Not Found"),
        (Act::Json(405, "Method Not Allowed\n".into()), "no such call", "does not offer"),
        (Act::raw(404, "", html), "no such call", "<html>"),
        (Act::error(400, "not on the same chain"), "refused", "not on the same chain"),
        (Act::Json(400, "plain words".into()), "malformed", "plain words"),
        (Act::Json(400, r#"{"blocked":"by a firewall"}"#.into()), "malformed", "by a firewall"),
        (Act::Json(404, r#"{"message":"no healthy upstream"}"#.into()), "no such call", "upstream"),
        (Act::error(422, "no"), "refused", "422"),
        (Act::error(409, "exists"), "conflict", "exists"),
        (Act::error(412, "etag"), "conflict", "etag"),
        (Act::error(401, "expired"), "auth", "check the token"),
        (Act::error(403, "role"), "auth", "--project"),
        (Act::Json(401, String::new()), "auth", "no reason given"),
        (Act::raw(400, "content-type: text/html\r\n", "blocked"), "malformed", "HTML page"),
        (Act::raw(400, "", html), "malformed", "HTML page"),
        (Act::raw(302, "location: https://elsewhere/\r\n", ""), "malformed", "https://elsewhere/"),
        (Act::raw(301, "", ""), "malformed", "redirects are not followed"),
        (Act::error(418, "teapot"), "malformed", "418"),
        (Act::Json(200, String::new()), "malformed", "EOF"),
        (Act::Json(204, String::new()), "malformed", "status 204"),
        (Act::Json(206, snapshot_json(VOLUME, "Available")), "malformed", "status 206"),
        (Act::Json(202, snapshot_json(VOLUME, "Available")), "malformed", "status 202"),
        (Act::raw(200, "content-type: text/html\r\n", html), "malformed", "near <html>"),
        (Act::ok(r#"{"error":"x","code":13}"#), "malformed", "no UUID"),
        (Act::ok(snapshot_json(VOLUME, "Available") + "x"), "malformed", "trailing"),
        (Act::ok(snapshot_json(VOLUME, "A").replace("b1", "b3")), "malformed", "it is of"),
        (Act::raw(200, "content-encoding: gzip\r\n", "x"), "malformed", "encoded as gzip"),
    ] {
        let shown = format!("{act:?}");
        let (got, text) = class(act);
        assert_eq!(got, kind, "{shown}: {text}");
        assert!(text.contains(says), "{shown}: {text}");
    }
}

#[test]
fn an_answer_beyond_the_cap_is_not_taken_in() {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 68000000\r\n\r\n".to_vec();
    bytes.resize(68_000_100, b' ');
    let (client, _server) = meet(vec![Act::Raw(bytes)]);
    let error = client.snapshot(SNAP).unwrap_err();
    assert!(
        matches!(&error, ApiError::Malformed { what, .. } if what.contains("64 MiB")),
        "{error}"
    );
}

#[test]
fn the_token_never_shows_even_if_the_server_repeats_it() {
    let parts: Vec<&str> = CANARY.split('.').collect();
    let echo = format!("Bearer {CANARY} {} {} {}", parts[0], parts[1], parts[2]);
    for act in [
        Act::error(400, &echo),
        Act::error(418, &echo),
        Act::Json(401, echo.clone()),
        Act::ok(format!(r#"{{"UUID":"{echo}"}}"#)),
        Act::ok(format!(r#"{{"name":"x" {echo}"#)),
        Act::raw(307, &format!("location: https://x/?t={CANARY}\r\n"), ""),
        Act::raw(200, &format!("content-encoding: {CANARY}\r\n"), ""),
    ] {
        let (client, _server) = meet(vec![act.clone()]);
        let error = client.snapshot(SNAP).unwrap_err();
        let shown = format!("{error} {error:?} {client:?}");
        for part in &parts {
            assert!(!shown.contains(&part[..12]), "{act:?}: {shown}");
        }
    }
}

#[test]
fn a_redirect_does_not_carry_the_token_to_another_host() {
    let other = TestServer::http(vec![Act::ok(snapshot_json(VOLUME, "Available"))]);
    let to = format!("location: http://{}/\r\n", other.address());
    for status in [301, 302, 303, 307, 308] {
        let (client, _server) = meet(vec![Act::raw(status, &to, "")]);
        assert!(client.snapshot(SNAP).is_err());
    }
    assert!(other.seen().is_empty());
}

#[test]
fn a_creation_whose_answer_is_lost_is_found_by_name_and_not_repeated() {
    for lost in [Act::HangUp, Act::error(500, "after commit"), Act::Json(504, "<html>".into())] {
        let found = listed(&[
            snapshot_json(OTHER, "Available").replace(&name().to_string(), "foreign"),
            snapshot_json(VOLUME, "Available").replace("b1", "b4"),
        ]);
        let (client, server) = meet(vec![lost, found]);
        let made = client.create_snapshot(VOLUME, name()).unwrap();
        assert_eq!(made.uuid, SnapshotUuid::from_u128(0xb4));
        assert_eq!(server.lines(), ["POST snapshots".to_owned(), look_up()]);
    }
}

#[test]
fn a_creation_that_did_not_happen_is_repeated_after_the_look() {
    for refused in [
        Act::HangUp,
        Act::error(400, "snapshot creation in progress"),
        Act::error(409, "in progress"),
        Act::error(412, "in progress"),
        Act::error(429, "slow down"),
        Act::error(500, "in progress"),
        Act::error(503, "in progress"),
    ] {
        let (client, server) =
            meet(vec![refused.clone(), listed(&[]), refused, listed(&[]), creating()]);
        assert_eq!(client.create_snapshot(VOLUME, name()).unwrap().uuid, SNAP);
        let post = "POST snapshots".to_owned();
        assert_eq!(server.lines(), [post.clone(), look_up(), post.clone(), look_up(), post]);
        assert_eq!(client.retries(), 2);
    }
}

#[test]
fn a_late_commit_is_recognised_by_the_conflict_it_causes() {
    let (client, server) = meet(vec![
        Act::HangUp,
        listed(&[]),
        Act::error(409, "name exists"),
        listed(&[snapshot_json(VOLUME, "Creating")]),
    ]);
    assert_eq!(client.create_snapshot(VOLUME, name()).unwrap().uuid, SNAP);
    assert_eq!(server.lines().len(), 4);
}

#[test]
fn a_name_that_was_taken_before_is_a_conflict_and_no_success() {
    for (script, what) in [
        (vec![Act::error(409, "exists"), listed(&[snapshot_json(VOLUME, "Available")])], "older"),
        (vec![Act::HangUp, listed(&[snapshot_json(OTHER, "Available")])], "of another volume"),
    ] {
        let (client, _server) = meet(script);
        let error = client.create_snapshot(VOLUME, name()).unwrap_err();
        assert!(matches!(error, ApiError::Conflict(_)), "{what}: {error}");
        assert!(error.to_string().contains("is taken by snapshot"), "{what}: {error}");
    }
}

#[test]
fn a_creation_refused_for_good_is_final() {
    let (client, server) = meet(vec![Act::error(404, "no such volume")]);
    assert!(matches!(client.create_snapshot(VOLUME, name()), Err(ApiError::NotFound(_))));
    assert_eq!(server.lines().len(), 1);
    let script = [Act::error(400, "illegal name"), listed(&[])];
    let (client, server) = meet(script.iter().cycle().take(40).cloned().collect());
    assert!(matches!(client.create_snapshot(VOLUME, name()), Err(ApiError::Refused(_))));
    let posts = server.lines().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(posts, 8, "400 is tried again only so often");
}

#[test]
fn what_was_made_must_be_what_was_asked_for() {
    for body in [
        snapshot_json(OTHER, "Creating"),
        snapshot_json(VOLUME, "Creating").replace(&name().to_string(), "other"),
        "{}".to_owned(),
    ] {
        let (client, server) = meet(vec![Act::ok(body.clone())]);
        let error = client.create_snapshot(VOLUME, name()).unwrap_err();
        assert!(matches!(error, ApiError::Malformed { .. }), "{body}: {error}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[test]
fn a_deletion_that_failed_counts_if_the_snapshot_is_leaving() {
    let gone = || Act::error(404, "gone");
    let here = || Act::ok(snapshot_json(VOLUME, "Available"));
    let leaving = || Act::ok(snapshot_json(VOLUME, "Deleting"));
    for (script, lines) in [
        (vec![Act::HangUp, gone()], 2),
        (vec![Act::HangUp, leaving()], 2),
        (vec![Act::error(400, "is Deleting"), leaving()], 2),
        (vec![Act::error(500, "code:412"), gone()], 2),
        (vec![Act::error(412, "ongoing task"), here(), Act::ok("{}")], 3),
        (vec![Act::error(503, "Creating"), here(), Act::ok("{}")], 3),
        (vec![Act::error(409, "busy"), here(), Act::error(409, "busy"), leaving()], 4),
        (vec![Act::HangUp, here(), gone()], 3),
    ] {
        let (client, server) = meet(script.clone());
        client.delete_snapshot(SNAP).unwrap_or_else(|e| panic!("{script:?}: {e}"));
        assert_eq!(server.lines().len(), lines, "{script:?}");
    }
    let (client, _server) = meet(vec![gone()]);
    assert!(matches!(client.delete_snapshot(SNAP), Err(ApiError::NotFound(_))));
    let (client, _server) = meet(vec![Act::error(403, "viewer")]);
    assert!(matches!(client.delete_snapshot(SNAP), Err(ApiError::Auth(_))));
}

#[test]
fn a_deletion_is_not_taken_for_done_when_a_page_or_an_error_comes_with_its_success() {
    let page = Act::raw(200, "content-type: text/html\r\n", "<h1>Log in</h1>");
    let error = Act::ok(r#"{"error":"internal error","code":13}"#);
    for act in [page, error] {
        let (client, server) = meet(vec![act.clone()]);
        let refused = client.delete_snapshot(SNAP).expect_err("it was not done");
        assert!(matches!(refused, ApiError::Malformed { .. }), "{act:?}: {refused}");
        assert_eq!(server.lines().len(), 1, "nothing is repeated blindly");
    }
    for body in ["", "{}", &snapshot_json(VOLUME, "Deleting")] {
        let (client, _server) = meet(vec![Act::ok(body)]);
        client.delete_snapshot(SNAP).unwrap_or_else(|e| panic!("{body:?}: {e}"));
    }
}

#[test]
fn listings_are_read_to_the_end_and_one_that_repeats_is_refused() {
    let page = |first: u128, count: u128| {
        let one = |id: u128| {
            let uuid = SnapshotUuid::from_u128(id);
            format!(r#"{{"UUID":"{uuid}","sourceVolumeUUID":"{VOLUME}"}}"#)
        };
        listed(&(first..first + count).map(one).collect::<Vec<_>>())
    };
    let (client, server) = meet(vec![page(1, 1000), page(1000, 1000), page(2000, 3)]);
    assert_eq!(client.snapshots().unwrap().len(), 2002, "each once");
    let offset = |id| SnapshotUuid::from_u128(id);
    assert_eq!(
        server.lines()[1..],
        [
            format!("GET snapshots?showAll=true&limit=1000&offsetUUID={}", offset(1000)),
            format!("GET snapshots?showAll=true&limit=1000&offsetUUID={}", offset(1999)),
        ]
    );
    let (client, _server) = meet(vec![page(1, 1000), page(1, 1000)]);
    let error = client.snapshots().unwrap_err();
    assert!(error.to_string().contains("the listing does not end"), "{error}");
    // Every page is new, and it never ends.
    let (mut client, _server) = meet((0..5).map(|n| page(1 + 1000 * n, 1000)).collect());
    client.list_bytes_max = 300_000;
    let error = client.snapshots().unwrap_err();
    assert!(error.to_string().contains("larger than 300000 bytes"), "{error}");
}

#[test]
fn a_range_cut_at_the_end_of_the_volume_is_checked_against_the_snapshots_size() {
    let cut = |end: u32| {
        Act::ok(format!(r#"{{"lbaRanges":[{{"lbaStart":64,"lbaEnd":{end},"dataBitMap":1}}]}}"#))
    };
    let size = || Act::ok(snapshot_json(VOLUME, "Available")); // 100 LBAs
    let (client, server) = meet(vec![cut(99), size(), cut(100), cut(98)]);
    assert!(client.diff_page(SNAP, None, Lba::new(0)).is_ok());
    assert!(client.diff_page(SNAP, None, Lba::new(0)).is_ok());
    let error = client.diff_page(SNAP, None, Lba::new(0)).unwrap_err();
    assert!(error.to_string().contains("lbaEnd 98 fits no reading"), "{error}");
    assert_eq!(server.lines().len(), 4, "the size is asked for once");
}

#[test]
fn a_dead_endpoint_is_passed_over_and_a_living_one_kept() {
    let dead = TestServer::http(Vec::new());
    let gone = dead.address();
    drop(dead);
    let alive = TestServer::http(vec![Act::ok(snapshot_json(VOLUME, "Available")); 3]);
    let mut config = config(&[&alive]);
    config.endpoints.insert(0, format!("http://{gone}"));
    let client = LightbitsClient::connect(config).unwrap();
    for _ in 0..3 {
        client.snapshot(SNAP).unwrap();
    }
    assert_eq!(client.retries(), 1, "only the first call met the dead endpoint");
}

#[test]
fn an_unreachable_endpoint_is_reported_soon_and_by_name() {
    let dead = TestServer::http(Vec::new());
    let client = LightbitsClient::connect(config(&[&dead])).unwrap();
    let address = dead.address().to_string();
    drop(dead);
    let start = Instant::now();
    let error = client.create_snapshot(VOLUME, name()).unwrap_err();
    assert!(matches!(error, ApiError::Transport { tries: 3, .. }), "{error:?}");
    assert!(error.to_string().contains(&address) && error.to_string().contains("cannot connect"));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn silence_and_trickle_end_with_the_timeout_of_a_try() {
    for act in [Act::Silence, Act::Trickle] {
        let server = TestServer::http(vec![act, Act::ok(snapshot_json(VOLUME, "Available"))]);
        let mut config = config(&[&server]);
        config.timeouts.call = Duration::from_millis(150);
        let client = LightbitsClient::connect(config).unwrap();
        let start = Instant::now();
        client.snapshot(SNAP).unwrap();
        assert_eq!(client.retries(), 1);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn a_stop_ends_a_silent_call_and_clean_up_still_works_after_it() {
    let server = TestServer::http(vec![Act::Silence, Act::ok("{}")]);
    let config = config(&[&server]);
    let stop: Arc<AtomicBool> = config.stop.clone();
    let client = LightbitsClient::connect(config).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(matches!(client.snapshot(SNAP), Err(ApiError::Interrupted)));
    });
    assert!(start.elapsed() < Duration::from_secs(5));
    client.delete_snapshot(SNAP).unwrap();
}

#[test]
fn a_configuration_that_cannot_work_is_refused_before_anything_is_sent() {
    let with = |endpoint: &str, project: &str| {
        LightbitsClient::connect(ClientConfig {
            endpoints: vec![endpoint.to_owned()],
            project: project.to_owned(),
            ..config(&[])
        })
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    for good in [
        "https://10.0.0.1",
        "https://[fd00::1]:443/",
        "https://cluster.example/api/v2",
        "http://127.0.0.1:8080",
        "http://localhost:1",
        "http://[::1]:1",
    ] {
        assert_eq!(with(good, "default"), Ok(()), "{good}");
    }
    for (bad, says) in [
        ("http://10.0.0.1", "loopback only"),
        ("http://127.0.0.1.example.com", "loopback only"),
        ("ftp://10.0.0.1", "neither https nor http"),
        ("10.0.0.1:443", "is not a URL"),
        ("", "is not a URL"),
        ("https://10.0.0.1/login", "has a path"),
        ("https://10.0.0.1/?a=b", "has a query"),
        ("https://10.0.0.1/#x", "fragment"),
        ("https://me:secret@10.0.0.1", "user name or password"),
    ] {
        let error = with(bad, "default").unwrap_err();
        assert!(error.contains(says) && !error.contains("secret"), "{bad}: {error}");
    }
    for project in ["", ".", ".."] {
        assert!(with("https://10.0.0.1", project).unwrap_err().contains("--project"));
    }
    let none = LightbitsClient::connect(config(&[])).unwrap_err();
    assert!(matches!(none, ConnectError::NoEndpoint));
    let expired = Token::from_text("e30.eyJleHAiOjEwMDB9.c2ln").unwrap(); // exp 1000
    let server = TestServer::http(Vec::new());
    let old = LightbitsClient::connect(ClientConfig { token: expired, ..config(&[&server]) });
    assert!(matches!(old, Err(ConnectError::Token(TokenError::Expired { .. }))));
    assert!(server.seen().is_empty());
}

#[test]
fn a_project_with_odd_characters_stays_one_path_segment() {
    let server = TestServer::http(vec![Act::ok("{}")]);
    let project = "a/b?c#d e".to_owned();
    let client = LightbitsClient::connect(ClientConfig { project, ..config(&[&server]) }).unwrap();
    assert_eq!(client.volumes().unwrap(), []);
    assert_eq!(server.seen()[0].line, "GET /api/v2/projects/a%2Fb%3Fc%23d%20e/volumes?limit=1000");
}

#[test]
fn a_live_array_promises_little() {
    let (client, _server) = meet(Vec::new());
    let can = client.capabilities();
    assert!(!can.snapshot_readable && !can.resize && !can.restart && !can.volume_lifecycle);
    assert!(can.refuses_deleted_base);
    assert_eq!((can.concurrent_snapshots, can.page_limit), (1, Some(10_000)));
    assert!(matches!(client.rollback(VOLUME, SNAP), Err(ApiError::Unsupported(_))));
    assert!(matches!(client.delete_volume(VOLUME), Err(ApiError::Unsupported(_))));
}

#[test]
fn names_texts_and_notes_of_the_server_come_without_the_token_and_escaped() {
    let evil = format!("\\u001b[2J\\u202e\\r\\n{CANARY}");
    let spelled: String = CANARY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let snapshot = format!(
        r#"{{"UUID":"{SNAP}","name":"{evil}","state":"Available","sourceVolumeUUID":"{VOLUME}","creationTime":"{spelled}"}}"#
    );
    let (client, _server) = meet(vec![
        Act::ok(format!(r#"{{"UUID":"{VOLUME}","name":"{evil}"}}"#)),
        Act::ok(format!(r#"{{"volumes":[{{"UUID":"{VOLUME}","name":"{spelled}"}}]}}"#)),
        listed(std::slice::from_ref(&snapshot)),
        Act::ok(snapshot),
        Act::ok(format!(r#"{{"{}x":1,"lbaRanges":[]}}"#, &CANARY[..40])),
        Act::error(400, &spelled),
    ]);
    let mut texts = vec![client.volume(VOLUME).unwrap().name];
    texts.extend(client.volumes().unwrap().into_iter().map(|volume| volume.name));
    for info in client.snapshots().unwrap().into_iter().chain([client.snapshot(SNAP).unwrap()]) {
        texts.push(info.name);
        texts.extend(info.created);
    }
    match client.diff_page(SNAP, None, Lba::new(0)) {
        Ok(page) => texts.extend(page.notes),
        Err(error) => texts.push(error.to_string()),
    }
    texts.push(client.diff_page(SNAP, None, Lba::new(0)).unwrap_err().to_string());
    let redactor = client.redactor();
    for text in &texts {
        assert!(!redactor.is_in(text), "{text}");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
    assert!(texts.iter().filter(|text| text.contains("[token]")).count() >= 6, "{texts:#?}");
    assert_eq!(texts[0], "\\u{1b}[2J\\u{202e}\\r\\n[token]");
}

#[test]
fn a_listing_that_a_smaller_limit_cut_is_paged_on_and_one_that_says_so_is_refused() {
    let item = |number: usize| {
        let uuid = SnapshotUuid::from_u128(number as u128);
        format!(
            r#"{{"UUID":"{uuid}","name":"n{number}","state":"Available","sourceVolumeUUID":"{VOLUME}"}}"#
        )
    };
    let page = |from: usize, to: usize| listed(&(from..to).map(item).collect::<Vec<_>>());
    let (client, server) = meet(vec![page(1, 101), page(101, 152), page(1, 21), page(1, 21)]);
    assert_eq!(client.snapshots().unwrap().len(), 151);
    assert_eq!(server.lines().len(), 2);
    assert_eq!(client.snapshots().unwrap().len(), 20, "a server that ignores the offset");
    for part in [r#""nextPageToken":"abc""#, r#""truncated":true"#] {
        let body = format!(r#"{{"snapshots":[],{part}}}"#);
        let (client, _server) = meet(vec![Act::ok(body)]);
        let error = client.snapshots().unwrap_err().to_string();
        assert!(error.contains("incomplete"), "{error}");
    }
}
