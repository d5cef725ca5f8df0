//! The calls of the management API: what each asks of the array and how it answers.
//!
//! Meanings and status codes are those of `lightbits-api.md` sections 2, 3, 4 and 7. Permission was
//! given before ([`super::routes`]). Not covered: QoS, placement, retention (it is kept and shown,
//! but nothing expires).

use super::notes::VolumeNotes;
use super::routes::{Api, Call, Query, Refusal, Request, is_name, parse_body, parse_uuid};
use super::wire::{self, Loose};
use super::{SimSnapshotInfo, SimSnapshotState, SimVolumeInfo};
use crate::block::{LbaCount, SnapshotUuid, VolumeUuid};
use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// Objects in one answer to a list call: default and maximum.
const LIST_MAX: u64 = 1000;
const DESCRIPTION_MAX_BYTES: usize = 256;
const LABELS_MAX: usize = 16;
const REPLICAS_MAX: u32 = 3;
/// Sizes are rounded up to this many bytes.
const SIZE_UNIT_BYTES: u64 = 4096;

impl Api {
    /// Does one call and answers its body; every success is 200.
    pub(super) fn run(
        &self,
        call: Call,
        uuid: &str,
        query: &Query,
        request: &Request<'_>,
    ) -> Result<String, Refusal> {
        match call {
            Call::Version => Ok(wire::version_json(self.profile())),
            Call::Cluster | Call::ClusterInfo => {
                Ok(wire::cluster_json(&self.cluster, self.profile()))
            }
            Call::ListVolumes => self.list_volumes(query),
            Call::GetVolume => self.get_volume(uuid, query),
            Call::CreateVolume => self.create_volume(request),
            Call::UpdateVolume => self.update_volume(uuid, request),
            Call::DeleteVolume => self.delete_volume(uuid, request),
            Call::Rollback => self.rollback(uuid, request),
            Call::ListSnapshots => self.list_snapshots(query),
            Call::GetSnapshot => self.get_snapshot(uuid, query),
            Call::CreateSnapshot => self.create_snapshot(request),
            Call::DeleteSnapshot => self.delete_snapshot(uuid, request),
            Call::Diff => self.diff(uuid, query),
        }
    }

    // Volumes.

    fn list_volumes(&self, query: &Query) -> Result<String, Refusal> {
        // Known, so it must be a flag; no volume of the simulator is ever Deleting.
        query.flag("showAll")?;
        let uuid: Option<VolumeUuid> = query.uuid("UUID")?;
        let source: Option<SnapshotUuid> = query.uuid("snapshotUUID")?;
        let name = query.text("name");
        let wanted = |volume: &SimVolumeInfo| {
            uuid.is_none_or(|uuid| volume.uuid == uuid)
                && name.is_none_or(|name| volume.name == name)
                && (source.is_none() || volume.source_snapshot == source)
        };
        let volumes = self.array.volumes().into_iter().filter(wanted);
        let page = page(volumes.map(|volume| (volume.uuid, volume)), query)?;
        let shown: Vec<_> = page.iter().map(|volume| self.show_volume(volume)).collect();
        Ok(wire::volumes_json(&shown, self.profile()))
    }

    fn get_volume(&self, uuid: &str, query: &Query) -> Result<String, Refusal> {
        let volume = match (uuid, query.text("name")) {
            ("", Some(name)) => self.volume_named(name)?,
            ("", None) => return Err(Refusal::bad("UUID or name is required")),
            (uuid, _) => self.volume(parse_uuid(uuid)?)?,
        };
        Ok(wire::volume_json(&self.show_volume(&volume), self.profile()))
    }

