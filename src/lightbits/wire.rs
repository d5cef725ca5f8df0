//! JSON of the API as it may come (`lightbits-api.md` sections 1 and 9): scalar forms, objects,
//! volumes, snapshots, error bodies. The diff page has its own file, `diff.rs`.
//!
//! Tolerant about form, strict about meaning: every listed spelling of a value is taken, anything
//! else is refused; absent and null are zero. All structs are derived, and an array in place of an
//! object is refused (serde would read it by position, and `[]` as an object without any field).
//! Not covered: what the values mean for a run.

use crate::array::{SnapshotInfo, SnapshotState, VolumeInfo};
use crate::block::{LBA_BYTES, LbaCount, SnapshotUuid, VolumeUuid};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// What is wrong with an answer, in words; foreign parts are not escaped yet.
pub(super) type Wrong = String;

/// A u64 as JSON number or decimal string (jsonpb writes 64-bit integers as strings). Floats,
/// negative numbers, signs, blanks and leading zeros are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct U64(pub u64);

impl<'de> Deserialize<'de> for U64 {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<U64, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = U64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an unsigned 64-bit integer, as number or decimal string")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<U64, E> {
                Ok(U64(value))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<U64, E> {
                decimal(text).map(U64).ok_or_else(|| {
                    E::custom(format_args!("`{text}` is not an unsigned 64-bit integer"))
                })
            }
        }
        de.deserialize_any(Form)
    }
}

/// Canonical decimal digits as a number; `None` for anything else.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.bytes().all(|c| c.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

/// A `T` that must come as a JSON object.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Object<T>, D::Error> {
        struct Form<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        de.deserialize_map(Form(PhantomData))
    }
}

/// A volume as sent (`lightbits-api.md` section 2); fields this tool does not use are skipped.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeWire {
    #[serde(rename = "UUID", alias = "uuid")]
    uuid: Option<String>,
    name: Option<String>,
    state: Option<String>,
    protection_state: Option<String>,
    size: Option<U64>,
    sector_size: Option<U64>,
    #[serde(rename = "sourceSnapshotUUID")]
    source_snapshot_uuid: Option<String>,
    source_snapshot_name: Option<String>,
}

/// A snapshot as sent.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotWire {
    #[serde(rename = "UUID", alias = "uuid")]
    uuid: Option<String>,
    name: Option<String>,
    state: Option<String>,
    #[serde(rename = "sourceVolumeUUID")]
    source_volume_uuid: Option<String>,
    size: Option<U64>,
    creation_time: Option<String>,
}

#[derive(serde::Deserialize)]
struct VolumesWire {
    volumes: Option<Vec<Object<VolumeWire>>>,
}

#[derive(serde::Deserialize)]
struct SnapshotsWire {
    snapshots: Option<Vec<Object<SnapshotWire>>>,
}

/// An error body (`lightbits-api.md` section 5).
#[derive(serde::Deserialize)]
struct ErrorWire {
    error: Option<String>,
    message: Option<String>,
}

/// The body of a snapshot creation.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewSnapshot<'a> {
    pub name: &'a str,
    #[serde(rename = "sourceVolumeUUID")]
    pub source_volume_uuid: VolumeUuid,
    pub project_name: &'a str,
}

/// What a clone takes over of the volume it comes from.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CloneSource {
    replica_count: Option<U64>,
    acl: Option<AccessList>,
}

/// Host NQNs that may reach a volume.
#[derive(serde::Serialize, serde::Deserialize, Default)]
struct AccessList {
    #[serde(default)]
    values: Vec<String>,
}

/// The body of a clone's creation.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewClone<'a> {
    name: &'a str,
    project_name: &'a str,
    size: String,
    replica_count: u64,
    acl: AccessList,
    #[serde(rename = "sourceSnapshotUUID")]
    source_snapshot_uuid: SnapshotUuid,
}

impl<'a> NewClone<'a> {
    /// A clone of `snapshot`, which has `bytes`, reachable as its source is.
    pub(super) fn new(
        name: &'a str,
        project_name: &'a str,
        snapshot: SnapshotUuid,
        bytes: u64,
        source: CloneSource,
    ) -> NewClone<'a> {
        NewClone {
            name,
            project_name,
            size: bytes.to_string(),
            replica_count: source.replica_count.map_or(1, |count| count.0.max(1)),
            acl: source.acl.unwrap_or_default(),
            source_snapshot_uuid: snapshot,
        }
    }
}

