use super::*;
use proptest::prelude::*;

fn range(chunk: u64, bits: u64) -> Range {
    Range { lba_start: chunk * 64, lba_end: chunk * 64 + 63, bits }
}

#[test]
fn bits_32_to_63_and_one_lba_at_offset_1_are_the_literals_of_the_field() {
    assert_eq!(
        diff_json(0, &[range(3920, 0xffff_ffff_0000_0000)], Profile::A),
        r#"{"lbaRanges":[{"lbaStart":"250880","lbaEnd":"250943","dataBitMap":"AAAAAP////8="}]}"#
    );
    assert_eq!(
        diff_json(64, &[range(1, 0b10)], Profile::A),
        concat!(
            r#"{"nextOffsetLBA":"64","lbaRanges":"#,
            r#"[{"lbaStart":"64","lbaEnd":"127","dataBitMap":"AgAAAAAAAAA="}]}"#
        )
    );
}

#[test]
fn the_example_page_of_the_contract_is_written_in_full_by_profile_b() {
    let full = range(3921, u64::MAX);
    let page = [range(3920, u64::MAX << 32), full, range(3924, u64::MAX >> 32)];
    assert_eq!(
        diff_json(0, &page, Profile::B),
        concat!(
            r#"{"nextOffsetLBA":"0","lbaRanges":["#,
            r#"{"lbaStart":"250880","lbaEnd":"250943","dataBitMap":"AAAAAP////8="},"#,
            r#"{"lbaStart":"250944","lbaEnd":"251007","dataBitMap":"//////////8="},"#,
            r#"{"lbaStart":"251136","lbaEnd":"251199","dataBitMap":"/////wAAAAA="}]}"#
        )
    );
}

