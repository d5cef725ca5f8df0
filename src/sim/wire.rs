//! The simulator's own JSON: what it writes, byte for byte, and what it reads, leniently.
//!
//! Written from `lightbits-api.md` sections 1, 2, 3 and 7 alone. It shares no type and no bitmap
//! code with the client, so that the two can disagree. Field order is the vendor's declaration
//! order. Not covered: routes and status codes (`super::routes`), hostile encodings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, de};
use std::fmt::{self, Write as _};

/// How zero values are written (`lightbits-api.md` section 8). In both, 64-bit integers are quoted
/// and bytes are base64, little-endian for bitmaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// Zeros, empty lists and absent messages are left out.
    #[default]
    A,
    /// They are written: `"0"`, `[]`, `false`, `null`.
    B,
}

/// A volume as the API shows it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Volume {
    /// Name of the state: `Creating`, `Available`, `Deleting`, ...
    pub state: &'static str,
    /// Name of the protection state: `FullyProtected`, ...
    pub protection_state: &'static str,
    /// Copies of the data.
    pub replica_count: u32,
    /// Nodes that hold them.
    pub node_list: Vec<String>,
    /// Identity, lower case.
    pub uuid: String,
    /// NVMe namespace number.
    pub nsid: u32,
    /// Host NQNs that may attach it.
    pub acl: Vec<String>,
    /// Whether data is compressed; text on the wire, unlike a snapshot's.
    pub compression: bool,
    /// Capacity.
    pub size_bytes: u64,
    /// Name.
    pub name: String,
    /// Space its data takes.
    pub used_bytes: u64,
    /// Host addresses that may attach it.
    pub ip_acl: Vec<String>,
    /// Version for `If-Match`.
    pub etag: String,
    /// Bytes of a sector.
    pub sector_bytes: u32,
    /// The project it belongs to.
    pub project: String,
    /// The snapshot it was made from, if any.
    pub source_snapshot: Option<Named>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: Vec<Label>,
    /// The cluster's identity.
    pub cluster_id: String,
}

/// A snapshot as the API shows it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Name of the state.
    pub state: &'static str,
    /// Identity, lower case.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Free text of its maker.
    pub description: String,
    /// When it was made, RFC 3339; not known while it is being made.
    pub created: Option<String>,
    /// How long it is kept, as a duration text such as `3600s`; for ever if absent.
    pub retention: Option<String>,
    /// The volume it was taken of.
    pub source_volume: Named,
    /// Copies of the data.
    pub replica_count: u32,
    /// Nodes that hold them.
    pub node_list: Vec<String>,
    /// NVMe namespace number of the volume.
    pub nsid: u32,
    /// The volume's host NQNs.
    pub acl: Vec<String>,
    /// Whether data is compressed; a boolean on the wire, unlike a volume's.
    pub compression: bool,
    /// Capacity of the volume when it was taken.
    pub size_bytes: u64,
    /// The volume's host addresses.
    pub ip_acl: Vec<String>,
    /// Bytes of a sector.
    pub sector_bytes: u32,
    /// Version for `If-Match`.
    pub etag: String,
    /// The project it belongs to.
    pub project: String,
    /// Labels, copied from the volume.
    pub labels: Vec<Label>,
    /// The cluster's identity.
    pub cluster_id: String,
}

/// Identity and name of something another object points to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Named {
    /// Identity, lower case.
    pub uuid: String,
    /// Name; empty if it is no longer known.
    pub name: String,
}

/// A label of a volume or snapshot.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// One range of a diff answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First LBA of the chunk.
    pub lba_start: u64,
    /// Last LBA of the chunk.
    pub lba_end: u64,
    /// Bit `i` says that LBA `lba_start + i` changed.
    pub bits: u64,
}

/// The cluster as its tenants see it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Cluster {
    /// Identity.
    pub uuid: String,
    /// The one NQN of all volumes.
    pub subsystem_nqn: String,
    /// Addresses of this API, `host:port`.
    pub api_endpoints: Vec<String>,
}

/// Writes `volume`.
pub fn volume_json(volume: &Volume, profile: Profile) -> String {
    let mut out = String::with_capacity(1024);
    write_volume(&mut out, volume, profile);
    out
}

