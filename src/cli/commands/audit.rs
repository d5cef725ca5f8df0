//! `lbaudit audit`: the laws on snapshots that are there already. Writes nothing to any volume, and
//! takes no snapshot unless `--snapshots` allows it. Not covered: the laws (`crate::campaign::audit`).

use super::diff::{find, measured};
use super::suite::{clean_command, folder};
use crate::array::escape_text;
use crate::array::{
    ApiError, Array, BlockDevice, RealClock, SnapshotInfo, SnapshotState, VolumeInfo, Waiting,
};
use crate::block::{BitmapOrder, BlockSize, Policy, RunId, SnapshotUuid, VolumeUuid};
use crate::campaign::audit::{Audit, Audited, Doomed, RUNS_KEPT, take};
use crate::campaign::journal::{Journal, Journalled};
use crate::campaign::utc::parse_moment;
use crate::cli::args::{Form, OrderArg, OutputArgs, TargetArgs};
use crate::cli::config::{Seconds, Volumes};
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::{Context, volumes};
use crate::device::{Host, ReadOnlyDevice, volume_told_by};
use crate::engine::Ledger;
use crate::lightbits::LightbitsClient;
use crate::oracle::{Checks, Reason, Violation};
use crate::report::violation_lines;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Characters of a foreign name that are shown.
const NAME_SHOWN: usize = 60;
/// Other volumes that are looked at for one that is no clone.
const FOREIGN_LOOKED_AT: usize = 16;
/// How long a snapshot of `--snapshots` may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Which snapshots, and how strictly.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Which array; of the volumes only --source-uuid is needed, and no device.
    #[command(flatten)]
    pub target: TargetArgs,
    /// A snapshot of the source volume; repeatable [default: all that are Available].
    #[arg(long, value_name = "NAME|UUID")]
    pub snapshot: Vec<String>,
    /// One more, as the base of the others.
    #[arg(long, value_name = "NAME|UUID")]
    pub base: Option<String>,
    /// The newest so many at most.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub most: u32,
    /// How exact the answers must be: only exact ones are held to the triangle law.
    #[arg(long, value_name = "POLICY", default_value = "chunk")]
    pub policy: Policy,
    /// Device of a clone of the newest of these snapshots: its blocks are held against the diffs.
    #[arg(long, value_name = "PATH")]
    pub source_clone_device: Option<PathBuf>,
    /// Device of a clone of the one before.
    #[arg(long, value_name = "PATH", requires = "source_clone_device")]
    pub base_clone_device: Option<PathBuf>,
    /// Nobody has written to these clones since they were made. Only then, and if the devices tell
    /// that they are clones of these snapshots, a difference is the array's fault (exit 1, not 3).
    #[arg(long, requires = "source_clone_device")]
    pub clones_unwritten: bool,
    /// Take so many snapshots of the volume first; they are deleted again, one of three before the
    /// end, to ask about a base that is gone.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "source_clone_device")]
    pub snapshots: u32,
    /// Time between two of them (s, m, h).
    #[arg(long, value_name = "TIME", default_value = "0s", requires = "snapshots")]
    pub every: Seconds,
    /// Order of the bytes of a bitmap; auto is little.
    #[arg(long, value_name = "ORDER", default_value = "auto")]
    pub bitmap_order: OrderArg,
    /// Where the answer goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Snapshot {
        label: String,
        name: String,
        uuid: SnapshotUuid,
    },
    Violation {
        violation: &'a Violation,
    },
    AuditFinished {
        snapshots: usize,
        answered: u64,
        refused: u64,
        compared: u64,
        blocks_read: u64,
        violations: usize,
        notes: &'a [String],
        exit_code: u8,
    },
}

