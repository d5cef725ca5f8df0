//! From a path to an exclusively held, identified device: the type-states and the guards in order.
//!
//! [`Candidate`] has been looked at (G1 to G6) and is not open. [`Exclusive`] is held: O_EXCL and
//! flock (G7, G8). [`Identified`] is writable, of the right size and says nothing against being the
//! volume (G9 to G12), is not its own counterpart (G13), holds nothing that somebody may still want
//! (G14) and may be overwritten (G15); what is left
//! to the handshake is to make the array itself say so. Only then there is `Armed`. Not covered:
//! what is written once armed, and the handshake that says so (`crate::campaign::arm`).

use super::block::{Armed, HandshakeDevice, HandshakeProof, Opened};
use super::consent::Consent;
use super::guards::{self, Guarded, Identity, Told, refuse};
use super::host::{Host, Node};
use super::ioctl;
#[cfg(test)]
use super::medium::Medium;
use super::medium::{OpenNode, size_bytes};
use super::signature::{self, Signature, g14_no_signature};
use super::stamping::{SavedBlocks, StampDevice};
use super::sysfs::{self, Disk};
use crate::array::{AlignedBuf, DeviceError};
use crate::block::{BlockSize, ByteOffset, LbaCount, LbaSet, Role, RunId, VolumeUuid};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// A device as the user wants it, with what the array says of its volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Path of the node.
    pub path: PathBuf,
    /// The volume it must be.
    pub volume: VolumeUuid,
    /// The volume's name; foreign text.
    pub name: String,
    /// The volume's size in bytes.
    pub size_bytes: u64,
    /// The volume's sector size in bytes.
    pub sector_bytes: u32,
    /// LBAs from the start that this run touches.
    pub footprint: LbaCount,
    /// The other volume of this run, to name the most likely mistake.
    pub counterpart: Option<VolumeUuid>,
}

/// A path that passed G1 to G6. Nothing is open.
#[derive(Debug)]
pub struct Candidate {
    host: Host,
    wanted: Wanted,
    resolved: PathBuf,
    node: Node,
    /// `None` for a served file.
    disk: Option<Disk>,
    /// Whether the file behind a loop device is served by a simulator or a storage daemon that runs:
    /// anybody can give a file any name, and an array's UUID is no secret.
    backing_is_served: bool,
}

/// What reading a device shows without opening it for writing.
#[derive(Debug)]
pub struct ReadProbe {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Whether the device is set read-only.
    pub read_only: bool,
    /// Logical sector size in bytes; 512 for files, which take any.
    pub logical_sector_bytes: u32,
    /// Why it is not free, if it is not.
    pub busy: Option<String>,
    /// What stands on it (G14).
    pub signatures: Guarded<Vec<Signature>>,
}

fn os_error(error: io::Error) -> (io::Error, Option<i32>) {
    let number = error.raw_os_error();
    (error, number)
}

impl Candidate {
    /// Looks at what is behind the path: G1 to G6. Opens nothing.
    ///
    /// # Errors
    /// The first guard that refuses.
    pub fn inspect(host: &Host, wanted: Wanted) -> Guarded<Candidate> {
        let path = &wanted.path;
        let seen =
            fs::canonicalize(path).and_then(|resolved| Ok((fs::metadata(&resolved)?, resolved)));
        let (meta, resolved) = match seen.map_err(os_error) {
            Ok(seen) => seen,
            Err((_, Some(libc::ENOTCONN))) => {
                return refuse!(
                    "G1",
                    "{}: the program that served this file is gone; `lbaudit clean` removes its \
                     mount",
                    path.display()
                );
            }
            Err((error, _)) => {
                return refuse!(
                    "G1",
                    "{}: {error}; check the path (`nvme list`), or leave the device flags out to \
                     have it found by its UUID",
                    path.display()
                );
            }
        };
        let node = Node::of(&meta);
        let mount = match &node {
            Node::File { fs, .. } => {
                let mounts = host.mounts().unwrap_or_default();
                mounts.into_iter().rev().find(|mount| mount.dev == *fs)
            }
            _ => None,
        };
        let server = mount.as_ref().and_then(guards::sim_mount_pid);
        let server_runs = server.is_some_and(|pid| host.process_name(pid).is_some());
        guards::g1_kind(path, &resolved, &node, mount.as_ref(), server_runs, wanted.volume)?;
        let mut candidate = Candidate {
            host: host.clone(),
            wanted,
            resolved,
            node,
            disk: None,
            backing_is_served: false,
        };
        match node {
            Node::Block(_) => candidate.inspect_disk()?,
            _ => {
                let loops = sysfs::loops_on(&host.sysfs, &candidate.resolved);
                guards::g4_no_holders(&candidate.resolved.display().to_string(), &loops)?;
            }
        }
        Ok(candidate)
    }

