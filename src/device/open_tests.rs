//! The guards in order, on real loop devices (as root) behind a sysfs made of files: every refusal
//! leaves the device byte-identical. And what handshake and armed device let through.

use super::*;
use crate::array::{BlockDevice, DeviceError};
use crate::block::{ByteOffset, Extent, Lba};
use crate::device::ConsentItem;
use crate::device::signature::Allowed;
use crate::device::testing::{FakeDisk, FakeSysfs, LoopDevice, fill, hash, skip, tool};
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 4;
const SOURCE: VolumeUuid = VolumeUuid::from_u128(0x2905_1d6a_0000_0000_0000_0000_0000_0001);
const TARGET: VolumeUuid = VolumeUuid::from_u128(0x04aa_8885_0000_0000_0000_0000_0000_0002);

fn wanted(path: &Path, volume: VolumeUuid) -> Wanted {
    Wanted {
        path: path.to_owned(),
        volume,
        name: "vol".to_owned(),
        size_bytes: MIB << 20,
        sector_bytes: 4096,
        footprint: LbaCount::mib(MIB),
        counterpart: Some(if volume == SOURCE { TARGET } else { SOURCE }),
    }
}

fn consent() -> Consent {
    let tail = |volume: VolumeUuid| volume.to_string()[24..].parse().expect("a tail");
    Consent::new(vec![tail(SOURCE), tail(TARGET)])
}

/// A loop device that a made-up sysfs shows as the namespace of `volume`.
struct Namespace {
    sysfs: FakeSysfs,
    device: LoopDevice,
    disk: FakeDisk,
}

fn namespace(volume: VolumeUuid) -> Option<Namespace> {
    let device = LoopDevice::attach(MIB)?;
    let sysfs = FakeSysfs::new();
    let disk = sysfs.disk_of("nvme0n1", &device);
    disk.attribute("wwid", &sysfs::wwid_of_volume(volume));
    Some(Namespace { sysfs, device, disk })
}

impl Namespace {
    fn open(&self, wanted: Wanted) -> Guarded<Vec<Identified>> {
        open_volumes(&self.sysfs.host(), vec![wanted], &consent())
    }
    fn wanted(&self) -> Wanted {
        wanted(self.device.path(), SOURCE)
    }
    /// The guard refuses, says `part`, and no byte changes.
    #[track_caller]
    fn refuses(&self, wanted: Wanted, guard: &str, part: &str) {
        let before = self.device.hash();
        refused(self.open(wanted), guard, part);
        assert_eq!(self.device.hash(), before, "the refusal changed the device");
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Guarded<T>, guard: &str, part: &str) {
    let refusal = answer.expect_err("it must be refused");
    assert_eq!(refusal.guard, guard, "{refusal}");
    assert!(refusal.message.contains(part), "`{part}` is missing in: {refusal}");
}

/// A mounted ext2 on a loop device; unmounted by its own drop.
struct Mounted {
    point: TempDir,
}

impl Mounted {
    fn on(device: &LoopDevice) -> Option<Mounted> {
        let path = device.path().as_os_str();
        let point = tempfile::tempdir().expect("a folder");
        let made = tool("mkfs.ext2", &["-q".as_ref(), "-F".as_ref(), path]);
        (made && tool("mount", &[path, point.path().as_os_str()])).then_some(Mounted { point })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(tool("umount", &[self.point.path().as_os_str()]), "the mount stays");
    }
}

/// A second node of the same device.
fn second_node(folder: &TempDir, device: &LoopDevice) -> Option<PathBuf> {
    let (path, dev) = (folder.path().join("twin"), device.dev());
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::BlockDevice,
        Mode::RUSR | Mode::WUSR,
        rustix::fs::makedev(dev.major, dev.minor),
    );
    if made.is_err() || File::open(&path).is_err() {
        return skip("no device nodes in the temporary folder");
    }
    Some(path)
}

#[test]
fn a_mounted_device_is_refused_by_any_name() {
    let Some(space) = namespace(SOURCE) else { return };
    let Some(_mounted) = Mounted::on(&space.device) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("link");
    symlink(space.device.path(), &link).expect("a link");
    space.refuses(space.wanted(), "G6", "mounted on");
    space.refuses(wanted(&link, SOURCE), "G6", "ext");
    if let Some(twin) = second_node(&folder, &space.device) {
        space.refuses(wanted(&twin, SOURCE), "G6", "mounted on");
    }
}

