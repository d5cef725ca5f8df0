//! Profiles: which targets a generator draws for and what those offer, as data. Not covered:
//! targets that exist; a profile describes a simulated one.

use crate::block::BlockSize;
use serde::{Deserialize, Serialize};

/// What a target offers to a generated case: a set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offers(u32);

impl Offers {
    /// Nothing beyond writes, waited takes and deletes, and diffs.
    pub const NONE: Offers = Offers(0);
    /// Live contents are read and judged.
    pub const READS: Offers = Offers(1);
    /// Contents of snapshots can be read.
    pub const SNAPSHOT_READS: Offers = Offers(1 << 1);
    /// Diffs are copied to a target volume.
    pub const SYNCS: Offers = Offers(1 << 2);
    /// Takes and deletes need not be waited for.
    pub const UNWAITED: Offers = Offers(1 << 3);
    /// Operations in flight together.
    pub const CONCURRENT: Offers = Offers(1 << 4);
    /// Rollback.
    pub const ROLLBACK: Offers = Offers(1 << 5);
    /// Clones.
    pub const CLONES: Offers = Offers(1 << 6);
    /// Grow and shrink.
    pub const RESIZE: Offers = Offers(1 << 7);
    /// Restart and kill.
    pub const RESTART: Offers = Offers(1 << 8);
    /// Volumes can be deleted and made.
    pub const LIFECYCLE: Offers = Offers(1 << 9);
    /// There may be a second volume with snapshots of its own.
    pub const NEIGHBOUR: Offers = Offers(1 << 10);
    /// Faults can be injected into steps.
    pub const FAULTS: Offers = Offers(1 << 11);
    /// The array is simulated: page limit, legal freedoms and kinds of rollback are drawn.
    pub const SIMULATED: Offers = Offers(1 << 12);
    /// Volumes may be sparse and larger than 2^32 LBAs.
    pub const SPARSE: Offers = Offers(1 << 13);
    /// An operation can happen between two pages of a diff.
    pub const BETWEEN_PAGES: Offers = Offers(1 << 14);
    /// Discard and write-zeroes are commands of the device.
    pub const DISCARD: Offers = Offers(1 << 15);
    /// Every feature.
    pub const ALL: Offers = Offers((1 << 16) - 1);

    /// Those of both.
    pub const fn and(self, other: Offers) -> Offers {
        Offers(self.0 | other.0)
    }
    /// These without those.
    pub const fn without(self, other: Offers) -> Offers {
        Offers(self.0 & !other.0)
    }
    /// Whether it has all of those.
    pub const fn has(self, other: Offers) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A way to draw cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its stable name.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// What its targets offer.
    pub offers: Offers,
    /// Steps of a case, at least and at most, not counting the observing steps at its end.
    pub steps: (u32, u32),
    /// Small changes at most before each other move: many writes between two snapshots are what an
    /// array sees in production, few are what finds most.
    pub burst: u32,
    /// Sizes of the source volume to choose from, in LBAs.
    pub lens: &'static [u64],
    /// Bytes of one LBA.
    pub block: BlockSize,
    /// Whether the volumes are new; drawn if not said.
    pub fresh: Option<bool>,
    /// What its cases concentrate on, by name; anything, if none is named.
    pub focuses: &'static [&'static str],
}

/// One chunk, a partial tail, powers of two, and odd sizes; the simplest first.
const SMALL: &[u64] = &[256, 200, 1024, 40, 512, 337, 64, 129, 640, 1000, 128, 2048, 65];
/// Room for many small changes between two snapshots.
const WIDE: &[u64] = &[2048, 1000, 4096, 337, 5000, 3105, 129, 8192];
/// Around one, two and three chunks.
const EDGES: &[u64] = &[65, 129, 63, 64, 127, 128, 193, 191, 1, 2];
/// 64 TiB of 4 KiB blocks, and sizes at which 32 bits are just not enough.
const HUGE: &[u64] = &[1 << 34, (1 << 32) + 200, (1 << 33) + 65];
const TINY: &[u64] = &[128, 100, 64, 192, 70];

