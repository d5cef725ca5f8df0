//! The preflight against a healthy set-up and against each thing that can be wrong.

use super::*;
use crate::block::{RunId, SnapshotName};
use crate::campaign::testing::{TestArray, reply};
use crate::device::testing::{FakeSysfs, LoopDevice};
use std::path::Path;
use std::time::UNIX_EPOCH;

const SOURCE: VolumeUuid = VolumeUuid::from_u128(0x51);
const TARGET: VolumeUuid = VolumeUuid::from_u128(0x52);
const MIB: u64 = 4;

fn info(uuid: VolumeUuid) -> VolumeInfo {
    VolumeInfo {
        uuid,
        name: "vol".to_owned(),
        size_bytes: MIB << 20,
        sector_bytes: 4096,
        usable: true,
        writable: true,
        is_clone: false,
        clone_of: None,
    }
}

fn array() -> TestArray {
    let array = TestArray::default();
    for uuid in [SOURCE, TARGET] {
        array.inner().volumes.insert(uuid, info(uuid));
    }
    array
}

fn volumes(devices: [Option<&Path>; 2]) -> Vec<VolumeInput> {
    let roles = [(Role::Source, SOURCE), (Role::Target, TARGET)];
    let with_device = roles.into_iter().zip(devices);
    with_device
        .map(|((role, volume), device)| VolumeInput {
            role,
            volume,
            device: device.map(Path::to_owned),
        })
        .collect()
}

fn inputs<'a>(volumes: &'a [VolumeInput], host: &'a Host) -> Inputs<'a> {
    Inputs {
        endpoint: "https://127.0.0.1:1",
        tls: TlsCheck::Pinned,
        token_expires: Some(UNIX_EPOCH + Duration::from_secs(10 * 3600)),
        project: "default",
        volumes,
        footprint: LbaCount::mib(MIB),
        host,
        runs: Runs { root: Path::new("/nowhere"), own: None, delete_unknown: false },
        now: UNIX_EPOCH,
    }
}

#[track_caller]
fn find<'a>(rows: &'a [Row], what: &str) -> &'a Row {
    rows.iter().find(|row| row.what == what).expect(what)
}

#[track_caller]
fn expect(rows: &[Row], what: &str, state: RowState, part: &str) {
    let row = find(rows, what);
    assert_eq!(row.state, state, "{row:?}");
    assert!(row.seen.contains(part) || row.next.contains(part), "{part} is missing: {row:?}");
    assert!(state != RowState::Fail || !row.seen.is_empty());
}