    /// G2 to G6 of a block device.
    fn inspect_disk(&mut self) -> Guarded {
        let Node::Block(dev) = self.node else { return Ok(()) };
        let path = &self.wanted.path;
        let disk = match sysfs::disk(&self.host.sysfs, dev) {
            Ok(disk) => disk,
            Err(error) => {
                return refuse!(
                    "G3",
                    "sysfs does not describe {} ({dev}): {error}; without it nothing can be said \
                     about partitions and holders, so run where /sys is there",
                    path.display()
                );
            }
        };
        guards::g2_not_a_path(&disk)?;
        let uses = match self.host.uses_of(&guards::numbers(dev, &disk)) {
            Ok(uses) => uses,
            Err(error) => return refuse!("G6", "the mounts cannot be read: {error}; mount /proc"),
        };
        guards::g3_whole_disk(&disk, &uses)?;
        guards::g4_no_holders(&disk.name, &disk.holders)?;
        if let Some(wwid) = &disk.wwid {
            let heads = sysfs::heads_with_wwid(&self.host.sysfs, wwid);
            guards::g5_no_twin(&disk.name, wwid, &heads)?;
        }
        if let Some(file) = &disk.backing_file {
            let loops = sysfs::loops_on(&self.host.sysfs, file);
            guards::g5_no_second_loop(&disk.name, file, &loops)?;
        }
        guards::g6_not_in_use(path, &uses)?;
        self.backing_is_served = disk.backing_file.as_deref().is_some_and(|file| {
            let mounts = self.host.mounts().unwrap_or_default();
            guards::is_served(&mounts, file, |pid| self.host.process_name(pid).is_some())
        });
        self.disk = Some(disk);
        Ok(())
    }

