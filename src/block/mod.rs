//! The vocabulary: pure values that every other layer speaks. No I/O, no policy. Not covered: what
//! any of it means to an array; nothing here is foreign or mutable state.

mod bitmap;
mod extent;
mod freedoms;
mod ids;
mod lba_set;
mod stamp;
mod target;
mod units;

pub use bitmap::{BitmapOrder, ChunkBitmap};
pub use extent::{BadExtent, Extent};
pub use freedoms::Freedoms;
pub use ids::{BadName, Role, RunId, SnapshotName, SnapshotUuid, VolumeUuid};
pub use lba_set::LbaSet;
pub use stamp::{Diagnosis, Stamp, diagnose, stamp_block};
pub use target::{
    Capabilities, ChunkBits, CloneFullDiff, DiscardEffect, Durability, Geometry, Page, Policy,
    RollbackKind,
};
pub use units::{
    BadBlockSize, BlockSize, ByteLen, ByteOffset, CHUNK_LBAS, ChunkIndex, LBA_BYTES, LBAS_PER_MIB,
    Lba, LbaCount,
};