/// Writes `snapshot`.
pub fn snapshot_json(snapshot: &Snapshot, profile: Profile) -> String {
    let mut out = String::with_capacity(1024);
    write_snapshot(&mut out, snapshot, profile);
    out
}

/// Writes a list of volumes.
pub fn volumes_json(volumes: &[Volume], profile: Profile) -> String {
    object(profile, |json| json.list("volumes", volumes, write_volume))
}

/// Writes a list of snapshots.
pub fn snapshots_json(snapshots: &[Snapshot], profile: Profile) -> String {
    object(profile, |json| json.list("snapshots", snapshots, write_snapshot))
}

/// Writes a page of a diff; `next_offset_lba` 0 says that there is no further one.
pub fn diff_json(next_offset_lba: u64, ranges: &[Range], profile: Profile) -> String {
    // 78 bytes is the usual length of a range.
    let mut json = Json::open(String::with_capacity(64 + 80 * ranges.len()), profile);
    json.uint64("nextOffsetLBA", next_offset_lba);
    json.list("lbaRanges", ranges, |out, range, profile| {
        write_object(out, profile, |json| {
            json.uint64("lbaStart", range.lba_start);
            json.uint64("lbaEnd", range.lba_end);
            json.bytes("dataBitMap", &range.bits.to_le_bytes());
        });
    });
    json.close()
}

/// Writes the API's version.
pub fn version_json(profile: Profile) -> String {
    object(profile, |json| json.text("apiVersion", "v2.0"))
}

/// Writes the cluster's addresses.
pub fn cluster_json(cluster: &Cluster, profile: Profile) -> String {
    object(profile, |json| {
        json.text("UUID", &cluster.uuid);
        json.text("subsystemNQN", &cluster.subsystem_nqn);
        json.uint32("currentMaxReplicas", 1);
        json.uint32("supportedMaxReplicas", 3);
        json.text("ETag", "1");
        json.texts("apiEndpoints", &cluster.api_endpoints);
        json.texts("discoveryEndpoints", &[]);
        json.texts("nvmeEndpoints", &[]);
    })
}

/// Writes an error; `code` is the gRPC number. Not subject to the profile.
pub fn error_json(message: &str, code: u32) -> String {
    let mut json = Json::open(String::new(), Profile::B);
    json.text("error", message);
    json.text("message", message);
    json.uint32("code", code);
    json.texts("details", &[]);
    json.close()
}

fn write_volume(out: &mut String, volume: &Volume, profile: Profile) {
    let source = volume.source_snapshot.clone().unwrap_or_default();
    write_object(out, profile, |json| {
        json.text("state", volume.state);
        json.text("protectionState", volume.protection_state);
        json.uint32("replicaCount", volume.replica_count);
        json.texts("nodeList", &volume.node_list);
        json.text("UUID", &volume.uuid);
        json.uint32("nsid", volume.nsid);
        json.access_list("acl", &volume.acl);
        json.text("compression", if volume.compression { "true" } else { "false" });
        json.uint64("size", volume.size_bytes);
        json.text("name", &volume.name);
        json.text("rebuildProgress", "None");
        json.statistics(volume.used_bytes);
        json.access_list("IPAcl", &volume.ip_acl);
        json.text("ETag", &volume.etag);
        json.texts("connectedHosts", &[]);
        json.uint32("sectorSize", volume.sector_bytes);
        json.text("projectName", &volume.project);
        json.text("sourceSnapshotUUID", &source.uuid);
        json.text("sourceSnapshotName", &source.name);
        json.texts("placementRestrictions", &[]);
        json.text("qosPolicyUUID", "");
        json.text("qosPolicyName", "");
        json.text("primaryNodeUUID", volume.node_list.first().map_or("", String::as_str));
        json.text("creationTime", &volume.created);
        json.labels(&volume.labels);
        json.text("clusterId", &volume.cluster_id);
        json.text("pgUUID", "");
    });
}

