//! Making and deleting snapshots so that nothing is done twice or left behind unseen.
//!
//! Both calls change the array and may be carried out although their answer is lost, so neither is
//! repeated before the array was asked what happened: a creation by its name, a deletion by its
//! UUID (`lightbits-api.md` sections 4 and 9, rule 9). Not covered: waiting until a snapshot is
//! Available or gone, which `crate::array` does for every target.

use super::client::LightbitsClient;
use super::http::{Call, Failure, Method, Tried};
use super::retry::{Limits, Tries};
use super::wire::{NewSnapshot, decode_done, decode_snapshot};
use crate::array::{ApiError, Reply, SnapshotInfo, SnapshotState};
use crate::block::{SnapshotName, SnapshotUuid, VolumeUuid};

/// How often an answer of 400 is taken for "another one is in progress", which some releases say
/// that way, before it is taken for what it says.
const BAD_REQUEST_TRIES: u32 = 8;

/// What one try of a write means for the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Final: success, refusal or an answer that cannot be read.
    Conclude,
    /// Nothing was sent: simply again.
    Resend,
    /// Not carried out, for now: look, then again.
    LookAfterRefusal,
    /// Perhaps carried out: look, then again.
    LookAfterDoubt,
}

pub(super) fn next_step(tried: &Tried, bad_requests: u32) -> Next {
    match tried {
        Ok(answer) => match answer.status {
            409 | 412 | 429 => Next::LookAfterRefusal,
            400 if bad_requests < BAD_REQUEST_TRIES => Next::LookAfterRefusal,
            408 | 500..=599 => Next::LookAfterDoubt,
            _ => Next::Conclude,
        },
        Err(Failure::Unsent(_)) => Next::Resend,
        Err(Failure::Lost(_)) => Next::LookAfterDoubt,
        Err(Failure::Stopped | Failure::Tls(_) | Failure::Unreadable(_)) => Next::Conclude,
    }
}

pub(super) fn is_status(tried: &Tried, status: u16) -> bool {
    tried.as_ref().is_ok_and(|answer| answer.status == status)
}

/// Starts making the snapshot `name` of `volume`.
///
/// # Errors
/// As [`crate::array::Array::create_snapshot`]; [`ApiError::Conflict`] also when the name was taken
/// before this call.
pub(super) fn create(
    client: &LightbitsClient,
    volume: VolumeUuid,
    name: SnapshotName,
) -> Result<SnapshotInfo, ApiError> {
    let http = client.http();
    let name = name.to_string();
    let mut call = Call::new(Method::Post, &["snapshots"]);
    let body =
        NewSnapshot { name: &name, source_volume_uuid: volume, project_name: client.project() };
    call.body = Some(serde_json::to_vec(&body).map_err(|e| http.malformed(&call, &e.to_string()))?);
    let budget = http.budget();
    let mut tries = Tries::new(Limits::WRITE);
    let mut in_doubt = false;
    let mut bad_requests = 0;
    loop {
        let tried = http.try_once(&call, &budget, &mut tries);
        bad_requests += u32::from(is_status(&tried, 400));
        let step = next_step(&tried, bad_requests);
        if step == Next::Conclude {
            let answer = http.conclude(&call, tried, &tries)?;
            let made = client.decoded(&call, &answer.body, decode_snapshot)?;
            return accept(client, &call, made, &name, volume);
        }
        in_doubt |= step == Next::LookAfterDoubt;
        let found = match step {
            Next::Resend => None,
            _ => client.find_snapshot(&name, &budget)?,
        };
        match found {
            Some(found) if in_doubt && found.volume == volume => {
                return accept(client, &call, found, &name, volume);
            }
            Some(found) => return Err(name_taken(&call, &name, &found)),
            None if http.wait(&budget, &tries, &tried)? => {}
            None => {
                return Err(match http.conclude(&call, tried, &tries) {
                    Err(error) => error,
                    Ok(_) => http.malformed(&call, "a success that is none"),
                });
            }
        }
    }
}

/// Takes what the array made only if it is what was asked for.
fn accept(
    client: &LightbitsClient,
    call: &Call,
    made: SnapshotInfo,
    name: &str,
    volume: VolumeUuid,
) -> Result<SnapshotInfo, ApiError> {
    if made.name != name || made.volume != volume {
        let what = format!(
            "asked for snapshot {name} of volume {volume}, it is `{}` of {}",
            made.name, made.volume
        );
        return Err(client.http().malformed(call, &what));
    }
    client.remember(&made);
    Ok(made)
}

/// A snapshot that was there before must not be taken for one made now: it is older.
fn name_taken(call: &Call, name: &str, found: &SnapshotInfo) -> ApiError {
    let text =
        format!("the name {name} is taken by snapshot {} of volume {}", found.uuid, found.volume);
    ApiError::Conflict(Reply { status: None, text, call: call.to_string() })
}

/// Starts deleting a snapshot. One that is gone, or on its way out, after a failed try counts as
/// deleted.
///
/// # Errors
/// As [`crate::array::Array::delete_snapshot`]; [`ApiError::NotFound`] when it was gone before.
pub(super) fn delete(client: &LightbitsClient, uuid: SnapshotUuid) -> Result<(), ApiError> {
    let http = client.http();
    let call = Call::new(Method::Delete, &["snapshots", &uuid.to_string()]);
    let budget = http.budget();
    let mut tries = Tries::new(Limits::WRITE);
    let mut in_doubt = false;
    let mut bad_requests = 0;
    client.forget(uuid);
    loop {
        let tried = http.try_once(&call, &budget, &mut tries);
        bad_requests += u32::from(is_status(&tried, 400));
        let step = next_step(&tried, bad_requests);
        if step == Next::Conclude {
            return match http.conclude(&call, tried, &tries) {
                Err(ApiError::NotFound(_)) if in_doubt => Ok(()),
                concluded => client.decoded(&call, &concluded?.body, decode_done),
            };
        }
        in_doubt |= step == Next::LookAfterDoubt;
        if step != Next::Resend && is_leaving(client.get_snapshot(uuid, &budget))? {
            client.forget(uuid);
            return Ok(());
        }
        if !http.wait(&budget, &tries, &tried)? {
            return http.conclude(&call, tried, &tries).map(|_| ());
        }
    }
}

/// Whether a snapshot is gone or on its way out.
fn is_leaving(looked: Result<SnapshotInfo, ApiError>) -> Result<bool, ApiError> {
    match looked {
        Ok(info) => Ok(matches!(info.state, SnapshotState::Deleting | SnapshotState::Deleted)),
        Err(ApiError::NotFound(_)) => Ok(true),
        Err(other) => Err(other),
    }
}
