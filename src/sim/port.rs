//! The simulator behind the port: the one glue file that knows both the array's raw masks and the
//! checker's vocabulary. Not covered: anything over the wire.

use super::SimFault;
use super::array::SimArray;
use super::volume::{SimDevice, SimIoError};
use super::when::When;
use super::{SimError, SimPage, SimSnapshotInfo, SimSnapshotState};
use crate::array::{
    ApiError, Array, BlockDevice, DeviceError, Reply, SnapshotInfo, SnapshotState, VolumeInfo,
};
use crate::block::{
    BlockSize, ByteOffset, Capabilities, ChunkBitmap, ChunkBits, DiscardEffect, Durability, Lba,
    LbaCount, Page, SnapshotName, SnapshotUuid, VolumeUuid,
};
use std::io;
use std::path::Path;

/// How often a call is tried: there is no network in between.
const TRIES: u32 = 1;

fn api_error(call: String, error: &SimError) -> ApiError {
    let reply = Reply { status: Some(error.http_status()), text: error.to_string(), call };
    match error {
        SimError::NotFound(_) => ApiError::NotFound(reply),
        SimError::BadRequest(_) => ApiError::Refused(reply),
        SimError::Conflict(_) => ApiError::Conflict(reply),
        SimError::Busy(_) => ApiError::Server(reply, TRIES),
    }
}

const fn snapshot_state(state: SimSnapshotState) -> SnapshotState {
    match state {
        SimSnapshotState::Creating => SnapshotState::Creating,
        SimSnapshotState::Available => SnapshotState::Available,
        SimSnapshotState::Deleting => SnapshotState::Deleting,
    }
}

fn no_snapshot(snapshot: SnapshotUuid) -> ApiError {
    let error = SimError::NotFound(format!("snapshot {snapshot} not found"));
    api_error(format!("snapshot {snapshot}"), &error)
}

fn snapshot_info(info: SimSnapshotInfo) -> SnapshotInfo {
    SnapshotInfo {
        uuid: info.uuid,
        name: info.name,
        state: snapshot_state(info.state),
        volume: info.volume,
        len: info.len,
        // Virtual time means nothing to anybody else.
        created: None,
    }
}

fn page(sim: &SimPage) -> Page {
    let chunks = sim.ranges.iter().map(|range| ChunkBits {
        start: Lba::new(range.start_lba),
        bits: ChunkBitmap::from_bits(range.bits),
    });
    Page {
        chunks: chunks.collect(),
        ranges: u32::try_from(sim.ranges.len()).unwrap_or(u32::MAX),
        next: (sim.next_offset_lba != 0).then(|| Lba::new(sim.next_offset_lba)),
        notes: Vec::new(),
    }
}