    /// What this run wants here.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    fn wwid(&self) -> Option<&str> {
        self.disk.as_ref().and_then(|disk| disk.wwid.as_deref())
    }

    /// The file whose name may carry the volume's UUID.
    fn backing(&self) -> Option<&Path> {
        match &self.disk {
            Some(disk) => disk.backing_file.as_deref(),
            None => Some(&self.resolved),
        }
    }

    fn told(&self) -> Told<'_> {
        Told {
            path: &self.wanted.path,
            node: &self.node,
            wwid: self.wwid(),
            backing: self.backing(),
            volume: self.wanted.volume,
        }
    }

    /// G13: this and `other` are two things.
    ///
    /// # Errors
    /// When they are one.
    pub fn differs_from(&self, other: &Candidate) -> Guarded {
        guards::g13_two_things(self.told(), other.told())
    }

    /// G12 on what is known so far.
    ///
    /// # Errors
    /// When the device says that it is another volume.
    pub fn identity(&self) -> Guarded<Identity> {
        let wanted = &self.wanted;
        let said = guards::g12_identity(
            &wanted.path,
            self.wwid(),
            self.backing(),
            wanted.volume,
            wanted.counterpart,
        )?;
        // G1 has looked at who serves a file that is no device.
        let believed = self.disk.is_none() || self.backing_is_served;
        Ok(if said == Identity::BackingName && !believed { Identity::Undecided } else { said })
    }

    /// Looks at the device through a read-only, O_DIRECT open: G9 to G11 without the right to
    /// write. For `doctor`.
    ///
    /// # Errors
    /// When it cannot be opened or its first and last LBA cannot be read.
    pub fn probe(&self) -> io::Result<ReadProbe> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let block = matches!(self.node, Node::Block(_));
        let exclusive = if block { OFlags::EXCL } else { OFlags::empty() };
        let opened = rustix::fs::open(&self.resolved, flags | exclusive, Mode::empty());
        let (file, mut busy) = match opened {
            Ok(fd) => (File::from(fd), None),
            Err(rustix::io::Errno::BUSY) => {
                let file = File::from(rustix::fs::open(&self.resolved, flags, Mode::empty())?);
                (file, Some(self.busy_because()))
            }
            Err(error) => return Err(error.into()),
        };
        if busy.is_none()
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
        {
            busy = Some(self.busy_because());
        }
        let size_bytes = size_bytes(&file, &self.node)?;
        let mut buf = AlignedBuf::new(BlockSize::DEVICE.get());
        let last = (size_bytes / BlockSize::DEVICE.bytes()).saturating_sub(1);
        for lba in [0, last] {
            file.read_exact_at(&mut buf, lba * BlockSize::DEVICE.bytes())?;
        }
        let read = |at, buf: &mut [u8]| file.read_exact_at(buf, at);
        let blkid = self.host.blkid.as_deref();
        let signatures = signature::on_device(&self.wanted.path, size_bytes, blkid, read);
        Ok(ReadProbe {
            size_bytes,
            signatures,
            read_only: if block { ioctl::is_read_only(&file)? } else { false },
            logical_sector_bytes: if block { ioctl::logical_sector_bytes(&file)? } else { 512 },
            busy,
        })
    }

    /// Who has the device, as far as it can be seen from here.
    fn busy_because(&self) -> String {
        let holder =
            fs::metadata(&self.resolved).ok().and_then(|meta| self.host.lock_holder(&meta));
        match holder {
            Some(holder) => format!("{holder} has it; wait for that run or stop it"),
            None => "a mount, swap area or program not visible from here has it (another \
                     container?); stop it"
                .to_owned(),
        }
    }

    /// Opens the device for this run alone: G7, G8.
    ///
    /// # Errors
    /// When somebody else has it, or it cannot be opened.
    pub fn open(self) -> Guarded<Exclusive> {
        let path = self.wanted.path.display();
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        // On a file O_EXCL means nothing; there the lock alone decides.
        let exclusive =
            if matches!(self.node, Node::Block(_)) { OFlags::EXCL } else { OFlags::empty() };
        let opened = rustix::fs::open(&self.resolved, flags | exclusive, Mode::empty());
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::BUSY) => {
                return refuse!("G7", "{path} is busy: {}", self.busy_because());
            }
            Err(rustix::io::Errno::ROFS) => {
                return refuse!("G9", "{path} is read-only; see its volume on the array");
            }
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                return refuse!("G7", "{path} may not be opened for writing; run as root");
            }
            Err(error) => {
                let error = io::Error::from(error);
                return refuse!("G7", "{path} cannot be opened for direct writing: {error}");
            }
        };
        let same = file.metadata().is_ok_and(|meta| Node::of(&meta).is_same(&self.node));
        if !same {
            return refuse!("G7", "{path} became another device while it was opened; try again");
        }
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return refuse!("G8", "{path} is locked: {}", self.busy_because());
        }
        Ok(Exclusive { candidate: self, file })
    }
}

/// A device that this process alone may open exclusively (G7, G8). Dropping it gives it up.
#[derive(Debug)]
pub struct Exclusive {
    candidate: Candidate,
    file: File,
}

