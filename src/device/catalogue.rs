//! The guards as a table, for people who want to know what one looks at and why. Not covered: what
//! a refusal says, which is beside each guard's code.

/// One guard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardSpec {
    /// Its name, as refusals say it.
    pub name: &'static str,
    /// What has to hold.
    pub holds: &'static str,
    /// What went wrong, or could, where it does not.
    pub why: &'static str,
    /// What to do when it refuses.
    pub next: &'static str,
}

/// Every guard, in the order in which they are asked.
pub const GUARDS: [GuardSpec; 15] = [
    GuardSpec {
        name: "G1",
        holds: "the path is a block device, or a file that a simulator or QEMU serves for this very volume",
        why: "a typo under /dev makes a regular file, and writing there fills memory and tests nothing",
        next: "give the block device of the volume, or leave the device flags out to have it found",
    },
    GuardSpec {
        name: "G2",
        holds: "it is not one path (nvmeXcYnZ) of a multipath device",
        why: "writes past the multipath layer can overtake those that go through it",
        next: "give the device that the message names",
    },
    GuardSpec {
        name: "G3",
        holds: "it is a whole disk, and there is no partition on it",
        why: "a partition is somebody's data, and its LBAs are not the volume's",
        next: "give another volume, or remove the partitions once nothing on them is needed",
    },
    GuardSpec {
        name: "G4",
        holds: "nothing stands on it: no device mapper, RAID, LVM or loop device",
        why: "what stands on it would be overwritten below its feet",
        next: "take down what holds it, or give another volume",
    },
    GuardSpec {
        name: "G5",
        holds: "no second device of this host says the same world wide identity",
        why: "without native multipath two devices are two paths, and writes through both can pass each other",
        next: "switch native multipath on (nvme_core.multipath=Y)",
    },
    GuardSpec {
        name: "G6",
        holds: "it is neither mounted nor swap, by any name",
        why: "a mounted file system is somebody's data; this guard explains, G7 decides",
        next: "give another volume; unmount only what you know",
    },
    GuardSpec {
        name: "G7",
        holds: "the kernel lets this run open it exclusively, and it is still the device that was looked at",
        why: "comparing names is fooled by links, other namespaces and devices that come and go; the kernel is not",
        next: "end what has it open; the message names it where it can be seen",
    },
    GuardSpec {
        name: "G8",
        holds: "nobody has locked the disk (flock), and from here on this run has",
        why: "two runs on one volume would each call the other's writes a bug of the array",
        next: "wait for the other run, or end it",
    },
    GuardSpec {
        name: "G9",
        holds: "the kernel does not call it read-only",
        why: "a read-only device opens for writing all the same, and fails later, in the middle of a test",
        next: "see the volume's protection state on the array, then blockdev --setrw",
    },
    GuardSpec {
        name: "G10",
        holds: "it has exactly the volume's size, and room for what the run writes",
        why: "another size is another volume, or one that was resized and not looked at again",
        next: "nvme ns-rescan, or give the right device or a larger volume",
    },
    GuardSpec {
        name: "G11",
        holds: "single LBAs of 4096 bytes can be written",
        why: "with larger sectors each small write would change its neighbours too",
        next: "give a volume with sectors of 512 or 4096 bytes",
    },
    GuardSpec {
        name: "G12",
        holds: "it says that it is the volume (wwid), or the handshake shows it",
        why: "source and target swapped, or a device name that moved at a reboot, is the likeliest way to lose data",
        next: "leave the device flags out to have devices found by UUID, or use the command that is printed",
    },
    GuardSpec {
        name: "G13",
        holds: "the two devices of a run are two things: number, identity, backing file, volume",
        why: "a copy onto itself always compares equal",
        next: "give the device of each volume",
    },
    GuardSpec {
        name: "G14",
        holds: "no file system, partition table, RAID or LVM member, swap or encrypted disk stands on it",
        why: "a volume with a signature is in use, whether or not it is mounted here",
        next: "give another volume, or name each signature that may be destroyed: --allow-signature NAME",
    },
    GuardSpec {
        name: "G15",
        holds: "somebody has consented to lose what is on it, for this volume and this run",
        why: "data without a signature cannot be told from nothing, so only its owner can say",
        next: "type the volume's name, or give --destroy with the last 12 digits of its UUID",
    },
];