    fn create_volume(&self, request: &Request<'_>) -> Result<String, Refusal> {
        let body: wire::CreateVolume = parse_body(request.body)?;
        let name = required_name(body.name.as_ref())?;
        let replica_count = number_of("replicaCount", body.replica_count.as_ref())?;
        if !(1..=REPLICAS_MAX).contains(&replica_count) {
            return Err(Refusal::bad(format!("replicaCount must be 1 to {REPLICAS_MAX}")));
        }
        let acl =
            body.acl.and_then(|acl| acl.values).ok_or_else(|| Refusal::bad("acl is required"))?;
        let compression = body.compression.as_ref().map(compression_of).transpose()?;
        require_4k_sectors(body.sector_size.as_ref())?;
        check_labels(body.labels.as_deref().unwrap_or_default())?;
        let size_bytes = size_of(body.size.as_ref())?;

        let source = match (
            text_of(body.source_snapshot_uuid.as_ref()),
            text_of(body.source_snapshot_name.as_ref()),
        ) {
            (Some(uuid), _) => Some(self.snapshot(parse_uuid(uuid)?)?),
            (None, Some(name)) => Some(self.snapshot_named(name)?),
            (None, None) => None,
        };
        let volume = match &source {
            None => self.array.create_volume(name, self.len_of(size_bytes), None)?,
            Some(snapshot) if snapshot.size_bytes != size_bytes => {
                return Err(Refusal::bad(format!(
                    "size must be that of the source snapshot, {} bytes",
                    snapshot.size_bytes
                )));
            }
            Some(snapshot) => self.array.clone_snapshot(snapshot.uuid, name)?,
        };
        {
            let mut notes = self.notes();
            let inherited = source.map(|s| notes.snapshot(s.uuid, s.volume).volume.labels.clone());
            let note = notes.volume(volume);
            note.acl = acl;
            note.replica_count = replica_count;
            note.labels = body.labels.or(inherited).unwrap_or_default();
            note.compression = compression.unwrap_or_default();
            if let Some(ip_acl) = body.ip_acl.and_then(|acl| acl.values) {
                note.ip_acl = ip_acl;
            }
        }
        let volume = self.volume(volume)?;
        Ok(wire::volume_json(&self.show_volume(&volume), self.profile()))
    }

    fn update_volume(&self, uuid: &str, request: &Request<'_>) -> Result<String, Refusal> {
        let volume = self.volume(parse_uuid(uuid)?)?;
        let body: wire::UpdateVolume = parse_body(request.body)?;
        self.check_volume_etag(&volume, request)?;
        let compression = body.compression.as_ref().map(compression_of).transpose()?;
        let force = flag_of("Force", body.force.as_ref())?;
        check_labels(body.labels.as_deref().unwrap_or_default())?;
        let new_size = body.size.as_ref().map(|size| size_of(Some(size))).transpose()?;
        if text_of(body.new_name.as_ref()).is_some_and(|name| name != volume.name) {
            return Err(Refusal::new(501, "this simulator does not rename volumes"));
        }
        if let Some(new_size) = new_size {
            if new_size < volume.size_bytes && !force {
                return Err(Refusal::bad("shrinking a volume needs Force"));
            }
            if new_size != volume.size_bytes {
                self.array.resize(volume.uuid, self.len_of(new_size))?;
            }
        }
        let mut notes = self.notes();
        let note = notes.volume(volume.uuid);
        note.revision += 1;
        if let Some(acl) = body.acl.and_then(|acl| acl.values) {
            note.acl = acl;
        }
        if let Some(ip_acl) = body.ip_acl.and_then(|acl| acl.values) {
            note.ip_acl = ip_acl;
        }
        if let Some(labels) = body.labels {
            note.labels = labels;
        }
        if let Some(compression) = compression {
            note.compression = compression;
        }
        Ok(nothing())
    }

    fn delete_volume(&self, uuid: &str, request: &Request<'_>) -> Result<String, Refusal> {
        let volume = self.volume(parse_uuid(uuid)?)?;
        self.check_volume_etag(&volume, request)?;
        self.array.delete_volume(volume.uuid)?;
        self.notes().forget_volume(volume.uuid);
        Ok(nothing())
    }

    fn rollback(&self, uuid: &str, request: &Request<'_>) -> Result<String, Refusal> {
        let volume = self.volume(parse_uuid(uuid)?)?;
        let body: wire::Rollback = parse_body(request.body)?;
        self.check_volume_etag(&volume, request)?;
        let snapshot = text_of(body.src_snapshot_uuid.as_ref());
        let snapshot = snapshot.ok_or_else(|| Refusal::bad("srcSnapshotUUID is required"))?;
        self.array.rollback(volume.uuid, parse_uuid(snapshot)?)?;
        self.notes().volume(volume.uuid).revision += 1;
        Ok(nothing())
    }

    // Snapshots.