fn write_snapshot(out: &mut String, snapshot: &Snapshot, profile: Profile) {
    write_object(out, profile, |json| {
        json.text("state", snapshot.state);
        json.text("UUID", &snapshot.uuid);
        json.text("name", &snapshot.name);
        json.text("description", &snapshot.description);
        json.message("creationTime", snapshot.created.as_deref());
        json.message("retentionTime", snapshot.retention.as_deref());
        json.text("sourceVolumeUUID", &snapshot.source_volume.uuid);
        json.text("sourceVolumeName", &snapshot.source_volume.name);
        json.uint32("replicaCount", snapshot.replica_count);
        json.texts("nodeList", &snapshot.node_list);
        json.uint32("nsid", snapshot.nsid);
        json.access_list("acl", &snapshot.acl);
        json.flag("compression", snapshot.compression);
        json.uint64("size", snapshot.size_bytes);
        json.access_list("IPAcl", &snapshot.ip_acl);
        json.uint32("sectorSize", snapshot.sector_bytes);
        json.statistics(0);
        json.text("ETag", &snapshot.etag);
        json.text("projectName", &snapshot.project);
        json.text("primaryNodeUUID", snapshot.node_list.first().map_or("", String::as_str));
        json.labels(&snapshot.labels);
        json.text("clusterId", &snapshot.cluster_id);
        json.text("pgUUID", "");
    });
}

/// One JSON object being written.
struct Json {
    out: String,
    profile: Profile,
    first: bool,
}

fn object(profile: Profile, fields: impl FnOnce(&mut Json)) -> String {
    let mut json = Json::open(String::new(), profile);
    fields(&mut json);
    json.close()
}

/// Appends one object to `out`.
fn write_object(out: &mut String, profile: Profile, fields: impl FnOnce(&mut Json)) {
    let mut json = Json::open(std::mem::take(out), profile);
    fields(&mut json);
    *out = json.close();
}

impl Json {
    fn open(mut out: String, profile: Profile) -> Json {
        out.push('{');
        Json { out, profile, first: true }
    }
    fn close(mut self) -> String {
        self.out.push('}');
        self.out
    }
    /// Whether a field of this value is left out.
    fn omits(&self, is_zero: bool) -> bool {
        is_zero && self.profile == Profile::A
    }
    /// Starts a field. Names are literals of this file and need no escape.
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }
    fn text(&mut self, name: &str, value: &str) {
        if !self.omits(value.is_empty()) {
            self.name(name);
            push_text(&mut self.out, value);
        }
    }
    fn uint64(&mut self, name: &str, value: u64) {
        if !self.omits(value == 0) {
            self.name(name);
            // Writing to a String cannot fail, here and below.
            let _ = write!(self.out, "\"{value}\"");
        }
    }
    fn uint32(&mut self, name: &str, value: u32) {
        if !self.omits(value == 0) {
            self.name(name);
            let _ = write!(self.out, "{value}");
        }
    }
    fn flag(&mut self, name: &str, value: bool) {
        if !self.omits(!value) {
            self.name(name);
            self.out.push_str(if value { "true" } else { "false" });
        }
    }
    fn bytes(&mut self, name: &str, value: &[u8]) {
        if !self.omits(value.is_empty()) {
            self.name(name);
            self.out.push('"');
            BASE64.encode_string(value, &mut self.out);
            self.out.push('"');
        }
    }
    /// A message that is written as text (time, duration), or is not there.
    fn message(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            push_text(&mut self.out, value);
        } else if !self.omits(true) {
            self.name(name);
            self.out.push_str("null");
        }
    }
    fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut String, &T, Profile)) {
        if self.omits(items.is_empty()) {
            return;
        }
        self.name(name);
        self.out.push('[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.out.push(',');
            }
            write(&mut self.out, item, self.profile);
        }
        self.out.push(']');
    }
    fn texts(&mut self, name: &str, items: &[String]) {
        self.list(name, items, |out, item, _| push_text(out, item));
    }
    fn access_list(&mut self, name: &str, values: &[String]) {
        let profile = self.profile;
        self.name(name);
        write_object(&mut self.out, profile, |json| json.texts("values", values));
    }
    fn labels(&mut self, labels: &[Label]) {
        self.list("labels", labels, |out, label, profile| {
            write_object(out, profile, |json| {
                json.text("key", &label.key);
                json.text("value", &label.value);
            });
        });
    }
    fn statistics(&mut self, used_bytes: u64) {
        let profile = self.profile;
        self.name("statistics");
        write_object(&mut self.out, profile, |json| {
            json.uint64("logicalUsedStorage", used_bytes);
            json.uint64("physicalUsedStorage", used_bytes);
            json.uint32("compressionRatio", u32::from(used_bytes > 0));
        });
    }
}