/// A machine with this sysfs, whose procfs says nothing but what stands in these tables.
fn host_with_tables(space: &Namespace, folder: &TempDir, mounts: &str, swaps: &str) -> Host {
    fs::create_dir(folder.path().join("self")).expect("a folder");
    fs::write(folder.path().join("self/mountinfo"), mounts).expect("a table");
    fs::write(folder.path().join("swaps"), swaps).expect("a table");
    Host { proc: folder.path().to_owned(), ..space.sysfs.host() }
}

#[test]
fn a_device_in_use_as_swap_is_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let swaps =
        format!("Filename Type Size\n{} partition 4092 0 -2\n", space.device.path().display());
    let host = host_with_tables(&space, &folder, "", &swaps);
    let before = space.device.hash();
    refused(open_volumes(&host, vec![space.wanted()], &consent()), "G6", "in use as swap");
    assert_eq!(space.device.hash(), before);
}

#[test]
fn a_mount_that_cannot_be_seen_from_here_is_refused_by_the_kernel() {
    let Some(space) = namespace(SOURCE) else { return };
    let Some(_mounted) = Mounted::on(&space.device) else { return };
    let proc = tempfile::tempdir().expect("a folder");
    let host = host_with_tables(&space, &proc, "", "");
    let before = space.device.hash();
    let answer = open_volumes(&host, vec![space.wanted()], &consent());
    refused(answer, "G7", "not visible from here");
    assert_eq!(space.device.hash(), before);
}

#[test]
fn partitions_are_refused_whole_disk_or_part() {
    let Some(space) = namespace(SOURCE) else { return };
    let Some(other) = LoopDevice::attach(MIB) else { return };
    let dev = other.dev();
    space.disk.part("nvme0n1p1", 1, (dev.major, dev.minor));
    space.refuses(space.wanted(), "G3", "nvme0n1p1");
    space.refuses(wanted(other.path(), SOURCE), "G3", "partition 1 of nvme0n1");
}

#[test]
fn a_real_partition_is_seen_in_the_real_sysfs() {
    let Some(device) = LoopDevice::attach(MIB) else { return };
    let path = device.path().as_os_str();
    if !tool("addpart", &[path, "1".as_ref(), "8".as_ref(), "2048".as_ref()]) {
        return;
    }
    let before = device.hash();
    let host = Host::default();
    let answer = open_volumes(&host, vec![wanted(device.path(), SOURCE)], &consent());
    // A partition keeps the loop device attached.
    assert!(tool("delpart", &[path, "1".as_ref()]));
    refused(answer, "G3", "1 partition(s)");
    assert_eq!(device.hash(), before);
}

#[test]
fn holders_paths_and_twins_are_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    space.disk.attribute("hidden", "1");
    space.refuses(space.wanted(), "G2", "one path");
    space.disk.attribute("hidden", "0").holder("dm-3");
    space.refuses(space.wanted(), "G4", "dm-3");
    fs::remove_dir_all(space.sysfs.root().join("block/nvme0n1/holders")).expect("it was there");
    space.sysfs.disk("nvme4n1", (259, 77)).attribute("wwid", &sysfs::wwid_of_volume(SOURCE));
    space.refuses(space.wanted(), "G5", "nvme4n1");
}

#[test]
fn a_read_only_device_is_refused_although_it_opens() {
    let Some(space) = namespace(SOURCE) else { return };
    let path = space.device.path().as_os_str();
    if !tool("blockdev", &["--setro".as_ref(), path]) {
        return;
    }
    space.refuses(space.wanted(), "G9", "read-only");
    assert!(tool("blockdev", &["--setrw".as_ref(), path]));
    assert!(space.open(space.wanted()).is_ok());
}

#[test]
fn another_size_or_too_small_a_size_is_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    let larger = Wanted { size_bytes: (MIB << 20) + 4096, ..space.wanted() };
    space.refuses(larger, "G10", "rescanned");
    let footprint = LbaCount::mib(MIB) + LbaCount::new(1);
    space.refuses(Wanted { footprint, ..space.wanted() }, "G10", "larger volume");
}

/// The guards on the open descriptor, with facts that this machine's devices cannot have.
#[track_caller]
fn refuses_facts(space: &Namespace, change: fn(&mut Facts), guard: &str, part: &str) {
    let before = space.device.hash();
    let candidate = Candidate::inspect(&space.sysfs.host(), space.wanted()).expect("fine");
    let held = candidate.open().expect("it is free");
    let mut facts = Facts::read(&held.file, &held.candidate.node).expect("it is a device");
    change(&mut facts);
    refused(held.judged(facts), guard, part);
    assert_eq!(space.device.hash(), before, "the refusal changed the device");
}