/// The rows when no device is there, after `change`.
fn without_devices(change: impl FnOnce(&TestArray, &mut Inputs<'_>)) -> Vec<Row> {
    let fake = FakeSysfs::new();
    let (host, volumes, array) = (fake.host(), volumes([None, None]), array());
    let mut inputs = inputs(&volumes, &host);
    change(&array, &mut inputs);
    examine(&inputs, &array)
}

#[test]
fn a_healthy_set_up_is_all_ok_and_devices_are_found_by_their_volume() {
    let (Some(source), Some(target)) = (LoopDevice::attach(MIB), LoopDevice::attach(MIB)) else {
        return;
    };
    let before = [source.hash(), target.hash()];
    let names = [(&source, SOURCE), (&target, TARGET)];
    let fake = FakeSysfs::new();
    for (device, volume) in names {
        let name = device.path().file_name().expect("a name").to_string_lossy().into_owned();
        let number = name.trim_start_matches("loop");
        let disk = fake.disk_of(&format!("nvme{number}n1"), device);
        disk.attribute("wwid", &format!("uuid.{volume}"));
    }
    let (host, array) = (fake.host(), array());
    let given = volumes([Some(source.path()), Some(target.path())]);
    let rows = examine(&inputs(&given, &host), &array);
    assert!(rows.iter().all(|row| row.state == RowState::Ok), "{rows:#?}");
    assert_eq!([source.hash(), target.hash()], before);

    // The same device twice, and swapped ones.
    let twice = volumes([Some(source.path()), Some(source.path())]);
    let rows = examine(&inputs(&twice, &host), &array);
    expect(&rows, "two devices", RowState::Fail, "same device");
    expect(&rows, "target identity", RowState::Fail, "swapped");
    let swapped = volumes([Some(target.path()), Some(source.path())]);
    let rows = examine(&inputs(&swapped, &host), &array);
    expect(&rows, "source identity", RowState::Fail, "swapped");

    // Another size on the array.
    array.inner().volumes.get_mut(&SOURCE).expect("it is there").size_bytes += 4096;
    let rows = examine(&inputs(&given, &host), &array);
    expect(&rows, "source device", RowState::Fail, "G10");
}

#[test]
fn a_device_without_identity_is_left_to_the_handshake() {
    let Some(source) = LoopDevice::attach(MIB) else { return };
    let host = Host::default();
    let given = volumes([Some(source.path()), Some(Path::new("/dev/null"))]);
    let rows = examine(&inputs(&given, &host), &array());
    expect(&rows, "source identity", RowState::Warn, "handshake");
    expect(&rows, "source device", RowState::Ok, "reads with O_DIRECT");
    expect(&rows, "target device", RowState::Fail, "G1");
    expect(&rows, "two devices", RowState::Skip, "both");
}

#[test]
fn a_volume_that_is_not_attached_here_is_named() {
    let rows = without_devices(|_, _| {});
    expect(&rows, "source device", RowState::Fail, &SOURCE.to_string());
    expect(&rows, "source volume", RowState::Ok, "4 MiB");
    expect(&rows, "tls", RowState::Ok, "pinned");
    expect(&rows, "token", RowState::Ok, "10 h 0 min");
    expect(&rows, "diff call", RowState::Ok, "offers");
    expect(&rows, "leftovers", RowState::Ok, "none");
}

#[test]
fn each_failure_to_reach_the_array_shows_in_its_own_row_and_skips_the_rest() {
    let failing = |fault| without_devices(|array, _| array.inner().fail_volume = Some(fault));
    let rows =
        failing(|| ApiError::Transport { call: "GET".into(), cause: "refused".into(), tries: 3 });
    expect(&rows, "endpoint", RowState::Fail, "--endpoint");
    expect(&rows, "project", RowState::Skip, "");
    expect(&rows, "source volume", RowState::Skip, "");
    expect(&rows, "diff call", RowState::Skip, "");
    expect(&failing(|| ApiError::Tls("unknown issuer".into())), "tls", RowState::Fail, "--pin");
    let rows = failing(|| ApiError::Auth(reply("expired")));
    expect(&rows, "project", RowState::Fail, "--project");
    expect(&rows, "endpoint", RowState::Ok, "https");
    let rows = failing(|| ApiError::NotFound(reply("no such\u{7} volume")));
    expect(&rows, "source volume", RowState::Fail, "no such\\u{7} volume");
    expect(&rows, "source device", RowState::Skip, "");
    expect(&rows, "diff call", RowState::Ok, "");
}

#[test]
fn tokens_that_end_and_unchecked_certificates_are_told() {
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    let rows = without_devices(|_, inputs| inputs.token_expires = at(59 * 60));
    expect(&rows, "token", RowState::Warn, "0 h 59 min");
    let rows = without_devices(|_, inputs| {
        inputs.now = UNIX_EPOCH + Duration::from_secs(1_000_000);
    });
    expect(&rows, "token", RowState::Fail, "expired");
    let rows = without_devices(|_, inputs| inputs.token_expires = None);
    expect(&rows, "token", RowState::Skip, "");
    let rows = without_devices(|_, inputs| inputs.tls = TlsCheck::None);
    expect(&rows, "tls", RowState::Warn, "--insecure");
}

#[test]
fn volumes_that_cannot_be_tested_are_told() {
    let changed = |change: fn(&mut VolumeInfo)| {
        without_devices(|array, _| {
            array.inner().volumes.values_mut().for_each(change);
        })
    };
    expect(&changed(|v| v.usable = false), "source volume", RowState::Fail, "not usable");
    expect(&changed(|v| v.writable = false), "target volume", RowState::Fail, "protection");
    expect(&changed(|v| v.size_bytes = 4096), "source volume", RowState::Fail, "at least 4 MiB");
    expect(&changed(|v| v.is_clone = true), "source volume", RowState::Warn, "clone");
    expect(&changed(|v| v.sector_bytes = 512), "source sectors", RowState::Warn, "4096");
    expect(&changed(|v| v.uuid = VolumeUuid::from_u128(9)), "source volume", RowState::Fail, "got");
}

#[test]
fn a_missing_diff_call_and_leftovers_are_told() {
    let rows = without_devices(|array, _| {
        array.inner().fail_diff = Some(|| ApiError::NoSuchCall(reply("Not Found")));
        array.put(&SnapshotName::new(RunId::from_u128(1), 1).to_string(), SOURCE);
        array.put("nightly", SOURCE);
    });
    expect(&rows, "diff call", RowState::Fail, "too old");
    expect(&rows, "leftovers", RowState::Warn, "1 snapshots of this tool, 0 of live runs");
}

#[test]
fn the_suite_needs_1776_mib() {
    assert_eq!(SUITE_FOOTPRINT.nominal_bytes().get(), 1776 << 20);
}
