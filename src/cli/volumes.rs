//! From two volumes of an array to two devices held exclusively, consented to ([`open`]) and armed
//! by the handshake ([`arm`]). Not covered: the guards and the handshake themselves
//! (`crate::device`, `crate::campaign::arm`).

use super::args::ConsentArgs;
use super::config::Volumes;
use super::exit::Exit;
use super::failure::Failure;
use super::stop::Stop;
use super::ui::Ui;
use crate::array::{ApiError, Array, Clock, VolumeInfo, Waiting, delete_and_wait, escape_text};
use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, Policy, Role, VolumeUuid};
use crate::campaign::arm::{ArmError, ArmedPair, Handshake};
use crate::campaign::journal::Journal;
use crate::device::signature::Allowed;
use crate::device::{Consent, ConsentItem, Host, Identified, Wanted, find_by_wwid, open_pair};
use crate::engine::{Event, Ledger};
use crate::model::Model;
use crate::oracle::Reason;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Characters of a volume's name that are shown.
const NAME_SHOWN: usize = 60;

/// Source and target, held, and what the array says of them.
pub struct Opened {
    /// The source's device.
    pub source: Identified,
    /// The target's device.
    pub target: Identified,
    /// What the array says of both.
    pub infos: [VolumeInfo; 2],
}

/// Looks the volumes up, finds their devices, asks for consent if nothing gave it, and takes both
/// devices through every local guard.
///
/// # Errors
/// [`Failure`] of the volume, device or guard that refuses; nothing was written.
pub fn open(
    array: &dyn Array,
    volumes: &Volumes,
    given: &ConsentArgs,
    footprint: LbaCount,
    ui: &mut Ui,
) -> Result<Opened, Failure> {
    let source = look_up(array, volumes.source, "--source-uuid")?;
    let target = look_up(array, volumes.target, "--target-uuid")?;
    let wanted = |info: &VolumeInfo, path: &Option<PathBuf>, other, flag| {
        Ok::<_, Failure>(Wanted {
            path: device_of(path, info.uuid, flag)?,
            volume: info.uuid,
            name: info.name.clone(),
            size_bytes: info.size_bytes,
            sector_bytes: info.sector_bytes,
            footprint,
            counterpart: Some(other),
        })
    };
    let one = wanted(&source, &volumes.source_device, target.uuid, "--source-device")?;
    let two = wanted(&target, &volumes.target_device, source.uuid, "--target-device")?;
    let allowed = Allowed::Named(given.allow_signature.clone());
    let consent = consent(&given.destroy, [&source, &target], ui).allowing(allowed);
    let (one, two) = open_pair(&Host::default(), one, two, &consent)?;
    Ok(Opened { source: one, target: two, infos: [source, target] })
}

fn look_up(array: &dyn Array, volume: VolumeUuid, flag: &str) -> Result<VolumeInfo, Failure> {
    match array.volume(volume) {
        Ok(info) if info.uuid != volume => Err(Failure::could_not(format!(
            "asked for volume {volume}, the array answered {}; check --endpoint",
            info.uuid
        ))),
        Ok(info) if !info.usable || !info.writable => Err(Failure::could_not(format!(
            "volume {volume} cannot be written now, says the array; wait for it and try again"
        ))),
        Ok(info) => Ok(info),
        Err(ApiError::NotFound(reply)) => {
            Err(Failure::usage(format!("{reply}; check {flag} and --project")))
        }
        Err(error) => Err(error.into()),
    }
}

fn device_of(path: &Option<PathBuf>, volume: VolumeUuid, flag: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = path {
        return Ok(path.clone());
    }
    find_by_wwid(&Host::default().sysfs, volume).ok_or_else(|| {
        Failure::usage(format!(
            "no device with the wwid of volume {volume} on this host; connect it (nvme connect-all) or give {flag}"
        ))
    })
}