#[test]
fn sectors_larger_than_an_lba_are_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    refuses_facts(&space, |facts| facts.logical_sector_bytes = 8192, "G11", "8192 bytes");
}

#[test]
fn a_disk_that_took_over_the_node_before_it_was_open_is_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    space.disk.attribute("diskseq", "7");
    refuses_facts(&space, |facts| facts.disk_seq = Some(8), "G12", "became another disk");
    refuses_facts(&space, |facts| facts.size_bytes += 4096, "G10", "rescanned");
    refuses_facts(&space, |facts| facts.read_only = true, "G9", "read-only");
}

#[test]
fn two_loop_devices_on_one_file_are_refused() {
    let Some(device) = LoopDevice::attach(MIB) else { return };
    let Some(twin) = device.again() else { return };
    let before = device.hash();
    let pair = [wanted(device.path(), SOURCE), wanted(twin.path(), TARGET)];
    let answer = open_volumes(&Host::default(), pair.to_vec(), &consent());
    refused(answer, "G5", "stand on one file");
    // Who has the other one is not known: mounted, it would be overwritten.
    let alone = open_volumes(&Host::default(), pair[..1].to_vec(), &consent());
    refused(alone, "G5", "losetup -d");
    assert_eq!([device.hash(), twin.hash()], [before.clone(), before]);
}

#[test]
fn another_volume_and_a_swapped_one_are_refused() {
    let Some(space) = namespace(TARGET) else { return };
    space.refuses(space.wanted(), "G12", "swapped");
    space.disk.attribute("wwid", "uuid.ffffffff-0000-0000-0000-000000000000");
    space.refuses(space.wanted(), "G12", "another volume");
}

#[test]
fn nothing_is_opened_without_consent() {
    let Some(space) = namespace(SOURCE) else { return };
    let before = space.device.hash();
    let host = space.sysfs.host();
    let ask = |consent: &Consent| open_volumes(&host, vec![space.wanted()], consent);
    refused(ask(&Consent::default()), "G15", "vol 29051d6a");
    let other = Consent::new(vec![ConsentItem::Name("other".to_owned())]);
    refused(ask(&other), "G15", "4194304 bytes");
    assert_eq!(space.device.hash(), before);
}

#[test]
fn a_device_with_a_signature_is_refused_until_it_is_named() {
    let Some(space) = namespace(SOURCE) else { return };
    let path = space.device.path().as_os_str().to_owned();
    let makers: [(&str, &[&str], &str); 2] =
        [("mkfs.ext4", &["-q", "-F"], "ext4"), ("mkswap", &["-q"], "swap")];
    for (maker, flags, name) in makers {
        let args: Vec<&std::ffi::OsStr> =
            flags.iter().map(|flag| flag.as_ref()).chain([path.as_os_str()]).collect();
        if !tool(maker, &args) {
            continue;
        }
        space.refuses(space.wanted(), "G14", &format!("--allow-signature {name}"));
        let before = space.device.hash();
        let allowing = |name: &str| {
            let allowed = Allowed::Named(vec![name.to_owned()]);
            open_volumes(&space.sysfs.host(), vec![space.wanted()], &consent().allowing(allowed))
        };
        refused(allowing("xfs"), "G14", name);
        assert!(allowing(name).is_ok(), "{name} was named");
        assert_eq!(space.device.hash(), before, "looking changed the device");
        // Without blkid our own table sees it too.
        let alone = Host { blkid: None, ..space.sysfs.host() };
        refused(open_volumes(&alone, vec![space.wanted()], &consent()), "G14", name);
    }
    let blind = Host { blkid: Some(PathBuf::from("/bin/false")), ..space.sysfs.host() };
    refused(open_volumes(&blind, vec![space.wanted()], &consent()), "G14", "cannot be searched");
}

#[test]
fn one_device_in_two_roles_is_refused_by_any_name() {
    let Some(space) = namespace(SOURCE) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("link");
    symlink(space.device.path(), &link).expect("a link");
    let twins =
        [Some(space.device.path().to_owned()), Some(link), second_node(&folder, &space.device)];
    let before = space.device.hash();
    for twin in twins.into_iter().flatten() {
        let (source, target) = (space.wanted(), wanted(&twin, TARGET));
        refused(open_pair(&space.sysfs.host(), source, target, &consent()), "G13", "same device");
    }
    assert_eq!(space.device.hash(), before);
}