/// Holds the answers about existing snapshots against the laws.
///
/// # Errors
/// [`Failure`]: 2 for what cannot work, 3 if it could not be told.
pub fn run(
    args: &AuditArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let connection = args.target.connection(env_token, &["--source-uuid"])?;
    let order = args.bitmap_order.order().unwrap_or(BitmapOrder::Little);
    let Some(volume) = args.target.source_uuid else {
        return Err(Failure::usage("--source-uuid: whose snapshots?"));
    };
    let client = connect(&connection, order, context)?.client;
    if args.snapshots == 0 {
        return judge(args, &client, &client, volume, None, context);
    }
    // Its snapshots are in a journal before the array is asked, as those of every other run.
    let run = RunId::random();
    let folder = folder(&args.output.run_dir, run)?;
    let journal = Journal::create(&folder.path().join("journal.jsonl"), run)
        .map_err(|error| Failure::could_not(format!("cannot keep a journal: {error}")))?;
    let array = Journalled::new(&client, &journal);
    let volumes =
        Volumes { source: volume, target: volume, source_device: None, target_device: None };
    let clean = clean_command(&connection, &volumes, &args.output.run_dir);
    context.stop.on_second(clean.clone());
    let (clock, ledger, stop) = (RealClock::new(), Ledger::new(run), context.stop.clone());
    let waiting = Waiting { available: PATIENCE, gone: PATIENCE, stop: stop.flag() };
    let port = volumes::RunPort {
        array: &array,
        clock: &clock,
        waiting,
        ledger: &ledger,
        journal: &journal,
        region: None,
    };
    let taken = take((&array, &clock, waiting), &ledger, volume, (args.snapshots, args.every.0));
    let done = taken
        .map_err(Failure::from)
        .and_then(|()| judge(args, &client, &array, volume, Some(&port), context));
    volumes::sweep(&port);
    let left = ledger.live().len();
    if left == 0 {
        return done;
    }
    context
        .ui
        .say(&format!("{left} snapshots of this run are on the array; to delete them: {clean}"));
    done.map(|exit| exit.or(Exit::Nothing))
}

fn judge(
    args: &AuditArgs,
    client: &LightbitsClient,
    array: &dyn Array,
    volume: VolumeUuid,
    own: Option<&volumes::RunPort<'_>>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let info = array.volume(volume)?;
    let all = array.snapshots()?;
    let foreign = foreign(array, &info, &all)?;
    let available = |snapshot: &&SnapshotInfo| {
        snapshot.volume == volume && snapshot.state == SnapshotState::Available
    };
    let mut chain: Vec<SnapshotUuid> =
        all.iter().filter(available).map(|snapshot| snapshot.uuid).collect();
    chain.sort_unstable();
    let snapshots = chosen(args, client, volume, all)?;
    let snapshots: Vec<SnapshotInfo> =
        snapshots.into_iter().map(|snapshot| measured(snapshot, info.size_bytes)).collect();
    let devices = images(args, array, &snapshots)?;
    // Only a snapshot of this run, with one on each side.
    let doomed = own.and_then(|port| {
        let place = snapshots.len().checked_sub(2).filter(|place| *place > 0)?;
        port.ledger.live().contains(&snapshots[place].uuid).then_some(())?;
        Some(Doomed { place, clock: port.clock, waiting: port.waiting })
    });
    for (place, snapshot) in snapshots.iter().enumerate() {
        let (label, name) = (format!("s{place}"), escape_text(&snapshot.name, NAME_SHOWN));
        match context.ui.form {
            Form::Jsonl => {
                context.ui.event(&Line::Snapshot { label, name, uuid: snapshot.uuid });
            }
            Form::Text => context.ui.print(&format!("{label} is {name} ({})", snapshot.uuid)),
        }
    }
    let audit = Audit {
        array,
        snapshots: &snapshots,
        foreign,
        policy: args.policy,
        checks: Checks::ALL,
        strict: false,
        images: devices
            .iter()
            .map(|(place, device)| (*place, device as &dyn BlockDevice))
            .collect(),
        // Nobody knows what was done to the volume.
        one_chain: false,
        images_proved: args.clones_unwritten,
        since_clone: info.is_clone,
        chain: Some(&chain),
        doomed,
        runs_kept: RUNS_KEPT,
        stop: context.stop.flag(),
    };
    let (done, ended) = audit.run();
    let exit = show(&done, snapshots.len(), ended.as_ref(), context);
    Ok(match ended {
        Some(Reason::Interrupted) => exit.or(context.stop.exit().unwrap_or(Exit::Interrupted)),
        _ => exit,
    })
}