#[test]
fn profile_a_leaves_zeros_out_and_profile_b_writes_them() {
    assert_eq!(diff_json(0, &[], Profile::A), "{}");
    assert_eq!(diff_json(0, &[], Profile::B), r#"{"nextOffsetLBA":"0","lbaRanges":[]}"#);
    let first = [range(0, 1)];
    assert_eq!(
        diff_json(0, &first, Profile::A),
        r#"{"lbaRanges":[{"lbaEnd":"63","dataBitMap":"AQAAAAAAAAA="}]}"#
    );
    assert_eq!(
        diff_json(0, &first, Profile::B),
        concat!(
            r#"{"nextOffsetLBA":"0","lbaRanges":"#,
            r#"[{"lbaStart":"0","lbaEnd":"63","dataBitMap":"AQAAAAAAAAA="}]}"#
        )
    );
    assert_eq!(volumes_json(&[], Profile::A), "{}");
    assert_eq!(snapshots_json(&[], Profile::B), r#"{"snapshots":[]}"#);
}

fn sample_snapshot() -> Snapshot {
    Snapshot {
        state: "Creating",
        uuid: "0a".to_owned(),
        name: "s0".to_owned(),
        source_volume: Named { uuid: "0b".to_owned(), name: "vol-src".to_owned() },
        replica_count: 1,
        node_list: vec!["n1".to_owned()],
        nsid: 7,
        acl: vec!["ALLOW_ANY".to_owned()],
        size_bytes: 1 << 31,
        sector_bytes: 4096,
        etag: "3".to_owned(),
        project: "default".to_owned(),
        cluster_id: "c".to_owned(),
        ..Snapshot::default()
    }
}

#[test]
fn a_snapshot_in_profile_a_is_these_bytes() {
    assert_eq!(
        snapshot_json(&sample_snapshot(), Profile::A),
        concat!(
            r#"{"state":"Creating","UUID":"0a","name":"s0","sourceVolumeUUID":"0b","#,
            r#""sourceVolumeName":"vol-src","replicaCount":1,"nodeList":["n1"],"nsid":7,"#,
            r#""acl":{"values":["ALLOW_ANY"]},"size":"2147483648","IPAcl":{},"#,
            r#""sectorSize":4096,"statistics":{},"ETag":"3","projectName":"default","#,
            r#""primaryNodeUUID":"n1","clusterId":"c"}"#
        )
    );
}

#[test]
fn a_snapshot_in_profile_b_has_every_documented_field() {
    assert_eq!(
        snapshot_json(&sample_snapshot(), Profile::B),
        concat!(
            r#"{"state":"Creating","UUID":"0a","name":"s0","description":"","#,
            r#""creationTime":null,"retentionTime":null,"sourceVolumeUUID":"0b","#,
            r#""sourceVolumeName":"vol-src","replicaCount":1,"nodeList":["n1"],"nsid":7,"#,
            r#""acl":{"values":["ALLOW_ANY"]},"compression":false,"size":"2147483648","#,
            r#""IPAcl":{"values":[]},"sectorSize":4096,"statistics":{"logicalUsedStorage":"0","#,
            r#""physicalUsedStorage":"0","compressionRatio":0},"ETag":"3","#,
            r#""projectName":"default","primaryNodeUUID":"n1","labels":[],"clusterId":"c","#,
            r#""pgUUID":""}"#
        )
    );
}

#[test]
fn a_volume_says_compression_as_text_and_size_as_quoted_bytes() {
    let volume = Volume {
        state: "Available",
        protection_state: "FullyProtected",
        uuid: "0b".to_owned(),
        name: "vol-src".to_owned(),
        size_bytes: u64::MAX,
        used_bytes: 4096,
        sector_bytes: 4096,
        source_snapshot: Some(Named { uuid: "0a".to_owned(), name: "s0".to_owned() }),
        labels: vec![Label { key: "k".to_owned(), value: String::new() }],
        created: "2026-06-14T12:00:05Z".to_owned(),
        ..Volume::default()
    };
    assert_eq!(
        volume_json(&volume, Profile::A),
        concat!(
            r#"{"state":"Available","protectionState":"FullyProtected","UUID":"0b","acl":{},"#,
            r#""compression":"false","size":"18446744073709551615","name":"vol-src","#,
            r#""rebuildProgress":"None","statistics":{"logicalUsedStorage":"4096","#,
            r#""physicalUsedStorage":"4096","compressionRatio":1},"IPAcl":{},"sectorSize":4096,"#,
            r#""sourceSnapshotUUID":"0a","sourceSnapshotName":"s0","#,
            r#""creationTime":"2026-06-14T12:00:05Z","labels":[{"key":"k"}]}"#
        )
    );
    let zeros = volume_json(&Volume::default(), Profile::B);
    for field in [
        r#""nsid":0"#,
        r#""nodeList":[]"#,
        r#""connectedHosts":[]"#,
        r#""placementRestrictions":[]"#,
        r#""qosPolicyUUID":"""#,
        r#""qosPolicyName":"""#,
        r#""size":"0""#,
        r#""labels":[]"#,
    ] {
        assert!(zeros.contains(field), "{field} is not in {zeros}");
    }
}

#[test]
fn errors_have_the_four_fields_of_the_gateway() {
    assert_eq!(
        error_json("no \"such\" <thing>\n", 5),
        concat!(
            r#"{"error":"no \"such\" \u003cthing\u003e\u000a","#,
            r#""message":"no \"such\" \u003cthing\u003e\u000a","code":5,"details":[]}"#
        )
    );
}

#[test]
fn version_and_cluster_are_these_bytes() {
    assert_eq!(version_json(Profile::A), r#"{"apiVersion":"v2.0"}"#);
    let cluster = Cluster {
        uuid: "c".to_owned(),
        subsystem_nqn: "nqn".to_owned(),
        api_endpoints: vec!["127.0.0.1:443".to_owned()],
    };
    assert_eq!(
        cluster_json(&cluster, Profile::A),
        concat!(
            r#"{"UUID":"c","subsystemNQN":"nqn","currentMaxReplicas":1,"#,
            r#""supportedMaxReplicas":3,"ETag":"1","apiEndpoints":["127.0.0.1:443"]}"#
        )
    );
}

#[test]
fn moments_are_rfc_3339_with_0_3_6_or_9_digits() {
    assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(951_782_400, 1_000_000), "2000-02-29T00:00:00.001Z");
    assert_eq!(rfc3339(1_781_438_405, 459_308_408), "2026-06-14T12:00:05.459308408Z");
    assert_eq!(rfc3339(4_102_444_799, 999_000), "2099-12-31T23:59:59.000999Z");
}

#[test]
fn sizes_are_read_in_every_form_clients_send() {
    assert_eq!(parse_size("4294967296"), Some(1 << 32));
    assert_eq!(parse_size("4294967296b"), Some(1 << 32));
    assert_eq!(parse_size("4 gib"), Some(1 << 32));
    assert_eq!(parse_size(" 4GiB "), Some(1 << 32));
    for bad in
        ["", "gib", "-1", "1.5gib", "4 gibi", "99999999999999999999", "18446744073709551615kib"]
    {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}

#[test]
fn bodies_are_read_with_numbers_text_nulls_and_unknown_keys() {
    let body = r#"{"name":"v","size":4096,"replicaCount":"3","acl":{"values":["a"]},"IPAcl":null,
        "compression":true,"sourceSnapshotUUID":null,"qosPolicyName":null,"new":{"x":1}}"#;
    let parsed: CreateVolume = serde_json::from_str(body).unwrap();
    let loose = |text: &str| Some(Loose(text.to_owned()));
    assert_eq!(parsed.size, loose("4096"));
    assert_eq!(parsed.replica_count, loose("3"));
    assert_eq!(parsed.compression, loose("true"));
    assert_eq!(parsed.source_snapshot_uuid, None);
    assert_eq!(parsed.ip_acl, None);
    assert_eq!(parsed.acl, Some(AccessList { values: Some(vec!["a".to_owned()]) }));
    assert!(serde_json::from_str::<CreateVolume>(r#"{"size":1.5}"#).is_err());
    assert!(serde_json::from_str::<CreateVolume>(r#"{"name":["v"]}"#).is_err());
    let update: UpdateVolume = serde_json::from_str(r#"{"Force":true,"newName":"n"}"#).unwrap();
    assert_eq!((update.force, update.new_name), (loose("true"), loose("n")));
}

proptest! {
    #[test]
    fn bit_i_is_bit_i_mod_8_of_byte_i_div_8(chunk in 0u64..1 << 40, bits: u64) {
        for profile in [Profile::A, Profile::B] {
            let page = diff_json(0, &[range(chunk, bits)], profile);
            let page: serde_json::Value = serde_json::from_str(&page).unwrap();
            let map = page["lbaRanges"][0]["dataBitMap"].as_str().unwrap();
            prop_assert_eq!(map.len(), 12);
            let bytes = BASE64.decode(map).unwrap();
            for bit in 0..64 {
                prop_assert_eq!(bytes[bit / 8] >> (bit % 8) & 1 == 1, bits >> bit & 1 == 1);
            }
        }
    }

    #[test]
    fn every_text_survives_as_json(text: String) {
        let mut json = String::new();
        push_text(&mut json, &text);
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