#[test]
fn a_second_run_on_the_same_device_is_refused_and_told_who_has_it() {
    let Some(space) = namespace(SOURCE) else { return };
    let held = space.open(space.wanted()).expect("it is free");
    refused(space.open(space.wanted()), "G7", &format!("PID {}", std::process::id()));
    drop(held);
    // A program that another test starts holds every open file until it has become itself.
    let free = (0..500).any(|_| {
        let open = space.open(space.wanted()).is_ok();
        if !open {
            thread::sleep(Duration::from_millis(20));
        }
        open
    });
    assert!(free, "given up, it is free again");
}

#[test]
fn a_lock_of_a_program_that_opened_it_plainly_is_respected() {
    let Some(space) = namespace(SOURCE) else { return };
    let other = File::open(space.device.path()).expect("it opens");
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).expect("it is free");
    space.refuses(space.wanted(), "G8", &format!("PID {}", std::process::id()));
}

#[test]
fn a_device_swapped_between_the_look_and_the_open_is_refused() {
    let Some(space) = namespace(SOURCE) else { return };
    let Some(other) = LoopDevice::attach(MIB) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let Some(twin) = second_node(&folder, &space.device) else { return };
    let candidate = Candidate::inspect(&space.sysfs.host(), wanted(&twin, SOURCE)).expect("fine");
    fs::remove_file(&twin).expect("it was there");
    second_node(&folder, &other).expect("a node again");
    let before = other.hash();
    refused(candidate.open(), "G7", "became another device");
    assert_eq!(other.hash(), before);
}

#[test]
fn files_folders_and_missing_paths_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(SOURCE.to_string());
    fill(&file, MIB << 20);
    let before = hash(&file);
    let host = Host::default();
    let look = |path: &Path| Candidate::inspect(&host, wanted(path, SOURCE));
    refused(look(&file), "G1", "regular file (4 MiB)");
    refused(look(folder.path()), "G1", "a directory");
    refused(look(Path::new("/dev/null")), "G1", "character device");
    refused(look(&folder.path().join("none")), "G1", "No such file");
    assert_eq!(hash(&file), before);
}

#[test]
fn doctor_sees_a_device_without_opening_it_for_writing() {
    let Some(space) = namespace(SOURCE) else { return };
    let look = || Candidate::inspect(&space.sysfs.host(), space.wanted()).expect("fine").probe();
    let free = look().expect("it reads");
    assert_eq!((free.size_bytes, free.read_only, free.busy), (MIB << 20, false, None));
    let _held = space.open(space.wanted()).expect("it is free");
    let busy = look().expect("it still reads").busy.expect("it is taken");
    assert!(busy.contains("PID"), "{busy}");
}

#[test]
fn a_loop_device_is_known_by_the_name_of_the_file_behind_it_only_if_that_file_is_served() {
    let Some(device) = LoopDevice::named(MIB, &SOURCE.to_string()) else { return };
    let host = Host::default();
    // Somebody's backup, with the volume's UUID in its name.
    let opened = open_volumes(&host, vec![wanted(device.path(), SOURCE)], &consent());
    assert_eq!(opened.expect("it is free")[0].identity(), Identity::Undecided);
    // The same with the file in a mount of a simulator that runs, as the tables say.
    let folder = tempfile::tempdir().expect("a folder");
    let (proc, pid) = (folder.path().join("proc"), std::process::id());
    fs::create_dir_all(proc.join("self")).expect("folders");
    for name in ["swaps", "locks"] {
        symlink(Path::new("/proc").join(name), proc.join(name)).expect("a link");
    }
    fs::create_dir_all(proc.join(pid.to_string())).expect("folders");
    fs::write(proc.join(format!("{pid}/comm")), "lbaudit\n").expect("a name");
    let temporary = std::env::temp_dir().canonicalize().expect("a folder");
    let line = format!("1 2 0:99 / {} rw - fuse lbaudit-sim-{pid} rw\n", temporary.display());
    fs::write(proc.join("self/mountinfo"), line).expect("a table");
    let host = Host { proc, ..Host::default() };
    let opened = open_again(&host, wanted(device.path(), SOURCE)).expect("it is free");
    assert_eq!(opened[0].identity(), Identity::BackingName);
    drop(opened);
    refused(open_again(&host, wanted(device.path(), TARGET)), "G12", "swapped");
}

