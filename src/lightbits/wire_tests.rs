use super::*;

const V: &str = "6f1d6a0e-8f6c-4b8e-9d3a-1c2b3a4d5e6f";
const S: &str = "29050e4b-43a5-4a41-a0cf-1c1e1d1f2a3b";

fn volume(fields: &str) -> Result<VolumeInfo, String> {
    decode_volume(format!(r#"{{"UUID":"{V}"{fields}}}"#).as_bytes())
}

fn snapshot(fields: &str) -> Result<SnapshotInfo, String> {
    let body = format!(r#"{{"UUID":"{S}","sourceVolumeUUID":"{V}"{fields}}}"#);
    decode_snapshot(body.as_bytes())
}

#[test]
fn a_volume_as_profile_a_sends_it() {
    let body = format!(
        r#"{{"state":"Available","protectionState":"FullyProtected","replicaCount":3,
        "nodeList":["n1"],"UUID":"{V}","nsid":7,"acl":{{"values":["nqn.x"]}},"compression":"false",
        "size":"4294967296","name":"vol-a","rebuildProgress":"None","statistics":{{"logicalUsedStorage":"0"}},
        "ETag":"12","sectorSize":4096,"projectName":"default","labels":[]}}"#
    );
    assert_eq!(
        decode_volume(body.as_bytes()),
        Ok(VolumeInfo {
            uuid: V.parse().unwrap(),
            name: "vol-a".to_owned(),
            size_bytes: 4 << 30,
            sector_bytes: 4096,
            usable: true,
            writable: true,
            is_clone: false,
            clone_of: None,
        })
    );
}

#[test]
fn a_volume_with_zeros_left_out_and_other_casings() {
    let bare = volume("").unwrap();
    assert_eq!((bare.size_bytes, bare.sector_bytes), (0, 4096));
    assert_eq!((bare.usable, bare.writable, bare.is_clone), (false, false, false));
    assert_eq!(volume(r#","sectorSize":0"#).unwrap().sector_bytes, 4096);
    assert_eq!(volume(r#","sectorSize":512,"size":5"#).unwrap().sector_bytes, 512);
    assert!(volume(r#","sectorSize":4294967296"#).is_err());
    let lower = decode_volume(format!(r#"{{"uuid":"{}"}}"#, V.to_uppercase()).as_bytes()).unwrap();
    assert_eq!(lower.uuid, V.parse().unwrap());
}

#[test]
fn a_volume_is_usable_writable_or_a_clone_by_what_it_says() {
    for (state, usable) in [
        ("Available", true),
        ("Updating", true),
        ("Migrating", true),
        ("Creating", false),
        ("Deleting", false),
        ("Failed", false),
        ("Rollback", false),
        ("available", false),
        ("Novel", false),
    ] {
        let fields = format!(r#","state":"{state}""#);
        assert_eq!(volume(&fields).unwrap().usable, usable, "{state}");
    }
    for (protection, writable) in [
        ("FullyProtected", true),
        ("Degraded", true),
        ("ReadOnly", false),
        ("NotAvailable", false),
        ("Unknown", false),
    ] {
        let fields = format!(r#","protectionState":"{protection}""#);
        assert_eq!(volume(&fields).unwrap().writable, writable, "{protection}");
    }
    for (fields, is_clone, clone_of) in [
        (format!(r#","sourceSnapshotUUID":"{S}""#), true, S.parse().ok()),
        (r#","sourceSnapshotUUID":"nobody""#.to_owned(), true, None),
        (r#","sourceSnapshotName":"nightly""#.to_owned(), true, None),
        (r#","sourceSnapshotUUID":"","sourceSnapshotName":null"#.to_owned(), false, None),
    ] {
        let read = volume(&fields).unwrap();
        assert_eq!((read.is_clone, read.clone_of), (is_clone, clone_of), "{fields}");
    }
}

#[test]
fn snapshots_in_every_state_and_odd_sizes() {
    for (state, meaning) in [
        ("Creating", SnapshotState::Creating),
        ("Available", SnapshotState::Available),
        ("Deleting", SnapshotState::Deleting),
        ("Deleted", SnapshotState::Deleted),
        ("Failed", SnapshotState::Failed),
        ("Unknown", SnapshotState::Other),
        ("Novel", SnapshotState::Other),
    ] {
        let fields = format!(r#","state":"{state}","compression":false"#);
        assert_eq!(snapshot(&fields).unwrap().state, meaning, "{state}");
    }
    let bare = snapshot("").unwrap();
    assert_eq!((bare.state, bare.len, bare.created), (SnapshotState::Other, LbaCount::ZERO, None));
    let full =
        snapshot(r#","name":"n","size":"4097","creationTime":"2026-06-14T12:00:05.459308408Z""#);
    let full = full.unwrap();
    assert_eq!((full.name.as_str(), full.len), ("n", LbaCount::new(2)));
    assert_eq!(full.created.as_deref(), Some("2026-06-14T12:00:05.459308408Z"));
    assert_eq!(snapshot(r#","size":18446744073709551615"#).unwrap().len, LbaCount::new(1 << 52));
}

#[test]
fn malformed_objects_are_refused_and_say_why() {
    for (body, says) in [
        ("{}".to_owned(), "no UUID"),
        (r#"{"error":"x","code":5}"#.to_owned(), "no UUID"),
        (r#"{"UUID":""}"#.to_owned(), "no UUID"),
        (r#"{"UUID":"vol-a"}"#.to_owned(), "`vol-a` is not a UUID"),
        (format!(r#"{{"UUID":"{}"}}"#, V.replace('-', "")), "not a UUID"),
        (format!(r#"{{"UUID":"{V}","UUID":"{V}"}}"#), "duplicate"),
        (format!(r#"{{"UUID":"{V}","uuid":"{V}"}}"#), "duplicate"),
        (format!(r#"["{V}"]"#), "JSON object"),
        (format!(r#"{{"UUID":"{V}","size":-1}}"#), "unsigned 64-bit"),
        (format!(r#"{{"UUID":"{V}","size":"1e3"}}"#), "unsigned 64-bit"),
        (format!(r#"{{"UUID":"{V}","size":4096.0}}"#), "unsigned 64-bit"),
        (format!(r#"{{"UUID":"{V}","size":"4 GiB"}}"#), "unsigned 64-bit"),
        (format!(r#"{{"UUID":"{V}","name":5}}"#), "string"),
        (format!(r#"{{"UUID":"{V}""#), "EOF"),
        (String::new(), "EOF"),
        ("<html>".to_owned(), "near <html>"),
    ] {
        let error = decode_volume(body.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{body}: {error}");
    }
    let foreign = format!(r#"{{"UUID":"{S}"}}"#);
    assert!(decode_snapshot(foreign.as_bytes()).unwrap_err().contains("no sourceVolumeUUID"));
}

#[test]
fn listings_may_be_absent_but_not_replaced() {
    for empty in ["{}", r#"{"volumes":[]}"#, r#"{"volumes":null}"#] {
        assert_eq!(decode_volumes(empty.as_bytes()), Ok(Vec::new()), "{empty}");
    }
    let one = format!(r#"{{"snapshots":[{{"UUID":"{S}","sourceVolumeUUID":"{V}"}}]}}"#);
    assert_eq!(decode_snapshots(one.as_bytes()).unwrap().len(), 1);
    for (other, says) in [
        (r#"{"error":"x","code":13}"#, "`code`"),
        (r#"{"Snapshots":[]}"#, "`Snapshots`"),
        (r#"{"volumes":[]}"#, "`volumes`"),
        ("[]", "JSON object"),
        (r#"{"snapshots":[[]]}"#, "JSON object"),
        (r#"{"snapshots":[],"snapshots":[]}"#, "duplicate"),
    ] {
        let error = decode_snapshots(other.as_bytes()).unwrap_err();
        assert!(error.contains(says), "{other}: {error}");
    }
}

#[test]
fn error_bodies_give_the_servers_words_or_themselves() {
    for (body, words) in [
        (r#"{"error":"not found","message":"m","code":5,"details":[]}"#, "not found"),
        (r#"{"message":"only this","code":5}"#, "only this"),
        (r#"{"error":"","message":""}"#, r#"{"error":"","message":""}"#),
        (r#"{"error":{"deep":1}}"#, r#"{"error":{"deep":1}}"#),
        ("Not Found\n", "Not Found"),
        ("", ""),
    ] {
        assert_eq!(error_text(body.as_bytes()), words);
    }
    assert!(is_json_object(b"{\"error\":1}") && is_json_object(b"{}"));
    for other in ["", "Not Found", "[]", "\"x\"", "<html>", "{"] {
        assert!(!is_json_object(other.as_bytes()), "{other}");
    }
}

#[test]
fn a_new_snapshot_is_asked_for_in_the_servers_names() {
    let body = NewSnapshot {
        name: "tsync-x",
        source_volume_uuid: V.parse().unwrap(),
        project_name: "default",
    };
    assert_eq!(
        serde_json::to_string(&body).unwrap(),
        format!(r#"{{"name":"tsync-x","sourceVolumeUUID":"{V}","projectName":"default"}}"#)
    );
}

#[test]
fn only_words_with_the_number_of_a_grpc_status_are_the_arrays_own_error() {
    for own in [
        r#"{"error":"gone","message":"gone","code":5,"details":[]}"#,
        r#"{"message":"gone","code":16}"#,
        r#"{"error":"ok?","code":0}"#,
    ] {
        assert!(is_api_error(own.as_bytes()), "{own}");
    }
    for foreign in [
        r#"{"error":"no healthy upstream","code":404}"#,
        r#"{"error":"request blocked by policy 12","status":400}"#,
        r#"{"message":"blocked","code":"5"}"#,
        r#"{"code":5}"#,
        r#"{"error":null,"code":5}"#,
        r#"[{"error":"x","code":5}]"#,
        "<html>",
        "",
    ] {
        assert!(!is_api_error(foreign.as_bytes()), "{foreign}");
    }
}