impl Exclusive {
    /// G9 to G12, on the open descriptor.
    ///
    /// # Errors
    /// The first guard that refuses.
    fn identify(self) -> Guarded<Identified> {
        match Facts::read(&self.file, &self.candidate.node) {
            Ok(facts) => self.judged(facts),
            Err(error) => {
                let path = self.candidate.wanted.path.display();
                refuse!("G9", "{path} cannot be examined: {error}")
            }
        }
    }

    /// G9 to G12 on what the open descriptor says.
    fn judged(self, facts: Facts) -> Guarded<Identified> {
        let Exclusive { candidate, file } = self;
        let wanted = &candidate.wanted;
        let path = &wanted.path;
        guards::g9_writable(path, facts.read_only)?;
        let (name, volume_bytes) = (&wanted.name, wanted.size_bytes);
        guards::g10_size(path, facts.size_bytes, name, volume_bytes, wanted.footprint)?;
        guards::g11_sectors(path, facts.logical_sector_bytes, wanted.sector_bytes)?;
        let identity = candidate.identity()?;
        let opened = Opened {
            medium: Box::new(OpenNode { file, node: candidate.node }),
            path: path.clone(),
            host: candidate.host.clone(),
            node: candidate.node,
            size_bytes: facts.size_bytes,
            disk_seq: facts.disk_seq,
            wwid: candidate.wwid().map(str::to_owned),
            changed: AtomicBool::new(false),
        };
        // What sysfs said before the open may have been about a disk that left since.
        let before = candidate.disk.as_ref().and_then(|disk| disk.disk_seq);
        if before.is_some() && facts.disk_seq.is_some() && before != facts.disk_seq {
            return refuse!(
                "G12",
                "{} became another disk while opened; try again",
                path.display()
            );
        }
        Ok(Identified { opened, identity, wanted: candidate.wanted })
    }
}

/// What the open descriptor says.
struct Facts {
    size_bytes: u64,
    read_only: bool,
    logical_sector_bytes: u32,
    disk_seq: Option<u64>,
}

impl Facts {
    fn read(file: &File, node: &Node) -> io::Result<Facts> {
        let block = matches!(node, Node::Block(_));
        Ok(Facts {
            size_bytes: size_bytes(file, node)?,
            read_only: if block { ioctl::is_read_only(file)? } else { false },
            logical_sector_bytes: if block { ioctl::logical_sector_bytes(file)? } else { 512 },
            disk_seq: if block { ioctl::disk_seq(file).ok() } else { None },
        })
    }
}

/// A device that passed every local guard and consent. It writes nothing but, through the
/// handshake's port, bytes that are there already.
#[derive(Debug)]
pub struct Identified {
    opened: Opened,
    identity: Identity,
    wanted: Wanted,
}