/// Reads a whole JSON document of one object; the error carries the place and its surroundings.
pub(super) fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Wrong> {
    match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(value)) => Ok(value),
        Err(error) => Err(format!("{error}{}", surroundings(body, &error))),
    }
}

/// Up to 64 bytes around the place of a JSON error.
fn surroundings(body: &[u8], error: &serde_json::Error) -> String {
    const BEFORE: usize = 40;
    const AFTER: usize = 24;
    let before_line: usize = body
        .split_inclusive(|&c| c == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let at = before_line.saturating_add(error.column()).min(body.len());
    let window = body.get(at.saturating_sub(BEFORE)..(at + AFTER).min(body.len()));
    match window {
        Some([]) | None => String::new(),
        Some(bytes) => format!(", near {}", String::from_utf8_lossy(bytes)),
    }
}

/// One volume.
///
/// # Errors
/// What cannot be read, in words.
pub fn decode_volume(body: &[u8]) -> Result<VolumeInfo, String> {
    volume_info(decode(body)?)
}

/// One page of a volume listing.
///
/// # Errors
/// What cannot be read, in words.
pub fn decode_volumes(body: &[u8]) -> Result<Vec<VolumeInfo>, String> {
    must_be_whole(body)?;
    let VolumesWire { volumes } = decode(body)?;
    let volumes = volumes.map_or_else(|| no_list(body, "volumes"), Ok)?;
    volumes.into_iter().map(|Object(volume)| volume_info(volume)).collect()
}

/// One snapshot.
///
/// # Errors
/// What cannot be read, in words.
pub fn decode_snapshot(body: &[u8]) -> Result<SnapshotInfo, String> {
    snapshot_info(decode(body)?)
}

/// One page of a snapshot listing.
///
/// # Errors
/// What cannot be read, in words.
pub fn decode_snapshots(body: &[u8]) -> Result<Vec<SnapshotInfo>, String> {
    must_be_whole(body)?;
    let SnapshotsWire { snapshots } = decode(body)?;
    let snapshots = snapshots.map_or_else(|| no_list(body, "snapshots"), Ok)?;
    snapshots.into_iter().map(|Object(snapshot)| snapshot_info(snapshot)).collect()
}

/// What a listing may say of being only a part; the API pages by `offsetUUID` and says nothing.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartWire {
    next_page_token: Option<serde_json::Value>,
    truncated: Option<serde_json::Value>,
}

/// Refuses a listing that says there is more where this client cannot ask for it: what is left out
/// would count as gone.
fn must_be_whole(body: &[u8]) -> Result<(), Wrong> {
    use serde_json::Value;
    let PartWire { next_page_token, truncated } = decode(body)?;
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "false",
        _ => false,
    };
    for (key, value) in [("nextPageToken", next_page_token), ("truncated", truncated)] {
        if value.is_some_and(|value| !says_nothing(&value)) {
            return Err(format!("the listing is incomplete, it says `{key}`"));
        }
    }
    Ok(())
}

/// An absent list is an empty one, if nothing else came in its place: `{}` is an empty listing,
/// `{"error": ..}` and `{"Snapshots": [..]}` are not.
fn no_list<T>(body: &[u8], name: &str) -> Result<Vec<T>, Wrong> {
    let keys = decode::<BTreeMap<String, IgnoredAny>>(body)?;
    match keys.keys().find(|key| *key != name) {
        None => Ok(Vec::new()),
        Some(other) => Err(format!("no `{name}` in it, but `{other}`")),
    }
}

/// The answer to a call that has nothing to tell: an object or nothing at all. A proxy's page or an
/// error that came with a success status says that it was *not* done.
pub(crate) fn decode_done(body: &[u8]) -> Result<(), String> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    let keys = decode::<BTreeMap<String, IgnoredAny>>(body)?;
    match keys.keys().find(|key| ["error", "message", "code"].contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!("an error body (field `{key}`) came with a success status")),
    }
}

