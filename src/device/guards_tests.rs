//! Each guard on plain facts.

use super::*;
use std::path::PathBuf;

const VOLUME: VolumeUuid = VolumeUuid::from_u128(0x2905_1d6a);
const OTHER: VolumeUuid = VolumeUuid::from_u128(0x04aa_8885);
const DEV: Dev = Dev { major: 259, minor: 2 };

fn file(gib: u64) -> Node {
    Node::File { fs: DEV, inode: 7, size_bytes: gib << 30 }
}

fn mount(fs_type: &str, source: &str, point: &str) -> Mount {
    Mount {
        dev: DEV,
        point: PathBuf::from(point),
        fs_type: fs_type.to_owned(),
        source: source.to_owned(),
        options: "rw".to_owned(),
    }
}

fn disk(name: &str) -> Disk {
    Disk { name: name.to_owned(), ..Disk::default() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Guarded<T>, guard: &str, parts: &[&str]) {
    let refusal = answer.expect_err("it must be refused");
    assert_eq!(refusal.guard, guard, "{refusal}");
    for part in parts {
        assert!(refusal.message.contains(part), "`{part}` is missing in: {refusal}");
    }
}

/// The set-ups of `open_tests.rs` in which each guard refuses and leaves the device as it is.
const SET_UPS: [(&str, &[&str]); 15] = [
    ("G1", &["files_folders_and_missing_paths_are_refused"]),
    ("G2", &["holders_paths_and_twins_are_refused"]),
    (
        "G3",
        &[
            "partitions_are_refused_whole_disk_or_part",
            "a_real_partition_is_seen_in_the_real_sysfs",
        ],
    ),
    ("G4", &["holders_paths_and_twins_are_refused", "a_served_file_under_a_loop_device_is_held"]),
    ("G5", &["holders_paths_and_twins_are_refused", "two_loop_devices_on_one_file_are_refused"]),
    ("G6", &["a_mounted_device_is_refused_by_any_name", "a_device_in_use_as_swap_is_refused"]),
    (
        "G7",
        &[
            "a_mount_that_cannot_be_seen_from_here_is_refused_by_the_kernel",
            "a_second_run_on_the_same_device_is_refused_and_told_who_has_it",
            "a_device_swapped_between_the_look_and_the_open_is_refused",
        ],
    ),
    (
        "G8",
        &[
            "a_lock_of_a_program_that_opened_it_plainly_is_respected",
            "a_served_file_is_locked_armed_and_written_like_a_device",
        ],
    ),
    ("G9", &["a_read_only_device_is_refused_although_it_opens"]),
    ("G10", &["another_size_or_too_small_a_size_is_refused"]),
    ("G11", &["sectors_larger_than_an_lba_are_refused"]),
    (
        "G12",
        &[
            "another_volume_and_a_swapped_one_are_refused",
            "a_disk_that_took_over_the_node_before_it_was_open_is_refused",
            "a_proof_for_one_volume_does_not_arm_another",
        ],
    ),
    ("G13", &["one_device_in_two_roles_is_refused_by_any_name"]),
    ("G14", &["a_device_with_a_signature_is_refused_until_it_is_named"]),
    ("G15", &["nothing_is_opened_without_consent"]),
];

#[test]
fn every_guard_of_the_sources_refuses_in_a_set_up_of_its_own() {
    let sources = [
        include_str!("guards.rs"),
        include_str!("open.rs"),
        include_str!("block.rs"),
        include_str!("signature.rs"),
        include_str!("consent.rs"),
    ];
    let quoted = |text: &'static str| text.split('"').filter(|word| is_guard(word));
    let found: std::collections::BTreeSet<&str> = sources.into_iter().flat_map(quoted).collect();
    assert_eq!(found, SET_UPS.iter().map(|(guard, _)| *guard).collect());
    let tests = include_str!("open_tests.rs");
    for (guard, names) in SET_UPS {
        for name in names {
            let start = tests.find(&format!("\n#[test]\nfn {name}() {{")).expect(name);
            let body = tests[start..].split("\n}\n").next().expect("a body");
            assert!(body.contains(&format!("\"{guard}\"")), "{name} does not expect {guard}");
        }
    }
}

#[test]
fn the_catalogue_has_every_guard_in_order() {
    let names = crate::device::GUARDS.map(|guard| guard.name);
    assert_eq!(names, SET_UPS.map(|(guard, _)| guard));
}

fn is_guard(word: &str) -> bool {
    word.strip_prefix('G').is_some_and(|number| number.parse::<u32>().is_ok())
}

#[test]
fn g1_a_typo_under_dev_is_named() {
    let path = Path::new("/dev/nvme0n9");
    let answer = g1_kind(path, path, &file(12), None, true, VOLUME);
    assert_eq!(
        answer.expect_err("a file").to_string(),
        "refused G1: /dev/nvme0n9 is a regular file (12 GiB). a typo under /dev makes files; \
         remove it"
    );
}

#[test]
fn g1_trusts_a_file_only_on_a_running_servers_mount_and_with_the_volumes_name() {
    let path = PathBuf::from(format!("/tmp/x/{VOLUME}"));
    let check = |path: &Path, mount: Option<&Mount>, runs| {
        g1_kind(path, path, &file(2), mount, runs, VOLUME)
    };
    let sim = mount("fuse", "lbaudit-sim-4121", "/tmp/x");
    assert_eq!(check(&path, Some(&sim), true), Ok(()));
    refused(check(&path, Some(&sim), false), "G1", &["4121", "clean"]);
    refused(check(Path::new("/tmp/x/vol"), Some(&sim), true), "G1", &["UUID"]);
    let qemu = mount("fuse", "/dev/fuse", path.to_str().expect("text"));
    assert_eq!(check(&path, Some(&qemu), false), Ok(()));
    refused(check(Path::new("/tmp/x/vol"), Some(&qemu), true), "G1", &["regular file"]);
    for (fs_type, source) in
        [("ext4", "lbaudit-sim-4121"), ("fuse.sshfs", "me@host:"), ("fuse", "lbaudit-sim-x")]
    {
        let foreign = mount(fs_type, source, "/tmp/x");
        refused(check(&path, Some(&foreign), true), "G1", &["regular file (2 GiB)"]);
    }
    refused(check(&path, None, true), "G1", &["regular file"]);
}

#[test]
fn g1_refuses_what_is_neither_file_nor_block_device() {
    let path = Path::new("/dev/null");
    let null = Node::Other("a character device");
    refused(g1_kind(path, path, &null, None, true, VOLUME), "G1", &["/dev/null", "character"]);
    assert_eq!(g1_kind(path, path, &Node::Block(DEV), None, false, VOLUME), Ok(()));
}

#[test]
fn g2_names_the_head_of_a_path_node() {
    refused(g2_not_a_path(&disk("nvme0c1n1")), "G2", &["use /dev/nvme0n1"]);
    refused(g2_not_a_path(&Disk { hidden: true, ..disk("nvme0n1") }), "G2", &["one path"]);
    assert_eq!(g2_not_a_path(&disk("nvme0n1")), Ok(()));
}

#[test]
fn g3_refuses_partitions_and_partitioned_disks() {
    let part = Disk { partition: Some((1, "nvme0n1".into())), ..disk("nvme0n1p1") };
    refused(g3_whole_disk(&part, &[]), "G3", &["partition 1 of nvme0n1"]);
    let parts = vec![("nvme0n1p1".to_owned(), None), ("nvme0n1p2".to_owned(), None)];
    let uses = ["mounted on /boot (ext4, rw)".to_owned()];
    refused(
        g3_whole_disk(&Disk { parts, ..disk("nvme0n1") }, &uses),
        "G3",
        &["2 partition(s): nvme0n1p1, nvme0n1p2 (mounted on /boot"],
    );
    assert_eq!(g3_whole_disk(&disk("nvme0n1"), &[]), Ok(()));
}

#[test]
fn g4_and_g5_name_who_else_writes() {
    refused(g4_no_holders("nvme0n1", &["dm-3".into()]), "G4", &["held by dm-3", "multipath -f"]);
    assert_eq!(g4_no_holders("nvme0n1", &[]), Ok(()));
    let heads = ["nvme0n1".to_owned(), "nvme4n1".to_owned()];
    refused(g5_no_twin("nvme0n1", "uuid.1", &heads), "G5", &["nvme0n1 and nvme4n1", "uuid.1"]);
    assert_eq!(g5_no_twin("nvme0n1", "uuid.1", &heads[..1]), Ok(()));
    let (file, loops) = (Path::new("/x/image"), ["loop3".to_owned(), "loop7".to_owned()]);
    refused(g5_no_second_loop("loop7", file, &loops), "G5", &["loop7 and loop3", "/x/image"]);
    assert_eq!(g5_no_second_loop("loop3", file, &loops[..1]), Ok(()));
}

#[test]
fn g6_lists_every_use() {
    let path = Path::new("/dev/nvme0n1");
    let uses = ["mounted on /var/lib/mysql (ext4, rw)".to_owned(), "in use as swap".to_owned()];
    refused(g6_not_in_use(path, &uses), "G6", &["/var/lib/mysql (ext4, rw) and in use as swap"]);
    assert_eq!(g6_not_in_use(path, &[]), Ok(()));
}

#[test]
fn g9_to_g11_compare_with_the_volume() {
    let path = Path::new("/dev/nvme0n1");
    refused(g9_writable(path, true), "G9", &["read-only"]);
    assert_eq!(g9_writable(path, false), Ok(()));
    let size = |device, volume, lbas| g10_size(path, device, "vol", volume, LbaCount::new(lbas));
    refused(size(2 << 30, 4 << 30, 1), "G10", &["2147483648", "4294967296", "rescan"]);
    refused(size(1 << 30, 1 << 30, (1 << 18) + 1), "G10", &["1 GiB", "1048580 KiB"]);
    assert_eq!(size(1 << 30, 1 << 30, 1 << 18), Ok(()));
    for sectors in [0, 8192, 4095] {
        refused(g11_sectors(path, sectors, 4096), "G11", &["logical sectors"]);
    }
    assert_eq!(g11_sectors(path, 512, 4096), Ok(()));
    assert_eq!(g11_sectors(path, 4096, 4096), Ok(()));
}

#[test]
fn a_file_is_served_by_the_topmost_mount_above_it_while_its_process_runs() {
    let mount = |point: &str, fs_type: &str, source: &str| Mount {
        dev: Dev { major: 0, minor: 9 },
        point: point.into(),
        fs_type: fs_type.to_owned(),
        source: source.to_owned(),
        options: String::new(),
    };
    let mounts = [
        mount("/", "ext4", "/dev/sda1"),
        mount("/sim", "fuse", "lbaudit-sim-7"),
        mount("/sim/inner", "ext4", "/dev/sdb1"),
        mount("/named", "ext4", "lbaudit-sim-7"),
        mount("/export/vol", "fuse", "/dev/fuse"),
        mount("/over", "fuse", "lbaudit-sim-7"),
        mount("/over", "tmpfs", "tmpfs"),
    ];
    let served = |file: &str| is_served(&mounts, Path::new(file), |pid| pid == 7);
    assert!(served("/sim/volume-0") && served("/export/vol"));
    for file in ["/vol", "/simx/volume-0", "/sim/inner/f", "/named/f", "/export/vol2", "/over/f"] {
        assert!(!served(file), "{file}");
    }
    assert!(!is_served(&mounts, Path::new("/sim/volume-0"), |_| false), "it is gone");
}

#[test]
fn g12_believes_a_wwid_then_a_backing_name_then_nothing() {
    let path = Path::new("/dev/nvme0n1");
    let own = wwid_of_volume(VOLUME);
    let check = |wwid: Option<&str>, backing: Option<&str>| {
        g12_identity(path, wwid, backing.map(Path::new), VOLUME, Some(OTHER))
    };
    assert_eq!(check(Some(&own), None), Ok(Identity::Wwid));
    assert_eq!(check(Some(&own.to_uppercase()), None), Ok(Identity::Wwid));
    assert_eq!(check(None, Some(&format!("/x/{VOLUME}.img"))), Ok(Identity::BackingName));
    assert_eq!(check(None, Some("/x/disk.img")), Ok(Identity::Undecided));
    // The folder's name is not the file's.
    assert_eq!(check(None, Some(&format!("/{VOLUME}/disk"))), Ok(Identity::Undecided));
    assert_eq!(check(None, None), Ok(Identity::Undecided));
    refused(check(Some(&wwid_of_volume(OTHER)), None), "G12", &["swapped", &OTHER.to_string()]);
    refused(check(None, Some(&format!("/x/{OTHER}"))), "G12", &["swapped"]);
    for foreign in ["eui.0025385b71b0a1d2", "nvme.1234", "uuid.", &VOLUME.to_string()] {
        refused(check(Some(foreign), Some(&format!("/x/{VOLUME}"))), "G12", &[foreign, &own]);
    }
}

#[test]
fn g13_tells_two_things_by_number_identity_file_and_volume() {
    let (a, b) = (Path::new("/dev/a"), Path::new("/dev/b"));
    let twin = Node::Block(Dev { minor: 3, ..DEV });
    let block = Node::Block(DEV);
    let one = Told { path: a, node: &block, wwid: Some("uuid.1"), backing: None, volume: VOLUME };
    let two = Told { path: b, node: &twin, wwid: Some("uuid.2"), backing: None, volume: OTHER };
    assert_eq!(g13_two_things(one, two), Ok(()));
    refused(g13_two_things(one, Told { volume: VOLUME, ..two }), "G13", &["both said to be"]);
    refused(g13_two_things(one, Told { node: &block, ..two }), "G13", &["same device"]);
    refused(g13_two_things(one, Told { wwid: Some("UUID.1"), ..two }), "G13", &["one volume"]);
    let back = Some(Path::new("/x/disk"));
    let (one, two) = (Told { backing: back, ..one }, Told { backing: back, ..two });
    refused(g13_two_things(one, two), "G13", &["/x/disk"]);
    let none = |told| Told { wwid: None, backing: None, ..told };
    assert_eq!(g13_two_things(none(one), none(two)), Ok(()));
}

#[test]
fn sizes_are_exact_in_the_largest_unit() {
    assert_eq!(size_text(12 << 30), "12 GiB");
    assert_eq!(size_text((1776 << 20) + 4096), "1818628 KiB");
    assert_eq!(size_text(0), "0 bytes");
    assert_eq!(size_text(u64::MAX), "18446744073709551615 bytes");
}
