//! Making and deleting clones, the only volumes this client makes or deletes.
//!
//! A creation whose answer is lost is looked up by its name before it is tried again, and a volume is
//! deleted only while the array shows it as a clone of the name given (`lightbits-api.md` sections 4
//! and 7). Not covered: waiting until a clone is usable or gone.

use super::client::LightbitsClient;
use super::http::{Call, Method};
use super::retry::{Limits, Tries};
use super::snapshots::{Next, is_status, next_step};
use super::wire::{self, CloneSource, NewClone};
use crate::array::{ApiError, Array, Clones, Reply, SnapshotInfo, VolumeInfo};
use crate::block::{LBA_BYTES, SnapshotName, VolumeUuid};

impl Clones for LightbitsClient {
    fn make_clone(&self, of: &SnapshotInfo, name: SnapshotName) -> Result<VolumeInfo, ApiError> {
        let (http, name) = (self.http(), name.to_string());
        let budget = http.budget();
        let look = Call::new(Method::Get, &["volumes", &of.volume.to_string()]);
        let source = http.read(&look, &budget)?;
        let source = self.decoded(&look, &source.body, |body| wire::decode::<CloneSource>(body))?;
        let mut call = Call::new(Method::Post, &["volumes"]);
        let bytes = of.len.get().saturating_mul(LBA_BYTES);
        let body = NewClone::new(&name, self.project(), of.uuid, bytes, source);
        call.body =
            Some(serde_json::to_vec(&body).map_err(|e| http.malformed(&call, &e.to_string()))?);
        let mut tries = Tries::new(Limits::WRITE);
        let (mut in_doubt, mut bad_requests) = (false, 0);
        loop {
            let tried = http.try_once(&call, &budget, &mut tries);
            bad_requests += u32::from(is_status(&tried, 400));
            let step = next_step(&tried, bad_requests);
            if step == Next::Conclude {
                let answer = http.conclude(&call, tried, &tries)?;
                let made = self.decoded(&call, &answer.body, wire::decode_volume)?;
                if made.name != name || !made.is_clone {
                    let what = format!("asked for a clone {name}, it is `{}`", made.name);
                    return Err(http.malformed(&call, &what));
                }
                return Ok(made);
            }
            in_doubt |= step == Next::LookAfterDoubt;
            let found = match step {
                Next::Resend => None,
                _ => self.volume_by_name(&name)?,
            };
            match found {
                Some(found) if in_doubt && found.is_clone => return Ok(found),
                Some(found) => {
                    let text = format!("the name {name} is taken by volume {}", found.uuid);
                    let call = call.to_string();
                    return Err(ApiError::Conflict(Reply { status: None, text, call }));
                }
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

    fn clones(&self) -> Result<Vec<VolumeInfo>, ApiError> {
        let mut volumes = self.volumes()?;
        volumes.retain(|volume| volume.is_clone);
        Ok(volumes)
    }

    fn delete_clone(&self, volume: VolumeUuid, name: SnapshotName) -> Result<(), ApiError> {
        let http = self.http();
        let call = Call::new(Method::Delete, &["volumes", &volume.to_string()]);
        let budget = http.budget();
        let mut tries = Tries::new(Limits::WRITE);
        let mut bad_requests = 0;
        loop {
            // Asked before each try: what is deleted is a volume, and it must be the one meant.
            match self.volume(volume) {
                Err(ApiError::NotFound(_)) => return Ok(()),
                Err(other) => return Err(other),
                Ok(info) if !info.is_clone || info.name != name.to_string() => {
                    let text = format!("volume {volume} is no clone named {name}: it was left");
                    let call = call.to_string();
                    return Err(ApiError::Conflict(Reply { status: None, text, call }));
                }
                Ok(_) => {}
            }
            let tried = http.try_once(&call, &budget, &mut tries);
            bad_requests += u32::from(is_status(&tried, 400));
            if next_step(&tried, bad_requests) == Next::Conclude
                || !http.wait(&budget, &tries, &tried)?
            {
                return match http.conclude(&call, tried, &tries) {
                    Err(ApiError::NotFound(_)) => Ok(()),
                    concluded => self.decoded(&call, &concluded?.body, wire::decode_done),
                };
            }
        }
    }
}