/// Whether `body` is a JSON object, as the server's own errors are and a proxy's are not.
pub(crate) fn is_json_object(body: &[u8]) -> bool {
    serde_json::from_slice::<Object<BTreeMap<String, IgnoredAny>>>(body).is_ok()
}

/// Whether `body` is an error as the API sends it (`lightbits-api.md` section 5): an object with words
/// and with the number of a gRPC status. A gateway's or firewall's JSON is not, nor are those whose code
/// is an HTTP status: what they refuse the array has not refused.
pub(crate) fn is_api_error(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Shape {
        error: Option<String>,
        message: Option<String>,
        code: Option<u64>,
    }
    /// UNAUTHENTICATED, the last one: <https://grpc.io/docs/guides/status-codes/>.
    const LAST_CODE: u64 = 16;
    serde_json::from_slice::<Object<Shape>>(body).is_ok_and(|Object(shape)| {
        let words = shape.error.is_some() || shape.message.is_some();
        words && shape.code.is_some_and(|code| code <= LAST_CODE)
    })
}

/// The server's words in an error body: `error`, else `message`, else the body itself.
pub(crate) fn error_text(body: &[u8]) -> String {
    let wire = serde_json::from_slice::<Object<ErrorWire>>(body).ok();
    let words = wire.and_then(|Object(wire)| wire.error.or(wire.message));
    words
        .filter(|words| !words.trim().is_empty())
        .unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned())
}

fn volume_info(wire: VolumeWire) -> Result<VolumeInfo, Wrong> {
    let uuid = uuid_field::<VolumeUuid>("UUID", wire.uuid.as_deref())?;
    let sector = wire.sector_size.unwrap_or_default().0;
    let state = wire.state.unwrap_or_default();
    let protection = wire.protection_state.unwrap_or_default();
    let named = |text: Option<String>| text.is_some_and(|text| !text.is_empty());
    Ok(VolumeInfo {
        uuid,
        name: wire.name.unwrap_or_default(),
        size_bytes: wire.size.unwrap_or_default().0,
        sector_bytes: match sector {
            0 => 4096, // the default, and a zero is not sent
            sector => u32::try_from(sector)
                .map_err(|_| format!("a sector of {sector} bytes is out of range"))?,
        },
        usable: matches!(state.as_str(), "Available" | "Updating" | "Migrating"),
        writable: matches!(protection.as_str(), "FullyProtected" | "Degraded"),
        clone_of: wire.source_snapshot_uuid.as_deref().and_then(|uuid| uuid.parse().ok()),
        is_clone: named(wire.source_snapshot_uuid) || named(wire.source_snapshot_name),
    })
}

fn snapshot_info(wire: SnapshotWire) -> Result<SnapshotInfo, Wrong> {
    let volume = wire.source_volume_uuid.as_deref();
    Ok(SnapshotInfo {
        uuid: uuid_field::<SnapshotUuid>("UUID", wire.uuid.as_deref())?,
        name: wire.name.unwrap_or_default(),
        state: match wire.state.as_deref().unwrap_or_default() {
            "Creating" => SnapshotState::Creating,
            "Available" => SnapshotState::Available,
            "Deleting" => SnapshotState::Deleting,
            "Deleted" => SnapshotState::Deleted,
            "Failed" => SnapshotState::Failed,
            _ => SnapshotState::Other,
        },
        volume: uuid_field::<VolumeUuid>("sourceVolumeUUID", volume)?,
        // A volume need not end on a whole LBA's edge; its last bytes are in the last LBA.
        len: LbaCount::new(wire.size.unwrap_or_default().0.div_ceil(LBA_BYTES)),
        created: wire.creation_time.filter(|time| !time.is_empty()),
    })
}

/// A UUID in its one canonical form: 36 characters with hyphens.
fn uuid_field<T: std::str::FromStr>(field: &str, text: Option<&str>) -> Result<T, Wrong> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| format!("no {field} in it"))?;
    let parsed = if text.len() == 36 { text.parse().ok() } else { None };
    parsed.ok_or_else(|| format!("{field} `{text}` is not a UUID"))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