/// Opens a device that was just closed. A child that another test is starting has a copy of what was
/// open until its program runs, and the kernel takes it for somebody who has the device.
fn open_again(host: &Host, wanted: Wanted) -> Guarded<Vec<Identified>> {
    for _ in 0..200 {
        match open_volumes(host, vec![wanted.clone()], &consent()) {
            Err(refused) if refused.guard == "G7" => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            answer => return answer,
        }
    }
    open_volumes(host, vec![wanted], &consent())
}

/// Reads one LBA.
fn read(device: &dyn BlockDevice, lba: u64) -> AlignedBuf {
    let mut buf = AlignedBuf::new(4096);
    device.read_at(ByteOffset::new(lba * 4096), &mut buf).expect("it reads");
    buf
}

fn is_forbidden<T: std::fmt::Debug>(answer: &Result<T, DeviceError>) -> bool {
    matches!(answer, Err(DeviceError::Forbidden { .. }))
}

#[test]
fn the_handshake_writes_back_only_what_it_read_where_it_read_it() {
    let Some(space) = namespace(SOURCE) else { return };
    let before = space.device.hash();
    let opened = space.open(space.wanted()).expect("it is free").remove(0);
    assert_eq!(opened.identity(), Identity::Wwid);
    let port = opened.handshake_port(LbaSet::from(Extent::lbas(5, 2)));
    let at = |lba: u64| ByteOffset::new(lba * 4096);
    let mut block = read(&port, 4);
    assert!(is_forbidden(&port.write_at(at(4), &block)), "not an allowed LBA");
    assert!(is_forbidden(&port.write_at(at(5), &block)), "never read there");
    block = read(&port, 5);
    assert!(is_forbidden(&port.write_at(at(6), &block)), "read elsewhere");
    assert_eq!(port.write_at(at(5), &block).expect("the very bytes"), 4096);
    assert!(is_forbidden(&port.write_at(ByteOffset::new(5 * 4096 + 512), &block)), "unaligned");
    assert!(is_forbidden(&port.write_at(at(5), &block[..512])), "a part of a block");
    assert!(is_forbidden(&port.write_at(at(5), &[])));
    assert!(is_forbidden(&port.write_at(ByteOffset::new(u64::MAX), &block)));
    block[17] ^= 1;
    assert!(is_forbidden(&port.write_at(at(5), &block)), "other bytes");
    let mut both = AlignedBuf::new(8192);
    port.read_at(at(5), &mut both).expect("it reads");
    assert_eq!(port.write_at(at(5), &both).expect("the very bytes"), 8192);
    assert!(is_forbidden(&port.write_zeroes(Lba::new(5), LbaCount::new(1))));
    assert!(is_forbidden(&port.discard(Lba::new(5), LbaCount::new(1))));
    port.flush().expect("it flushes");
    drop(opened);
    assert_eq!(space.device.hash(), before, "the handshake changed a byte");
}

