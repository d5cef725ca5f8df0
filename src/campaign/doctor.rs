//! Preflight: everything a run needs, looked at one by one. Nothing is opened for writing, nothing
//! is created, on the array or off it.
//!
//! The rows are data; `crate::report` prints them. Not covered: the handshake (it writes).

use super::cleanup::{self, Runs};
use super::store::RunState;
use crate::array::{ApiError, Array, VolumeInfo, escape_text};
use crate::block::{Lba, LbaCount, Role, SnapshotUuid, VolumeUuid};
use crate::device::guards::{g9_writable, g10_size, g11_sectors, size_text};
use crate::device::signature::{Allowed, g14_no_signature};
use crate::device::{Candidate, GuardRefusal, Host, Identity, Wanted, find_by_wwid};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How one look ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowState {
    /// As it should be.
    Ok,
    /// A run is possible, but the user should know this.
    Warn,
    /// A run would be refused or could not test.
    Fail,
    /// Could not be looked at, because of an earlier row or because there is nothing to look at.
    Skip,
}

/// One line of the preflight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What was looked at, for example `source device`.
    pub what: String,
    /// How it ended.
    pub state: RowState,
    /// What was seen. May hold foreign text without control characters.
    pub seen: String,
    /// What to do about it; empty when nothing is to be done.
    pub next: String,
}

/// How the server's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsCheck {
    /// Against the certificate authorities.
    Verified,
    /// Against fingerprints the user gave.
    Pinned,
    /// Not at all.
    None,
    /// There is no TLS (a target in this process, or plain http to loopback).
    NotUsed,
}

/// One volume the run would use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInput {
    /// Source or target.
    pub role: Role,
    /// Its identity.
    pub volume: VolumeUuid,
    /// Its device; `None` to have it found by its UUID.
    pub device: Option<PathBuf>,
}

/// What the preflight looks at besides the array itself.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The endpoint, or `simulator`; for the user.
    pub endpoint: &'a str,
    /// How its certificate is checked.
    pub tls: TlsCheck,
    /// When the token ends, if it says so.
    pub token_expires: Option<SystemTime>,
    /// The project.
    pub project: &'a str,
    /// Source and target.
    pub volumes: &'a [VolumeInput],
    /// LBAs from the start of each volume that a run touches.
    pub footprint: LbaCount,
    /// Where the facts of this machine are read from.
    pub host: &'a Host,
    /// Where runs are looked up.
    pub runs: Runs<'a>,
    /// Now.
    pub now: SystemTime,
}

/// A token that ends sooner than this may end in mid-run.
const TOKEN_SOON: Duration = Duration::from_secs(60 * 60);

/// The LBAs from the start of a volume that the fixed suite touches (1776 MiB).
pub const SUITE_FOOTPRINT: LbaCount = LbaCount::mib(1776);

fn row(what: impl Into<String>, state: RowState, seen: String, next: &str) -> Row {
    Row { what: what.into(), state, seen, next: next.to_owned() }
}

fn ok(what: impl Into<String>, seen: String) -> Row {
    row(what, RowState::Ok, seen, "")
}

fn fail(what: impl Into<String>, seen: String, next: &str) -> Row {
    row(what, RowState::Fail, seen, next)
}

fn skip(what: impl Into<String>, why: &str) -> Row {
    row(what, RowState::Skip, why.to_owned(), "")
}

/// Characters of foreign text that are shown.
const SHOWN_MAX: usize = 400;

/// Foreign text for a terminal.
fn shown(text: &str) -> String {
    escape_text(text, SHOWN_MAX)
}

/// Looks at everything, in the order a run would meet it.
pub fn examine(inputs: &Inputs<'_>, array: &dyn Array) -> Vec<Row> {
    let mut rows = Vec::new();
    let answers: Vec<_> =
        inputs.volumes.iter().map(|input| (input, array.volume(input.volume))).collect();
    let first_error = answers.iter().find_map(|(_, answer)| answer.as_ref().err());
    let spoken = access_rows(inputs, first_error, &mut rows);
    for (input, answer) in &answers {
        match answer {
            _ if !spoken => rows.push(skip(format!("{} volume", input.role), "no access")),
            Ok(info) => volume_rows(inputs, input, info, &mut rows),
            Err(error) => {
                let what = format!("{} volume", input.role);
                let next = "check the UUID and --project (lbcli list volumes)";
                rows.push(fail(what, shown(&error.to_string()), next));
            }
        }
        let device = format!("{} device", input.role);
        match answer {
            Ok(info) => device_rows(inputs, input, info, &device, &mut rows),
            Err(_) => rows.push(skip(device, "nothing is known about its volume")),
        }
    }
    rows.push(two_things_row(inputs, &answers));
    if spoken {
        rows.push(diff_row(array));
        rows.push(leftovers_row(inputs, array));
    } else {
        rows.push(skip("diff call", "no access"));
        rows.push(skip("leftovers", "no access"));
    }
    rows
}