    fn list_snapshots(&self, query: &Query) -> Result<String, Refusal> {
        let show_all = query.flag("showAll")?;
        let uuid: Option<SnapshotUuid> = query.uuid("UUID")?;
        let name = query.text("Name");
        let wanted = |snapshot: &SimSnapshotInfo| {
            (show_all || snapshot.state != SimSnapshotState::Deleting)
                && uuid.is_none_or(|uuid| snapshot.uuid == uuid)
                && name.is_none_or(|name| snapshot.name == name)
        };
        let snapshots = self.array.snapshots().into_iter().filter(wanted);
        let page = page(snapshots.map(|snapshot| (snapshot.uuid, snapshot)), query)?;
        let shown: Vec<_> = page.iter().map(|snapshot| self.show_snapshot(snapshot)).collect();
        Ok(wire::snapshots_json(&shown, self.profile()))
    }

    fn get_snapshot(&self, uuid: &str, query: &Query) -> Result<String, Refusal> {
        let snapshot = self.find_snapshot(uuid, query.text("Name"))?;
        Ok(wire::snapshot_json(&self.show_snapshot(&snapshot), self.profile()))
    }

    fn create_snapshot(&self, request: &Request<'_>) -> Result<String, Refusal> {
        let body: wire::CreateSnapshot = parse_body(request.body)?;
        let name = required_name(body.name.as_ref())?;
        let description = text_of(body.description.as_ref()).unwrap_or_default();
        if description.len() > DESCRIPTION_MAX_BYTES {
            return Err(Refusal::bad("description is longer than 256 bytes"));
        }
        let retention = text_of(body.retention_time.as_ref()).map(check_duration).transpose()?;
        let volume = match (
            text_of(body.source_volume_uuid.as_ref()),
            text_of(body.source_volume_name.as_ref()),
        ) {
            (Some(uuid), _) => parse_uuid(uuid)?,
            (None, Some(name)) => self.volume_named(name)?.uuid,
            (None, None) => {
                return Err(Refusal::bad("sourceVolumeUUID or sourceVolumeName is required"));
            }
        };
        let snapshot = self.array.create_snapshot(volume, name)?;
        {
            let mut notes = self.notes();
            // Asked for with the notes held, so that none is forgotten that was just made.
            let alive: BTreeSet<SnapshotUuid> =
                self.array.snapshots().iter().map(|snapshot| snapshot.uuid).collect();
            notes.keep_snapshots(&alive);
            let note = notes.snapshot(snapshot.uuid, volume);
            description.clone_into(&mut note.description);
            note.retention = retention;
        }
        Ok(wire::snapshot_json(&self.show_snapshot(&snapshot), self.profile()))
    }

    fn delete_snapshot(&self, uuid: &str, request: &Request<'_>) -> Result<String, Refusal> {
        let snapshot = self.snapshot(parse_uuid(uuid)?)?;
        check_etag(&snapshot_etag(snapshot.state), request)?;
        match snapshot.state {
            SimSnapshotState::Deleting => {
                return Err(Refusal::bad("snapshot is in state Deleting"));
            }
            SimSnapshotState::Creating => {
                return Err(Refusal::new(503, "snapshot is in state Creating; try again later"));
            }
            SimSnapshotState::Available => {}
        }
        self.array.delete_snapshot(snapshot.uuid)?;
        Ok(nothing())
    }

    fn diff(&self, uuid: &str, query: &Query) -> Result<String, Refusal> {
        let snapshot = self.find_snapshot(uuid, query.text("snapshotName"))?;
        let base = match (query.uuid("baseSnapshotUUID")?, query.text("baseSnapshotName")) {
            (Some(uuid), _) => Some(uuid),
            (None, Some(name)) => Some(self.snapshot_named(name)?.uuid),
            (None, None) => None,
        };
        let offset_lba = query.number("offsetLBA")?.unwrap_or(0);
        let page = self.array.diff(snapshot.uuid, base, offset_lba)?;
        let range = |range: &super::SimRange| wire::Range {
            lba_start: range.start_lba,
            lba_end: range.end_lba_inclusive,
            bits: range.bits,
        };
        let ranges: Vec<wire::Range> = page.ranges.iter().map(range).collect();
        Ok(wire::diff_json(page.next_offset_lba, &ranges, self.profile()))
    }

    // Shared by several calls.