/// Appends a JSON string.
fn push_text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // Go's encoder, which the vendor's server uses, escapes these three as well.
            c if c < ' ' || matches!(c, '<' | '>' | '&') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A moment as RFC 3339 in UTC, with 0, 3, 6 or 9 digits of fraction as the vendor's encoder does.
pub fn rfc3339(unix_s: u64, nanos: u32) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let _ = match nanos {
        0 => Ok(()),
        n if n % 1_000_000 == 0 => write!(out, ".{:03}", n / 1_000_000),
        n if n % 1000 == 0 => write!(out, ".{:06}", n / 1000),
        n => write!(out, ".{n:09}"),
    };
    out.push('Z');
    out
}

/// Year, month and day of the `days`-th day after 1970-01-01 (Gregorian calendar, in 400-year
/// cycles of 146,097 days counted from a first of March).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let cycle = days / 146_097;
    let in_cycle = days % 146_097;
    let year = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let in_year = in_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (cycle * 400 + year + u64::from(month <= 2), month, day)
}

/// A scalar a client may send as text, number or boolean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loose(pub String);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Loose;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, an integer or a boolean")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Loose, E> {
                Ok(Loose(value.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Loose, E> {
                Ok(Loose(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Loose, E> {
                Ok(Loose(value.to_string()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Loose, E> {
                Ok(Loose(value.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An access list in a request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AccessList {
    /// Its entries.
    pub values: Option<Vec<String>>,
}

/// Body of "create volume". `null` and absent are the same everywhere; unknown keys are ignored.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CreateVolume {
    /// Its name.
    pub name: Option<Loose>,
    /// Its size, see [`parse_size`].
    pub size: Option<Loose>,
    /// Host NQNs.
    pub acl: Option<AccessList>,
    /// `true`, `enabled`, `false`, ...
    pub compression: Option<Loose>,
    /// 1 to 3.
    pub replica_count: Option<Loose>,
    /// Host addresses.
    #[serde(rename = "IPAcl")]
    pub ip_acl: Option<AccessList>,
    /// Name or number of a sector size.
    pub sector_size: Option<Loose>,
    /// Project, on the route without one.
    pub project_name: Option<Loose>,
    /// The snapshot to make it from.
    #[serde(rename = "sourceSnapshotUUID")]
    pub source_snapshot_uuid: Option<Loose>,
    /// The same by name; the UUID wins.
    pub source_snapshot_name: Option<Loose>,
    /// Labels.
    pub labels: Option<Vec<Label>>,
}

/// Body of "update volume"; what is absent stays.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UpdateVolume {
    /// New size.
    pub size: Option<Loose>,
    /// New host NQNs.
    pub acl: Option<AccessList>,
    /// New host addresses.
    #[serde(rename = "IPAcl")]
    pub ip_acl: Option<AccessList>,
    /// New compression.
    pub compression: Option<Loose>,
    /// New name.
    pub new_name: Option<Loose>,
    /// New labels.
    pub labels: Option<Vec<Label>>,
    /// Allows shrinking.
    #[serde(rename = "Force")]
    pub force: Option<Loose>,
}

/// Body of "create snapshot".
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CreateSnapshot {
    /// Its name.
    pub name: Option<Loose>,
    /// The volume to take it of.
    #[serde(rename = "sourceVolumeUUID")]
    pub source_volume_uuid: Option<Loose>,
    /// The same by name; the UUID wins.
    pub source_volume_name: Option<Loose>,
    /// How long it is kept.
    pub retention_time: Option<Loose>,
    /// Free text, at most 256 bytes.
    pub description: Option<Loose>,
}

/// Body of "rollback".
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rollback {
    /// The snapshot to go back to.
    #[serde(rename = "srcSnapshotUUID")]
    pub src_snapshot_uuid: Option<Loose>,
}

/// A size in a request as bytes: `4294967296`, `4294967296b`, `4 gib`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