/// Endpoint, TLS, token and project; answers whether the array can be spoken to.
fn access_rows(inputs: &Inputs<'_>, error: Option<&ApiError>, rows: &mut Vec<Row>) -> bool {
    let (mut endpoint, mut tls, mut access) = (None, None, None);
    match error {
        Some(error @ (ApiError::Transport { .. } | ApiError::Server(..))) => {
            endpoint = Some(error.to_string());
        }
        Some(ApiError::Tls(error)) => tls = Some(error.clone()),
        Some(error @ (ApiError::Auth(_) | ApiError::NoSuchCall(_))) => {
            access = Some(error.to_string());
        }
        _ => {}
    }
    let spoken = endpoint.is_none() && tls.is_none() && access.is_none();
    let seen = shown(inputs.endpoint);
    rows.push(match endpoint {
        Some(error) => fail("endpoint", shown(&error), "check --endpoint and the network"),
        None => ok("endpoint", seen),
    });
    rows.push(match (tls, inputs.tls) {
        (Some(error), _) => fail("tls", shown(&error), "give --ca-file or --pin-sha256"),
        (None, TlsCheck::None) => row(
            "tls",
            RowState::Warn,
            "the certificate is not checked: anybody on the path can read the token".to_owned(),
            "give --pin-sha256 instead of --insecure",
        ),
        (None, TlsCheck::NotUsed) => skip("tls", "no TLS: nothing leaves this machine"),
        (None, TlsCheck::Verified) => ok("tls", "certificate verified".to_owned()),
        (None, TlsCheck::Pinned) => ok("tls", "certificate pinned".to_owned()),
    });
    rows.push(token_row(inputs));
    let project = shown(inputs.project);
    rows.push(match access {
        Some(error) => fail("project", shown(&error), "check the token and --project"),
        None if spoken => ok("project", project),
        None => skip("project", "no connection"),
    });
    spoken
}

fn token_row(inputs: &Inputs<'_>) -> Row {
    let Some(expires) = inputs.token_expires else {
        return skip("token", "it does not say when it ends");
    };
    match expires.duration_since(inputs.now) {
        Err(_) => fail("token", "it has expired".to_owned(), "make a new one (lbcli create jwt)"),
        Ok(left) => {
            let minutes = left.as_secs() / 60;
            let seen = format!("ends in {} h {} min", minutes / 60, minutes % 60);
            if left < TOKEN_SOON {
                let next = "a long run may outlive it: make a new one, or use --jwt-command";
                return row("token", RowState::Warn, seen, next);
            }
            ok("token", seen)
        }
    }
}

fn volume_rows(inputs: &Inputs<'_>, input: &VolumeInput, info: &VolumeInfo, rows: &mut Vec<Row>) {
    let what = format!("{} volume", input.role);
    let seen = format!("{} {} ({})", shown(&info.name), info.uuid, size_text(info.size_bytes));
    let needed = inputs.footprint.nominal_bytes().get();
    rows.push(if info.uuid != input.volume {
        fail(what, format!("asked for {}, got {seen}", input.volume), "check the endpoint")
    } else if !info.usable {
        fail(what, format!("{seen} is not usable now"), "wait for it, or see it on the array")
    } else if !info.writable {
        fail(what, format!("{seen} is not writable now"), "see its protection state")
    } else if info.size_bytes < needed {
        let next = format!("give a volume of at least {}", size_text(needed));
        fail(what, format!("{seen} is too small"), &next)
    } else if info.is_clone {
        let next = "its diff without base is not trusted; a volume that is no clone tests more";
        row(what, RowState::Warn, format!("{seen} is a clone"), next)
    } else {
        ok(what, seen)
    });
    if info.sector_bytes != 4096 {
        rows.push(row(
            format!("{} sectors", input.role),
            RowState::Warn,
            format!("{} bytes; the unit of diffs is known for 4096 only", info.sector_bytes),
            "prefer a volume with 4096-byte sectors",
        ));
    }
}

/// The device as a run would want it; `None` if it is to be found by its UUID and is not there.
fn wanted(inputs: &Inputs<'_>, input: &VolumeInput, info: &VolumeInfo) -> Option<Wanted> {
    let found = || find_by_wwid(&inputs.host.sysfs, input.volume);
    let other = inputs.volumes.iter().map(|other| other.volume).find(|v| *v != input.volume);
    Some(Wanted {
        path: input.device.clone().or_else(found)?,
        volume: input.volume,
        name: info.name.clone(),
        size_bytes: info.size_bytes,
        sector_bytes: info.sector_bytes,
        footprint: inputs.footprint,
        counterpart: other,
    })
}