impl Identified {
    /// The volume it is said to be.
    pub fn volume(&self) -> VolumeUuid {
        self.wanted.volume
    }
    /// How far that is proved without the handshake.
    pub fn identity(&self) -> Identity {
        self.identity
    }
    /// The path as the user gave it.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }
    /// Size in LBAs.
    pub fn len_lbas(&self) -> LbaCount {
        LbaCount::new(self.opened.size_bytes / BlockSize::DEVICE.bytes())
    }
    /// The data plane of the handshake: at the LBAs of `allowed` it writes the very bytes it last
    /// read there, and everything else is `DeviceError::Forbidden`.
    pub fn handshake_port(&self, allowed: LbaSet) -> HandshakeDevice<'_> {
        HandshakeDevice::new(&self.opened, allowed)
    }
    /// What the LBAs of `at` hold, read twice.
    ///
    /// # Errors
    /// When they cannot be read, or the two reads differ.
    pub fn save_blocks(&self, at: &LbaSet) -> Result<SavedBlocks, DeviceError> {
        SavedBlocks::read(&self.opened, at)
    }
    /// The data plane that puts stamps of a run and volume over the LBAs of `saved`, and the saved
    /// bytes back. `keep` makes those bytes survive a crash; if it cannot, there is no such port.
    ///
    /// # Errors
    /// What `keep` answers.
    pub fn stamp_port(
        &self,
        owner: (RunId, Role),
        saved: SavedBlocks,
        keep: impl FnOnce(&SavedBlocks) -> io::Result<()>,
    ) -> io::Result<StampDevice<'_>> {
        keep(&saved)?;
        Ok(StampDevice::new(&self.opened, owner, saved))
    }
    /// What stands on it that somebody may still want, as our own table and `blkid` see it.
    ///
    /// # Errors
    /// G14 when either cannot look: what was not looked at is not empty.
    pub fn signatures(&self) -> Guarded<Vec<Signature>> {
        let Opened { path, host, size_bytes, .. } = &self.opened;
        let read = |at, buf: &mut [u8]| {
            let read = self.opened.read_at(ByteOffset::new(at), buf);
            read.map_err(|error| io::Error::other(error.to_string()))
        };
        signature::on_device(path, *size_bytes, host.blkid.as_deref(), read)
    }
    /// Arms the device for the LBAs of `allowed`.
    ///
    /// # Errors
    /// When the proof speaks of another volume or the device changed during the handshake.
    pub fn arm(self, proof: &HandshakeProof, allowed: LbaSet) -> Guarded<Armed> {
        Armed::new(self.opened, self.wanted.volume, proof, allowed)
    }
}

#[cfg(test)]
impl Identified {
    /// What passed no guard: for the tests of what comes after them.
    pub(super) fn unguarded(
        medium: Box<dyn Medium>,
        identity: Identity,
        wanted: Wanted,
    ) -> Identified {
        let (fs, inode) = (super::host::Dev { major: 0, minor: 0 }, 0);
        let size_bytes = wanted.size_bytes;
        let opened = Opened {
            medium,
            path: wanted.path.clone(),
            host: Host::default(),
            node: Node::File { fs, inode, size_bytes },
            size_bytes,
            disk_seq: None,
            wwid: None,
            changed: AtomicBool::new(false),
        };
        Identified { opened, identity, wanted }
    }
}

/// Takes the devices of one run through every local guard, in order; nothing is opened for writing
/// before all of them passed G1 to G6 and G13.
///
/// # Errors
/// The first guard that refuses; every device is given up and byte-identical.
pub fn open_volumes(
    host: &Host,
    wanted: Vec<Wanted>,
    consent: &Consent,
) -> Guarded<Vec<Identified>> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let candidate = Candidate::inspect(host, one)?;
        for other in &candidates {
            other.differs_from(&candidate)?;
        }
        candidates.push(candidate);
    }
    for candidate in &candidates {
        candidate.identity()?;
    }
    let held: Guarded<Vec<Exclusive>> = candidates.into_iter().map(Candidate::open).collect();
    let identified: Guarded<Vec<Identified>> = held?.into_iter().map(Exclusive::identify).collect();
    let identified = identified?;
    for one in &identified {
        g14_no_signature(one.path(), &one.signatures()?, consent.signatures())?;
    }
    let volumes: Vec<_> = identified
        .iter()
        .map(|one| (one.wanted.volume, one.wanted.name.as_str(), one.wanted.size_bytes))
        .collect();
    consent.g15_given(&volumes)?;
    Ok(identified)
}

/// [`open_volumes`] for a source and a target.
///
/// # Errors
/// As there.
pub fn open_pair(
    host: &Host,
    source: Wanted,
    target: Wanted,
    consent: &Consent,
) -> Guarded<(Identified, Identified)> {
    let mut opened = open_volumes(host, vec![source, target], consent)?.into_iter();
    match (opened.next(), opened.next()) {
        (Some(source), Some(target)) => Ok((source, target)),
        _ => refuse!("G13", "a source and a target are needed; give two volumes"),
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