    fn notes(&self) -> MutexGuard<'_, super::notes::Notes> {
        // Notes stay usable whatever panicked while they were held.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn volume(&self, uuid: VolumeUuid) -> Result<SimVolumeInfo, Refusal> {
        let found = self.array.volume(uuid);
        found.ok_or_else(|| Refusal::not_found(format!("volume {uuid} not found")))
    }

    fn snapshot(&self, uuid: SnapshotUuid) -> Result<SimSnapshotInfo, Refusal> {
        let found = self.array.snapshot(uuid);
        found.ok_or_else(|| Refusal::not_found(format!("snapshot {uuid} not found")))
    }

    /// The volume of this name.
    fn volume_named(&self, name: &str) -> Result<SimVolumeInfo, Refusal> {
        let found = self.array.volumes().into_iter().find(|volume| volume.name == name);
        found.ok_or_else(|| Refusal::not_found(format!("volume {name:?} not found")))
    }

    /// The snapshot of this name; one that is being deleted only if there is no other.
    fn snapshot_named(&self, name: &str) -> Result<SimSnapshotInfo, Refusal> {
        let named = self.array.snapshots().into_iter().filter(|snapshot| snapshot.name == name);
        let found = named.min_by_key(|snapshot| snapshot.state == SimSnapshotState::Deleting);
        found.ok_or_else(|| Refusal::not_found(format!("snapshot {name:?} not found")))
    }

    /// By identity, or by name where the path has an empty identity.
    fn find_snapshot(&self, uuid: &str, name: Option<&str>) -> Result<SimSnapshotInfo, Refusal> {
        match (uuid, name) {
            ("", Some(name)) => self.snapshot_named(name),
            ("", None) => Err(Refusal::bad("UUID or Name is required")),
            (uuid, _) => Ok(self.snapshot(parse_uuid(uuid)?)?),
        }
    }

    fn check_volume_etag(
        &self,
        volume: &SimVolumeInfo,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        check_etag(&self.notes().volume(volume.uuid).revision.to_string(), request)
    }

    fn show_volume(&self, volume: &SimVolumeInfo) -> wire::Volume {
        let source = volume.source_snapshot.map(|uuid| wire::Named {
            uuid: uuid.to_string(),
            name: self.array.snapshot(uuid).map_or_else(String::new, |snapshot| snapshot.name),
        });
        let notes: VolumeNotes = self.notes().volume(volume.uuid).clone();
        wire::Volume {
            state: "Available",
            protection_state: "FullyProtected",
            replica_count: notes.replica_count,
            node_list: vec![self.node.clone()],
            uuid: volume.uuid.to_string(),
            nsid: notes.nsid,
            acl: notes.acl,
            compression: notes.compression,
            size_bytes: volume.size_bytes,
            name: volume.name.clone(),
            used_bytes: 0,
            ip_acl: notes.ip_acl,
            etag: notes.revision.to_string(),
            sector_bytes: self.sector_bytes(),
            project: self.project.clone(),
            source_snapshot: source,
            created: self.moment(volume.created),
            labels: notes.labels,
            cluster_id: self.cluster.uuid.clone(),
        }
    }

    fn show_snapshot(&self, snapshot: &SimSnapshotInfo) -> wire::Snapshot {
        let notes = self.notes().snapshot(snapshot.uuid, snapshot.volume).clone();
        let creating = snapshot.state == SimSnapshotState::Creating;
        wire::Snapshot {
            state: match snapshot.state {
                SimSnapshotState::Creating => "Creating",
                SimSnapshotState::Available => "Available",
                SimSnapshotState::Deleting => "Deleting",
            },
            uuid: snapshot.uuid.to_string(),
            name: snapshot.name.clone(),
            description: notes.description,
            created: (!creating).then(|| self.moment(snapshot.created)),
            retention: notes.retention,
            source_volume: wire::Named {
                uuid: snapshot.volume.to_string(),
                name: snapshot.volume_name.clone(),
            },
            replica_count: notes.volume.replica_count,
            node_list: vec![self.node.clone()],
            nsid: notes.volume.nsid,
            acl: notes.volume.acl,
            compression: notes.volume.compression,
            size_bytes: snapshot.size_bytes,
            ip_acl: notes.volume.ip_acl,
            sector_bytes: self.sector_bytes(),
            etag: snapshot_etag(snapshot.state),
            project: self.project.clone(),
            labels: notes.volume.labels,
            cluster_id: self.cluster.uuid.clone(),
        }
    }

    /// How many LBAs hold `size_bytes`.
    fn len_of(&self, size_bytes: u64) -> LbaCount {
        LbaCount::new(size_bytes.div_ceil(self.array.config().block.bytes()))
    }

    fn sector_bytes(&self) -> u32 {
        u32::try_from(self.array.config().block.bytes()).unwrap_or(u32::MAX)
    }

    /// A time of the array's clock as text.
    fn moment(&self, clock: Duration) -> String {
        let moment = self.clock_zero.saturating_add(clock);
        wire::rfc3339(moment.as_secs(), moment.subsec_nanos())
    }
}