fn refused(what: &str, refusal: &GuardRefusal) -> Row {
    fail(what, refusal.to_string(), "a run would be refused")
}

fn device_rows(
    inputs: &Inputs<'_>,
    input: &VolumeInput,
    info: &VolumeInfo,
    what: &str,
    rows: &mut Vec<Row>,
) {
    let Some(wanted) = wanted(inputs, input, info) else {
        rows.push(fail(
            what,
            format!("no NVMe namespace here says it is uuid.{}", input.volume),
            "connect the volume to this host (nvme connect-all, the volume's ACL), or name its device",
        ));
        return;
    };
    let path = wanted.path.clone();
    let identity = format!("{} identity", input.role);
    let candidate = match Candidate::inspect(inputs.host, wanted) {
        Ok(candidate) => candidate,
        Err(refusal) => {
            rows.push(refused(what, &refusal));
            rows.push(skip(identity, "the device was refused"));
            return;
        }
    };
    rows.push(match candidate.probe() {
        Err(error) => fail(
            what,
            format!("{}: {error}", path.display()),
            "check the connection and the rights",
        ),
        Ok(probe) => {
            let guarded = g9_writable(&path, probe.read_only)
                .and_then(|()| {
                    let (name, bytes) = (&info.name, info.size_bytes);
                    g10_size(&path, probe.size_bytes, name, bytes, inputs.footprint)
                })
                .and_then(|()| g11_sectors(&path, probe.logical_sector_bytes, info.sector_bytes))
                .and_then(|()| g14_no_signature(&path, &probe.signatures?, &Allowed::default()));
            match (guarded, probe.busy) {
                (Err(refusal), _) => refused(what, &refusal),
                (Ok(()), Some(busy)) => fail(what, format!("{}: {busy}", path.display()), ""),
                (Ok(()), None) => {
                    let size = size_text(probe.size_bytes);
                    ok(what, format!("{} ({size}), free, reads with O_DIRECT", path.display()))
                }
            }
        }
    });
    rows.push(match candidate.identity() {
        Err(refusal) => refused(&identity, &refusal),
        Ok(Identity::Wwid) => ok(identity, "its wwid is the volume's UUID".to_owned()),
        Ok(Identity::BackingName) => {
            ok(identity, "the file behind it carries the volume's UUID".to_owned())
        }
        Ok(Identity::Undecided) => row(
            identity,
            RowState::Warn,
            "the device does not say which volume it is".to_owned(),
            "the handshake at the start of a run decides",
        ),
    });
}

/// G13 over the two devices.
fn two_things_row(
    inputs: &Inputs<'_>,
    answers: &[(&VolumeInput, Result<VolumeInfo, ApiError>)],
) -> Row {
    let what = "two devices";
    let candidates: Vec<Candidate> = answers
        .iter()
        .filter_map(|(input, answer)| wanted(inputs, input, answer.as_ref().ok()?))
        .filter_map(|wanted| Candidate::inspect(inputs.host, wanted).ok())
        .collect();
    match candidates.as_slice() {
        [one, two] => match one.differs_from(two) {
            Ok(()) => ok(what, "source and target are two things".to_owned()),
            Err(refusal) => refused(what, &refusal),
        },
        _ => skip(what, "both devices are needed for that"),
    }
}

/// Whether the server knows the diff call: it is asked about a snapshot that does not exist.
fn diff_row(array: &dyn Array) -> Row {
    match array.diff_page(SnapshotUuid::random(), None, Lba::new(0)) {
        Err(error) if error.is_refusal() => ok("diff call", "the server offers it".to_owned()),
        Err(error @ ApiError::NoSuchCall(_)) => fail(
            "diff call",
            shown(&error.to_string()),
            "the array's software is too old for changed-block diffs",
        ),
        Err(error) => row("diff call", RowState::Warn, shown(&error.to_string()), "try again"),
        Ok(_) => row(
            "diff call",
            RowState::Warn,
            "the server answered a diff of a snapshot that does not exist".to_owned(),
            "a run will tell more",
        ),
    }
}

fn leftovers_row(inputs: &Inputs<'_>, array: &dyn Array) -> Row {
    let volumes: Vec<VolumeUuid> = inputs.volumes.iter().map(|input| input.volume).collect();
    match cleanup::leftovers(array, &volumes, inputs.runs, inputs.now) {
        Err(error) => row("leftovers", RowState::Warn, shown(&error.to_string()), "try again"),
        Ok(found) if found.is_empty() => ok("leftovers", "none".to_owned()),
        Ok(found) => {
            let alive = found.iter().filter(|l| l.run_state == RunState::Alive).count();
            let seen = format!("{} snapshots of this tool, {alive} of live runs", found.len());
            row("leftovers", RowState::Warn, seen, "`lbaudit clean` lists and deletes them")
        }
    }
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