const ALL: Profile = Profile {
    name: "all",
    about: "the whole alphabet on a simulated array",
    offers: Offers::ALL,
    steps: (8, 56),
    burst: 0,
    lens: SMALL,
    block: BlockSize::SMALLEST,
    fresh: None,
    focuses: &[],
};

/// All profiles; the first is the default.
pub const PROFILES: &[Profile] = &[
    ALL,
    Profile {
        name: "bounds",
        about: "diffs only, judged by both bounds: no contents are read or copied",
        offers: Offers::ALL
            .without(Offers::READS)
            .without(Offers::SNAPSHOT_READS)
            .without(Offers::SYNCS),
        steps: (160, 480),
        burst: 40,
        lens: WIDE,
        ..ALL
    },
    Profile {
        name: "contents",
        about: "reads and syncs after every kind of change",
        offers: Offers::ALL.without(Offers::SPARSE),
        steps: (48, 144),
        burst: 12,
        ..ALL
    },
    Profile {
        name: "boundaries",
        about: "the whole alphabet on volumes that end around a chunk's edge",
        offers: Offers::ALL.without(Offers::SPARSE),
        lens: EDGES,
        ..ALL
    },
    Profile {
        name: "long-chains",
        about: "many snapshots of one volume: far bases, deletions in the middle, chains of syncs",
        offers: Offers::ALL.without(Offers::SPARSE),
        steps: (120, 260),
        focuses: &[
            "chain",
            "far base",
            "same base twice",
            "later changes",
            "middle delete between pages",
            "delete and restart",
            "increments after restart",
        ],
        ..ALL
    },
    Profile {
        name: "big-volume",
        about: "sparse volumes of up to 64 TiB, written far up",
        lens: HUGE,
        focuses: &["far up", "sync from far up"],
        ..ALL
    },
    Profile {
        name: "small",
        about: "short cases on volumes of one to three chunks, without freedoms",
        offers: Offers::ALL.without(Offers::SPARSE).without(Offers::SIMULATED),
        steps: (3, 16),
        lens: TINY,
        fresh: Some(true),
        ..ALL
    },
    Profile {
        name: "qemu",
        about: "what a qemu-storage-daemon offers",
        offers: Offers::READS.and(Offers::SNAPSHOT_READS).and(Offers::SYNCS).and(Offers::DISCARD),
        steps: (8, 32),
        burst: 0,
        lens: &[1024, 2000, 4096],
        block: BlockSize::DEVICE,
        fresh: Some(true),
        focuses: &[],
    },
    Profile {
        name: "qemu-racing",
        about: "what a qemu-storage-daemon offers, with writers across the cuts",
        offers: Offers::READS
            .and(Offers::SNAPSHOT_READS)
            .and(Offers::SYNCS)
            .and(Offers::DISCARD)
            .and(Offers::CONCURRENT),
        steps: (8, 32),
        burst: 0,
        lens: &[1024, 2000, 4096],
        block: BlockSize::DEVICE,
        fresh: Some(true),
        focuses: &[],
    },
    Profile {
        name: "live",
        about: "what a real array offers: one snapshot in the making, live reads only",
        offers: Offers::READS.and(Offers::SYNCS).and(Offers::DISCARD),
        steps: (8, 24),
        burst: 0,
        lens: &[4096, 8192, 2048],
        block: BlockSize::DEVICE,
        fresh: Some(false),
        focuses: &[],
    },
    Profile {
        name: "live-clones",
        about: "as live, with snapshots read through this run's own clones",
        offers: Offers::READS.and(Offers::SNAPSHOT_READS).and(Offers::SYNCS).and(Offers::DISCARD),
        steps: (8, 24),
        burst: 0,
        lens: &[4096, 8192, 2048],
        block: BlockSize::DEVICE,
        fresh: Some(false),
        focuses: &[],
    },
];

impl Profile {
    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }
}