/// The body of a call that has nothing to say.
fn nothing() -> String {
    "{}".to_owned()
}

/// Sorts by identity, starts after `offsetUUID` (which need not exist any more) and cuts at `limit`.
fn page<K: Ord + std::str::FromStr, T>(
    items: impl Iterator<Item = (K, T)>,
    query: &Query,
) -> Result<Vec<T>, Refusal> {
    let after: Option<K> = query.uuid("offsetUUID")?;
    let limit = match query.number("limit")? {
        None | Some(0) => LIST_MAX,
        Some(limit) => limit.min(LIST_MAX),
    };
    let mut items: Vec<(K, T)> =
        items.filter(|(key, _)| after.as_ref().is_none_or(|after| key > after)).collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

/// A snapshot changes only by its state, so that is its version.
fn snapshot_etag(state: SimSnapshotState) -> String {
    let version = match state {
        SimSnapshotState::Creating => "1",
        SimSnapshotState::Available => "2",
        SimSnapshotState::Deleting => "3",
    };
    version.to_owned()
}

/// `If-Match` is optional, and quotes around the ETag are too.
fn check_etag(etag: &str, request: &Request<'_>) -> Result<(), Refusal> {
    match request.if_match.map(|sent| sent.trim().trim_matches('"')) {
        None | Some("*") => Ok(()),
        Some(sent) if sent == etag => Ok(()),
        Some(_) => Err(Refusal::new(412, "ETag mismatch: the object was changed meanwhile")),
    }
}

/// The text of an optional field; empty counts as absent, as for the vendor's encoding.
fn text_of(field: Option<&Loose>) -> Option<&str> {
    field.map(|field| field.0.as_str()).filter(|text| !text.is_empty())
}

fn required_name(field: Option<&Loose>) -> Result<&str, Refusal> {
    let name = text_of(field).ok_or_else(|| Refusal::bad("name is required"))?;
    if is_name(name) {
        return Ok(name);
    }
    Err(Refusal::bad("name must be 1 to 253 of letters, digits, `-`, `_` and `.`"))
}

fn number_of(what: &str, field: Option<&Loose>) -> Result<u32, Refusal> {
    let text = text_of(field).unwrap_or("0");
    text.parse().map_err(|_| Refusal::bad(format!("invalid value {text:?} for {what}")))
}

fn flag_of(what: &str, field: Option<&Loose>) -> Result<bool, Refusal> {
    match text_of(field) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Refusal::bad(format!("invalid value {other:?} for {what}"))),
    }
}

/// A size in bytes, rounded up as the array does.
fn size_of(field: Option<&Loose>) -> Result<u64, Refusal> {
    let text = text_of(field).ok_or_else(|| Refusal::bad("size is required"))?;
    let size =
        wire::parse_size(text).and_then(|size| size.checked_next_multiple_of(SIZE_UNIT_BYTES));
    size.filter(|&size| size > 0).ok_or_else(|| Refusal::bad(format!("invalid size {text:?}")))
}

fn compression_of(field: &Loose) -> Result<bool, Refusal> {
    match field.0.as_str() {
        "true" | "enable" | "enabled" => Ok(true),
        "" | "false" | "disable" | "disabled" => Ok(false),
        other => Err(Refusal::bad(format!("invalid value {other:?} for compression"))),
    }
}

fn require_4k_sectors(field: Option<&Loose>) -> Result<(), Refusal> {
    match text_of(field) {
        None | Some("0" | "4096" | "4K" | "sectorSize_Default" | "sectorSize_4K") => Ok(()),
        Some("512" | "512B" | "sectorSize_512B") => {
            Err(Refusal::new(501, "this simulator has no volumes with 512-byte sectors"))
        }
        Some(other) => Err(Refusal::bad(format!("invalid value {other:?} for sectorSize"))),
    }
}

fn check_labels(labels: &[wire::Label]) -> Result<(), Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(Refusal::bad("a volume has at most 16 labels"));
    }
    Ok(())
}

/// A duration in the API's spelling, such as `3600s`.
fn check_duration(text: &str) -> Result<String, Refusal> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
    match seconds {
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(text.to_owned()),
        _ => Err(Refusal::bad(format!("invalid duration {text:?}"))),
    }
}