#[test]
fn the_second_port_writes_stamps_and_saved_bytes_where_they_belong_and_nothing_else() {
    let Some(space) = namespace(SOURCE) else { return };
    let before = space.device.hash();
    let opened = space.open(space.wanted()).expect("it is free").remove(0);
    let spots = LbaSet::from(Extent::lbas(5, 2));
    let saved = || opened.save_blocks(&spots).expect("it reads");
    let owner = (RunId::from_u128(7), Role::Source);
    let full = opened.stamp_port(owner, saved(), |_| Err(io::Error::other("disk full")));
    assert!(full.is_err(), "what is not kept is not stamped over");
    let port = opened.stamp_port(owner, saved(), |_| Ok(())).expect("kept");
    let at = |lba: u64| ByteOffset::new(lba * 4096);
    let stamp = |run, volume, lba| {
        let mut block = AlignedBuf::new(4096);
        let lba = Lba::new(lba);
        let run = RunId::from_u128(run);
        crate::block::stamp_block(
            &crate::block::Stamp { run, volume, lba, generation: 9 },
            &mut block,
        );
        block
    };
    let right = stamp(7, Role::Source, 5);
    assert!(is_forbidden(&port.write_at(at(4), &stamp(7, Role::Source, 4))), "not a saved LBA");
    assert!(is_forbidden(&port.write_at(at(6), &right)), "another LBA's stamp");
    assert!(is_forbidden(&port.write_at(at(5), &stamp(8, Role::Source, 5))), "another run's");
    assert!(is_forbidden(&port.write_at(at(5), &stamp(7, Role::Target, 5))), "another volume's");
    assert!(is_forbidden(&port.write_at(at(5), &read(&port, 6))), "another LBA's old bytes");
    assert!(is_forbidden(&port.write_at(at(5), &right[..512])), "a part of a block");
    assert!(is_forbidden(&port.write_zeroes(Lba::new(5), LbaCount::new(1))));
    assert!(is_forbidden(&port.discard(Lba::new(5), LbaCount::new(1))));
    let old = read(&port, 5);
    assert_eq!(port.write_at(at(5), &right).expect("a stamp"), 4096);
    assert_eq!(&read(&port, 5)[..], &right[..]);
    let now = port.look().expect("it reads");
    let one = |lba| LbaSet::from(Extent::lbas(lba, 1));
    assert_eq!((now.stamped, now.saved, now.other), (one(5), one(6), LbaSet::new()));
    assert_eq!(port.write_at(at(5), &old).expect("the saved bytes"), 4096);
    port.write_at(at(5), &right).expect("a stamp");
    port.restore(&spots).expect("put back");
    drop(opened);
    assert_eq!(space.device.hash(), before);
}

/// Checks every door of an armed device whose LBAs 8..24 may be written.
fn check_armed(armed: &Armed) {
    let last = armed.len_lbas().get() - 1;
    let untouched = read(armed, 7).to_vec();
    let mut block = AlignedBuf::new(4096);
    block.fill(0xa5);
    let write = |lba: u64, buf: &[u8]| armed.write_at(ByteOffset::new(lba * 4096), buf);
    for lba in [0, 7, 24, last, last + 1, u64::MAX / 4096] {
        assert!(is_forbidden(&write(lba, &block)), "LBA {lba}");
        assert!(is_forbidden(&armed.write_zeroes(Lba::new(lba), LbaCount::new(1))), "LBA {lba}");
        assert!(is_forbidden(&armed.discard(Lba::new(lba), LbaCount::new(1))), "LBA {lba}");
    }
    assert!(is_forbidden(&armed.write_at(ByteOffset::new(8 * 4096 - 512), &block)));
    assert!(is_forbidden(&armed.write_at(ByteOffset::new(u64::MAX), &block)));
    assert!(is_forbidden(&armed.discard(Lba::new(8), LbaCount::new(17))));
    assert!(is_forbidden(&armed.discard(Lba::new(8), LbaCount::new(u64::MAX))));
    for lba in [8, 23] {
        assert_eq!(write(lba, &block).expect("it may"), 4096);
        assert_eq!(&read(armed, lba)[..], &block[..]);
    }
    for (lba, zero) in [(8, true), (23, false)] {
        let (at, len) = (Lba::new(lba), LbaCount::new(1));
        let answer = if zero { armed.write_zeroes(at, len) } else { armed.discard(at, len) };
        match answer {
            Ok(()) => assert!(read(armed, lba).iter().all(|&b| b == 0), "LBA {lba}"),
            Err(error) => assert!(matches!(error, DeviceError::Unsupported(_)), "{error}"),
        }
    }
    armed.flush().expect("it flushes");
    assert_eq!(&read(armed, 7)[..], &untouched[..]);
    let past = armed.read_at(ByteOffset::new((last + 1) * 4096), &mut block);
    assert!(matches!(past, Err(DeviceError::Short { op: "read", .. })), "{past:?}");
}

fn region() -> LbaSet {
    // The end of the region is past the volume's: that must not open the door.
    [Extent::lbas(8, 16), Extent::lbas(1 << 20, 1 << 20)].into_iter().collect()
}

#[test]
fn an_armed_device_writes_zeroes_and_discards_inside_its_region_only() {
    let Some(space) = namespace(SOURCE) else { return };
    let opened = space.open(space.wanted()).expect("it is free").remove(0);
    let proof = HandshakeProof::judged(&opened);
    check_armed(&opened.arm(&proof, region()).expect("armed"));
}