impl Array for SimArray {
    fn capabilities(&self) -> Capabilities {
        let config = self.config();
        Capabilities {
            snapshot_readable: config.contents,
            discard: DiscardEffect::Zero,
            durable: Durability::OnAck,
            tracking_survives_kill: true,
            rollback: config.rollback,
            clone_full_diff: Some(config.clone_full_diff),
            resize: true,
            shrink_zeroes: true,
            restart: true,
            volume_lifecycle: true,
            concurrent_ops: true,
            // A write is stored under the volume's lock: all of it or nothing.
            atomic_write_bytes: u32::from(config.block),
            concurrent_snapshots: 1,
            granularity: LbaCount::new(1),
            page_limit: Some(config.page_limit),
            refuses_deleted_base: true,
        }
    }

    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        let Some(info) = SimArray::volume(self, volume) else {
            let error = SimError::NotFound(format!("volume {volume} not found"));
            return Err(api_error(format!("volume {volume}"), &error));
        };
        Ok(VolumeInfo {
            uuid: info.uuid,
            name: info.name,
            size_bytes: info.size_bytes,
            sector_bytes: info.block.into(),
            usable: true,
            writable: true,
            is_clone: info.source_snapshot.is_some(),
            clone_of: info.source_snapshot,
        })
    }

    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        let made = SimArray::create_snapshot(self, volume, name.to_string());
        made.map(snapshot_info)
            .map_err(|e| api_error(format!("create snapshot {name} of volume {volume}"), &e))
    }

    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        SimArray::snapshot(self, snapshot).map(snapshot_info).ok_or_else(|| no_snapshot(snapshot))
    }

    fn snapshot_state(&self, snapshot: SnapshotUuid) -> Result<SnapshotState, ApiError> {
        self.state_of(snapshot).map(snapshot_state).ok_or_else(|| no_snapshot(snapshot))
    }

    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        Ok(SimArray::snapshots(self).into_iter().map(snapshot_info).collect())
    }

    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        SimArray::delete_snapshot(self, snapshot)
            .map_err(|e| api_error(format!("delete snapshot {snapshot}"), &e))
    }

    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        self.diff(snapshot, base, from.get()).map(|sim| page(&sim)).map_err(|e| {
            let base = base.map_or_else(String::new, |base| format!(" against {base}"));
            api_error(format!("diff of {snapshot}{base} from LBA {from}"), &e)
        })
    }

    fn read_snapshot(
        &self,
        snapshot: SnapshotUuid,
        at: Lba,
        buf: &mut [u8],
    ) -> Result<(), ApiError> {
        let call = || format!("read snapshot {snapshot} at LBA {at}");
        let Some(byte) = at.byte_offset(self.config().block) else {
            return Err(api_error(call(), &SimError::BadRequest("past 2^64 bytes".into())));
        };
        SimArray::read_snapshot(self, snapshot, byte.get(), buf).map_err(|e| api_error(call(), &e))
    }

    fn rollback(&self, volume: VolumeUuid, to: SnapshotUuid) -> Result<(), ApiError> {
        SimArray::rollback(self, volume, to)
            .map_err(|e| api_error(format!("roll volume {volume} back to {to}"), &e))
    }

    fn resize(&self, volume: VolumeUuid, len: LbaCount) -> Result<(), ApiError> {
        SimArray::resize(self, volume, len)
            .map_err(|e| api_error(format!("resize volume {volume} to {len} LBAs"), &e))
    }

    fn restart(&self, clean: bool) -> Result<(), ApiError> {
        SimArray::restart(self, clean);
        Ok(())
    }

    fn clone_snapshot(&self, snapshot: SnapshotUuid) -> Result<VolumeUuid, ApiError> {
        let name = self.free_name("clone");
        SimArray::clone_snapshot(self, snapshot, &name)
            .map_err(|e| api_error(format!("clone snapshot {snapshot}"), &e))
    }

    fn create_volume(
        &self,
        len: LbaCount,
        uuid: Option<VolumeUuid>,
    ) -> Result<VolumeUuid, ApiError> {
        let name = self.free_name("volume");
        SimArray::create_volume(self, &name, len, uuid)
            .map_err(|e| api_error(format!("create a volume of {len} LBAs"), &e))
    }

    fn device(&self, volume: VolumeUuid) -> Option<Box<dyn BlockDevice>> {
        SimArray::device(self, volume).ok().map(|device| Box::new(device) as Box<dyn BlockDevice>)
    }

    fn arm_fault(&self, volume: VolumeUuid, kind: &str, nth: u32) -> Result<(), ApiError> {
        let fault = SimFault::from_name(kind).ok_or(ApiError::Unsupported("that fault"))?;
        self.arm(volume, fault, When::once(nth))
            .map_err(|e| api_error(format!("arm {kind} on volume {volume}"), &e))
    }

    fn disarm_fault(&self, volume: VolumeUuid) -> bool {
        self.disarm(volume)
    }

    fn delete_volume(&self, volume: VolumeUuid) -> Result<(), ApiError> {
        SimArray::delete_volume(self, volume)
            .map_err(|e| api_error(format!("delete volume {volume}"), &e))
    }
}

impl SimDevice {
    fn io(op: &'static str, at: ByteOffset) -> impl Fn(SimIoError) -> DeviceError {
        move |error| match error {
            SimIoError::NoContents => DeviceError::Unsupported("contents"),
            error => DeviceError::Io { op, at, source: io::Error::from(error) },
        }
    }

    /// An extent in bytes; one past 2^64 is past the end anyway.
    fn bytes(&self, at: Lba, len: LbaCount) -> (ByteOffset, u64) {
        let offset = at.byte_offset(self.block()).unwrap_or(ByteOffset::new(u64::MAX));
        (offset, len.bytes(self.block()).get())
    }
}

impl BlockDevice for SimDevice {
    fn block_size(&self) -> BlockSize {
        self.block()
    }

    fn len_lbas(&self) -> LbaCount {
        LbaCount::new(self.size_bytes() / self.block().bytes())
    }

    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.read_bytes(at.get(), buf).map_err(SimDevice::io("read", at))
    }

    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        self.write_some(at.get(), buf).map_err(SimDevice::io("write", at))
    }

    fn write_zeroes(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        let (offset, bytes) = self.bytes(at, len);
        self.zero_bytes(offset.get(), bytes).map_err(SimDevice::io("write-zeroes", offset))
    }

    fn discard(&self, at: Lba, len: LbaCount) -> Result<(), DeviceError> {
        let (offset, bytes) = self.bytes(at, len);
        self.discard_bytes(offset.get(), bytes).map_err(SimDevice::io("discard", offset))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.flush_bytes().map_err(SimDevice::io("flush", ByteOffset::new(0)))
    }

    fn keeps_contents(&self) -> bool {
        self.shared.config.contents
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}