/// A snapshot of another volume, as a base that must be refused. Clones share a past, and a diff
/// between two that do may be answered.
fn foreign(
    array: &dyn Array,
    own: &VolumeInfo,
    all: &[SnapshotInfo],
) -> Result<Option<SnapshotUuid>, Failure> {
    let mut seen = std::collections::BTreeSet::new();
    for other in all {
        let is_other = other.volume != own.uuid && other.state == SnapshotState::Available;
        if own.is_clone || !is_other || !seen.insert(other.volume) {
            continue;
        }
        match array.volume(other.volume) {
            Ok(volume) if !volume.is_clone => return Ok(Some(other.uuid)),
            // Of a volume that is gone nobody knows what it was.
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if seen.len() >= FOREIGN_LOOKED_AT {
            break;
        }
    }
    Ok(None)
}

/// The snapshots to audit, oldest first.
fn chosen(
    args: &AuditArgs,
    client: &LightbitsClient,
    volume: VolumeUuid,
    all: Vec<SnapshotInfo>,
) -> Result<Vec<SnapshotInfo>, Failure> {
    let named = args.snapshot.iter().chain(&args.base);
    let mut found: Vec<SnapshotInfo> = named
        .map(|name| match find(client, name)? {
            info if info.volume == volume => Ok(info),
            info => Err(Failure::usage(format!(
                "snapshot `{name}` is of volume {}, not of {volume}",
                info.volume
            ))),
        })
        .collect::<Result<_, Failure>>()?;
    if args.snapshot.is_empty() {
        let own =
            |info: &SnapshotInfo| info.volume == volume && info.state == SnapshotState::Available;
        found.extend(all.into_iter().filter(own));
    }
    in_order(&mut found);
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|info| seen.insert(info.uuid));
    let most = usize::try_from(args.most).unwrap_or(usize::MAX);
    found.drain(..found.len().saturating_sub(most));
    if found.is_empty() {
        return Err(Failure::could_not(format!(
            "volume {volume} has no Available snapshot: nothing can be audited; --snapshots 2 takes some"
        )));
    }
    Ok(found)
}

/// Oldest first, by the moments that the array tells, however it spells them. What has no time that
/// can be read keeps the array's order, behind what has one.
fn in_order(found: &mut [SnapshotInfo]) {
    found.sort_by_key(|info| {
        let moment = info.created.as_deref().and_then(parse_moment);
        (moment.is_none(), moment)
    });
}

/// Whether a device tells that it is a clone of this snapshot, and the array agrees.
fn proved(array: &dyn Array, path: &Path, snapshot: &SnapshotInfo) -> Result<(), Failure> {
    let unproved = |why: String| {
        Failure::usage(format!(
            "--clones-unwritten: {} is not known to be a clone of {}: {why}; without that flag a \
             difference is told, but not held against the array",
            path.display(),
            snapshot.uuid
        ))
    };
    let Some(volume) = volume_told_by(&Host::default(), path) else {
        return Err(unproved("it does not tell which volume it is".to_owned()));
    };
    match array.volume(volume)?.clone_of {
        Some(source) if source == snapshot.uuid => Ok(()),
        Some(other) => Err(unproved(format!("it is volume {volume}, a clone of {other}"))),
        None => Err(unproved(format!("it is volume {volume}, and no clone of a known snapshot"))),
    }
}

/// The devices of the images that were named, by the place of their snapshots.
fn images(
    args: &AuditArgs,
    array: &dyn Array,
    snapshots: &[SnapshotInfo],
) -> Result<BTreeMap<usize, ReadOnlyDevice>, Failure> {
    let mut found = BTreeMap::new();
    let named = [(1, &args.source_clone_device), (2, &args.base_clone_device)];
    for (back, path) in named {
        let Some(path) = path else { continue };
        let Some(place) = snapshots.len().checked_sub(back) else {
            return Err(Failure::usage("--base-clone-device: there is only one snapshot"));
        };
        // A clone is as large as its snapshot.
        let bytes = snapshots[place].len.bytes(BlockSize::DEVICE).get();
        let device = ReadOnlyDevice::at(path.clone(), bytes)
            .map_err(|error| Failure::usage(error.to_string()))?;
        if args.clones_unwritten {
            proved(array, path, &snapshots[place])?;
        }
        found.insert(place, device);
    }
    Ok(found)
}

