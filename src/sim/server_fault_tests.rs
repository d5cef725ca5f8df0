//! The server under a script of faults, as a socket sees it.

use super::*;
use crate::sim::hostile::{ApiFault, FaultSpec};
use std::time::Instant;

fn faulty(specs: &[&str]) -> Rig {
    let faults = specs.iter().map(|spec| spec.parse::<FaultSpec>().unwrap()).collect();
    rig_with(|_, http| http.faults = faults)
}

/// What comes on a new connection until the server ends it.
fn until_the_end(rig: &Rig, target: &str) -> Vec<u8> {
    let mut client = Client::of(&rig.server);
    let token = &rig.server.token;
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    // However it ends, what came before counts.
    let _ = client.stream.read_to_end(&mut all);
    all
}

#[test]
fn a_fault_meets_the_nth_call_of_its_kind_once_or_for_ever_and_is_noted() {
    let mut rig = faulty(&["status-503@list-snapshots:2", "status-500@get-volume:1+"]);
    let volume = format!("{VOLUMES}/{}", rig.source);
    rig.client.get(SNAPSHOTS).ok();
    rig.client.get(VOLUMES).ok();
    rig.client.get(SNAPSHOTS).refused(503, 14);
    rig.client.get(SNAPSHOTS).ok();
    rig.client.get(&volume).refused(500, 13);
    rig.client.get(&volume).refused(500, 13);
    let met: Vec<_> = rig.server.faults_met().iter().map(|met| (met.fault, met.number)).collect();
    let expected = [(ApiFault::Status503, 3), (ApiFault::Status500, 5), (ApiFault::Status500, 6)];
    assert_eq!(met, expected);
    rig.server.serve_instead(rig.array.clone(), &[]).unwrap();
    rig.client.get(&volume).ok();
    assert_eq!(rig.server.faults_met(), []);
}

#[test]
fn answers_instead_of_a_call_have_the_headers_that_make_them() {
    let mut rig = faulty(&["429-absurd@1", "429-date@1", "redirect@1", "html@1", "status-401@1"]);
    let limited = rig.client.get(VOLUMES);
    assert!(limited.head.contains("retry-after: 1000000000\r\n"), "{}", limited.head);
    limited.refused(429, 8);
    let dated = rig.client.get(VOLUMES).head;
    assert!(dated.contains(" gmt\r\n") && dated.contains("retry-after: "), "{dated}");
    let moved = rig.client.get(VOLUMES);
    assert_eq!(moved.status, 307);
    assert!(moved.head.contains("location: https://elsewhere.invalid/"), "{}", moved.head);
    let page = rig.client.get(VOLUMES);
    assert_eq!((page.status, page.body.starts_with("<!DOCTYPE html>")), (200, true));
    assert!(rig.client.get(VOLUMES).head.contains("www-authenticate: bearer\r\n"));
    rig.client.get(VOLUMES).ok();
}

#[test]
fn connections_break_off_trickle_or_stay_silent() {
    let rig = faulty(&["hang-up@1", "reset@1", "cut-short@1", "trickle@1", "silent@1"]);
    assert_eq!(until_the_end(&rig, VOLUMES), b"");
    for _ in 0..2 {
        let text = String::from_utf8_lossy(&until_the_end(&rig, VOLUMES)).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let promised = head.to_lowercase();
        let promised = promised.split_once("content-length: ").unwrap().1;
        let promised: usize = promised.split("\r\n").next().unwrap().parse().unwrap();
        assert!(body.len() < promised, "{} of {promised} bytes", body.len());
    }
    for _ in 0..2 {
        let mut client = Client::of(&rig.server);
        // Shorter than the pause between two bytes that trickle.
        let short = Some(Duration::from_millis(50));
        client.stream.get_ref().sock.set_read_timeout(short).unwrap();
        let head = format!("GET {VOLUMES} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer ");
        let request = format!("{head}{}\r\n\r\n", rig.server.token);
        client.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut came = Vec::new();
        assert!(client.stream.read_to_end(&mut came).is_err(), "it ended");
        assert!(!came.ends_with(b"}"), "it arrived whole");
    }
    Client::of(&rig.server).get(VOLUMES).ok();
}