/// The consent that flags gave, or else the names a person types on a terminal.
fn consent(destroy: &[ConsentItem], volumes: [&VolumeInfo; 2], ui: &mut Ui) -> Consent {
    if !destroy.is_empty() {
        return Consent::new(destroy.to_vec());
    }
    let asked = volumes.iter().map_while(|info| {
        let name = escape_text(&info.name, NAME_SHOWN);
        ui.ask(&format!(
            "all data on volume {name} ({}, {} bytes) will be destroyed; type its name to go on: ",
            info.uuid, info.size_bytes
        ))
    });
    Consent::new(asked.map(ConsentItem::Name).collect())
}

/// The shapes of the two volumes as the array tells them.
pub fn shapes(infos: &[VolumeInfo; 2], fresh: bool) -> BTreeMap<Role, Geometry> {
    let shape = |info: &VolumeInfo| {
        let block = BlockSize::DEVICE;
        Geometry { block, len: LbaCount::new(info.size_bytes / block.bytes()), fresh }
    };
    BTreeMap::from([(Role::Source, shape(&infos[0])), (Role::Target, shape(&infos[1]))])
}

/// `vol-src (/dev/nvme0n1)`
pub fn title(info: &VolumeInfo, device: &Identified) -> String {
    format!("{} ({})", escape_text(&info.name, NAME_SHOWN), device.path().display())
}

/// How long the clean-up after a signal or a refusal may take in all, so that the process ends
/// within 10 s.
pub const STOP_BUDGET: Duration = Duration::from_secs(8);

/// What the handshake and the run after it share.
#[derive(Clone, Copy)]
pub struct RunPort<'a> {
    /// The control plane, journalled.
    pub array: &'a dyn Array,
    /// Time.
    pub clock: &'a dyn Clock,
    /// How long to wait, and who may say stop.
    pub waiting: Waiting<'a>,
    /// The run's snapshots.
    pub ledger: &'a Ledger,
    /// The run's journal.
    pub journal: &'a Journal,
    /// Where the run may write; everywhere if it is not said.
    pub region: Option<Extent>,
}

/// Holds the handshake. If it refuses, its snapshots are deleted again.
///
/// # Errors
/// [`Failure`]; every content is as it was, or the message says which is not.
pub fn arm(
    port: &RunPort<'_>,
    opened: Opened,
    shapes: BTreeMap<Role, Geometry>,
    model: &mut Model,
    policy: Policy,
    stop: &Stop,
    ui: &Ui,
) -> Result<ArmedPair, Failure> {
    let progress = ui.progress();
    progress.begin("handshake ", "handshake");
    let watch = |event: &Event| progress.event(event);
    let RunPort { array, clock, waiting, ledger, journal, region } = *port;
    let handshake =
        Handshake { array, clock, waiting, ledger, journal, watch: &watch, volumes: shapes };
    let longer = opened.source.len_lbas().max(opened.target.len_lbas());
    let everywhere = Extent::new(Lba::new(0), longer);
    // A device without LBAs passes no guard.
    let allowed = region.or(everywhere).unwrap_or(Extent::lbas(0, 1));
    handshake.arm((opened.source, opened.target), allowed, model, policy).map_err(|error| {
        sweep(port);
        arm_failure(error, stop)
    })
}

fn arm_failure(error: ArmError, stop: &Stop) -> Failure {
    let message = error.to_string();
    let exit = match error {
        ArmError::Refused(_) => Exit::Usage,
        ArmError::CouldNotTest(Reason::Interrupted) => stop.exit().unwrap_or(Exit::Interrupted),
        ArmError::CouldNotTest(Reason::Tool(_)) => Exit::Bug,
        ArmError::CouldNotTest(_)
        | ArmError::Journal(_)
        | ArmError::NotRestored { .. }
        | ArmError::Random(_) => Exit::CouldNotTest,
    };
    Failure { exit, message }
}

/// Deletes the run's snapshots within [`STOP_BUDGET`]; what stays, stays in the ledger.
pub fn sweep(port: &RunPort<'_>) {
    let never = AtomicBool::new(false);
    let deadline = port.clock.now() + STOP_BUDGET;
    for snapshot in port.ledger.live() {
        let left = deadline.saturating_sub(port.clock.now());
        let waiting = Waiting { available: left, gone: left, stop: &never };
        if delete_and_wait(port.array, port.clock, snapshot, waiting).is_ok() {
            port.ledger.gone(snapshot);
        }
    }
}