/// What an audit comes to. Where every question about a pair was refused, or an image differs that
/// nobody proved, it could not be told.
fn verdict(done: &Audited) -> Exit {
    let all_refused = done.answered == 0 || (done.pairs_asked > 0 && done.pairs_answered == 0);
    if !done.violations.is_empty() {
        Exit::Violation
    } else if done.compared == 0
        || all_refused
        || done.unproved + done.uncompared + done.changed > 0
    {
        Exit::CouldNotTest
    } else {
        Exit::Passed
    }
}

/// What was found, also if it could not be told to the end.
fn show(done: &Audited, snapshots: usize, ended: Option<&Reason>, context: &mut Context) -> Exit {
    let exit = match ended {
        Some(reason) => {
            context.ui.say(&format!("could not be audited to the end: {reason}"));
            verdict(done).or(Exit::CouldNotTest)
        }
        None => verdict(done),
    };
    let Audited { answered, refused, compared, blocks_read, violations, notes, .. } = done;
    if context.ui.form == Form::Jsonl {
        violations.iter().for_each(|violation| context.ui.event(&Line::Violation { violation }));
        context.ui.event(&Line::AuditFinished {
            snapshots,
            answered: *answered,
            refused: *refused,
            compared: *compared,
            blocks_read: *blocks_read,
            violations: violations.len(),
            notes,
            exit_code: exit.code(),
        });
        return exit;
    }
    for violation in violations {
        violation_lines(violation).iter().for_each(|line| context.ui.print(line));
    }
    notes.iter().for_each(|text| context.ui.print(&format!("note {text}")));
    context.ui.print(&format!(
        "{answered} diffs answered, {refused} rightly refused, {compared} comparisons, {blocks_read} blocks of images read"
    ));
    context.ui.print(&match exit {
        Exit::Violation => format!("{} VIOLATION(S)", violations.len()),
        Exit::Passed => "NO VIOLATION".to_owned(),
        _ if ended.is_some() => "COULD NOT BE TOLD TO THE END".to_owned(),
        _ if done.unproved > 0 => "COULD NOT BE TOLD: an image is not proved".to_owned(),
        _ if done.uncompared > 0 => {
            "COULD NOT BE TOLD: an image was not compared with an answer too long to keep"
                .to_owned()
        }
        _ if done.changed > 0 => "COULD NOT BE TOLD: snapshots changed meanwhile".to_owned(),
        _ => "NOTHING WAS COMPARED".to_owned(),
    });
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::LbaCount;

    fn snapshot(number: u128, created: Option<&str>) -> SnapshotInfo {
        SnapshotInfo {
            uuid: SnapshotUuid::from_u128(number),
            name: format!("s{number}"),
            state: SnapshotState::Available,
            volume: VolumeUuid::from_u128(1),
            len: LbaCount::new(64),
            created: created.map(str::to_owned),
        }
    }

    #[test]
    fn snapshots_are_ordered_by_moments_and_not_by_text() {
        let mut found = [
            snapshot(4, None),
            snapshot(3, Some("2026-01-01T00:01:00.500Z")),
            snapshot(2, Some("2026-01-01T00:01:00Z")),
            snapshot(1, Some("2026-01-01T02:00:00+02:00")),
            snapshot(5, Some("yesterday")),
        ];
        in_order(&mut found);
        let order: Vec<&str> = found.iter().map(|info| info.name.as_str()).collect();
        assert_eq!(order, ["s1", "s2", "s3", "s4", "s5"]);
    }

    #[test]
    fn an_audit_that_was_refused_or_met_an_unproved_image_could_not_be_told() {
        let fine = Audited {
            answered: 9,
            compared: 9,
            pairs_asked: 3,
            pairs_answered: 3,
            ..Audited::default()
        };
        assert_eq!(verdict(&fine), Exit::Passed);
        assert_eq!(verdict(&Audited { pairs_answered: 0, ..fine.clone() }), Exit::CouldNotTest);
        assert_eq!(verdict(&Audited { answered: 0, ..fine.clone() }), Exit::CouldNotTest);
        assert_eq!(verdict(&Audited { uncompared: 1, ..fine.clone() }), Exit::CouldNotTest);
        assert_eq!(verdict(&Audited { changed: 1, ..fine.clone() }), Exit::CouldNotTest);
        assert_eq!(verdict(&Audited { unproved: 1, ..fine }), Exit::CouldNotTest);
    }
}