#[test]
fn a_server_that_refuses_listens_again_after_a_moment_or_when_it_serves_another() {
    let rig = faulty(&["refused@1"]);
    let addr = rig.server.addr;
    assert_eq!(until_the_end(&rig, VOLUMES), b"");
    let start = Instant::now();
    while StdStream::connect(addr).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never listens again");
        std::thread::sleep(Duration::from_millis(5));
    }
    Client::of(&rig.server).get(VOLUMES).ok();
    let for_ever = ["refused@1+".parse().unwrap()];
    rig.server.serve_instead(rig.array.clone(), &for_ever).unwrap();
    assert_eq!(until_the_end(&rig, VOLUMES), b"");
    std::thread::sleep(REFUSES_FOR * 3);
    assert!(StdStream::connect(addr).is_err(), "it listens");
    rig.server.serve_instead(rig.array.clone(), &[]).unwrap();
    Client::of(&rig.server).get(VOLUMES).ok();
}

#[test]
fn an_oversized_body_has_a_gigabyte_if_somebody_reads_so_far() {
    let rig = faulty(&["oversized@1"]);
    let mut client = Client::of(&rig.server);
    let request = format!(
        "GET {VOLUMES} HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer {}\r\n\r\n",
        rig.server.token
    );
    client.stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut piece = vec![0; 1 << 20];
    client.stream.read_exact(&mut piece).unwrap();
    let text = String::from_utf8_lossy(&piece);
    assert!(text.to_lowercase().contains("transfer-encoding: chunked"), "its end is not told");
    assert!(text.contains("{\"text\":\""));
    for _ in 0..8 {
        client.stream.read_exact(&mut piece).unwrap();
    }
}

#[test]
fn a_snapshot_is_taken_and_its_maker_not_told_or_shown_in_a_state_it_is_not_in() {
    let mut rig = faulty(&["create-committed-500@1", "stuck-creating@2", "busy-409@4"]);
    let body = |name: &str| json!({"name": name, "sourceVolumeUUID": rig.source.to_string()});
    let (first, second, third) = (body("a"), body("b"), body("c"));
    rig.client.post(SNAPSHOTS, &first).refused(500, 13);
    let named = |rig: &Rig, name: &str| rig.array.snapshots().iter().any(|s| s.name == name);
    assert!(named(&rig, "a"), "it was taken");
    rig.client.post(SNAPSHOTS, &body_of_none()).refused(400, 3);
    let stuck = rig.client.post(SNAPSHOTS, &second).ok();
    let uuid = stuck["UUID"].as_str().unwrap().to_owned();
    rig.clock.sleep(DELAY);
    let shown = rig.client.get(&format!("{SNAPSHOTS}/{uuid}")).ok();
    assert_eq!(shown["state"], "Creating");
    rig.client.post(SNAPSHOTS, &third).refused(409, 6);
    assert!(!named(&rig, "c"), "it was refused");
}

fn body_of_none() -> Value {
    json!({})
}

#[test]
fn a_deleted_snapshot_lingers_or_was_never_deleted() {
    let mut rig = faulty(&["slow-delete@1", "lost-delete@1"]);
    let (slow, lost) = (rig.take("slow"), rig.take("lost"));
    let at = |uuid: &str| format!("{SNAPSHOTS}/{uuid}");
    rig.client.delete(&at(&slow)).ok();
    for _ in 0..30 {
        assert_eq!(rig.client.get(&at(&slow)).ok()["state"], "Deleting");
    }
    rig.client.get(&at(&slow)).refused(404, 5);
    rig.client.delete(&at(&lost)).ok();
    assert_eq!(rig.client.get(&at(&lost)).ok()["state"], "Available");
}