#[test]
fn a_device_that_becomes_another_is_not_written_any_more() {
    let Some(space) = namespace(SOURCE) else { return };
    let opened = space.open(space.wanted()).expect("it is free").remove(0);
    let proof = HandshakeProof::judged(&opened);
    let armed = opened.arm(&proof, region()).expect("armed");
    armed.recheck().expect("nothing changed");
    space.disk.attribute("wwid", &sysfs::wwid_of_volume(TARGET));
    let error = armed.recheck().expect_err("it is another volume now");
    assert!(error.to_string().contains("changed"), "{error}");
    let before = space.device.hash();
    let buf = AlignedBuf::new(4096);
    let answer = armed.write_at(ByteOffset::new(8 * 4096), &buf);
    assert!(matches!(answer, Err(DeviceError::Io { op: "write", .. })), "{answer:?}");
    assert!(armed.discard(Lba::new(8), LbaCount::new(1)).is_err());
    assert_eq!(space.device.hash(), before);
}

#[test]
fn a_proof_for_one_volume_does_not_arm_another() {
    let Some(source) = namespace(SOURCE) else { return };
    let Some(target) = namespace(TARGET) else { return };
    let one = source.open(source.wanted()).expect("it is free").remove(0);
    let two = target.open(wanted(target.device.path(), TARGET)).expect("it is free").remove(0);
    let proof = HandshakeProof::judged(&one);
    refused(two.arm(&proof, region()), "G12", "spoke for volume");
    let proof = HandshakeProof::judged(&one);
    source.disk.attribute("wwid", "uuid.1");
    refused(one.arm(&proof, region()), "G12", "changed during the handshake");
}

/// A file that a made-up mount table shows as served by this very process, as a simulator would.
struct Served {
    folder: TempDir,
    file: PathBuf,
    host: Host,
    sysfs: FakeSysfs,
}

fn served(volume: VolumeUuid) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(format!("{volume}.img"));
    fill(&file, MIB << 20);
    let proc = folder.path().join("proc");
    let pid = std::process::id();
    fs::create_dir_all(proc.join("self")).expect("folders");
    fs::create_dir_all(proc.join(pid.to_string())).expect("folders");
    fs::write(proc.join(format!("{pid}/comm")), "lbaudit\n").expect("a name");
    symlink("/proc/locks", proc.join("locks")).expect("a link");
    let Node::File { fs: dev, .. } = Node::of(&fs::metadata(&file).expect("it is there")) else {
        panic!("a file is a file");
    };
    let line = format!("1 2 {dev} / /x rw - fuse lbaudit-sim-{pid} rw\n");
    fs::write(proc.join("self/mountinfo"), line).expect("a table");
    let sysfs = FakeSysfs::new();
    let host = Host { sysfs: sysfs.root().to_owned(), proc, ..Host::default() };
    Served { folder, file, host, sysfs }
}

#[test]
fn a_served_file_is_locked_armed_and_written_like_a_device() {
    let served = served(SOURCE);
    assert!(served.folder.path().exists());
    let open = || open_volumes(&served.host, vec![wanted(&served.file, SOURCE)], &consent());
    let opened = open().expect("it is free").remove(0);
    assert_eq!(opened.identity(), Identity::BackingName);
    let before = hash(&served.file);
    refused(open(), "G8", &format!("PID {} (lbaudit)", std::process::id()));
    assert_eq!(hash(&served.file), before);
    let proof = HandshakeProof::judged(&opened);
    check_armed(&opened.arm(&proof, region()).expect("armed"));
    assert_eq!(fs::metadata(&served.file).expect("it is there").len(), MIB << 20);
}

#[test]
fn a_served_file_that_shrinks_is_seen_at_the_next_error_or_look() {
    let served = served(SOURCE);
    let opened = open_volumes(&served.host, vec![wanted(&served.file, SOURCE)], &consent());
    let opened = opened.expect("it is free").remove(0);
    let proof = HandshakeProof::judged(&opened);
    let armed = opened.arm(&proof, region()).expect("armed");
    File::options().write(true).open(&served.file).expect("it opens").set_len(4096).expect("short");
    let error = armed.recheck().expect_err("it shrank");
    assert!(error.to_string().contains("it has 4096 bytes, it had 4194304"), "{error}");
}

#[test]
fn a_served_file_under_a_loop_device_is_held() {
    let served = served(SOURCE);
    let file = served.file.display().to_string();
    served.sysfs.disk("loop3", (7, 3)).attribute("loop/backing_file", &file);
    let answer = open_volumes(&served.host, vec![wanted(&served.file, SOURCE)], &consent());
    refused(answer, "G4", "loop3");
}
