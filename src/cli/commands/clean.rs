//! `lbaudit clean`: what earlier runs left, on the array, on devices and on this machine. Lists it;
//! deletes it, or puts old bytes back, only when told to. What it deletes is found by this tool's
//! own names, never by guess.
//!
//! Not covered: who may delete what (`crate::campaign::cleanup`) and what may be put back
//! (`crate::campaign::restore`).

use crate::array::{Array, Clones, RealClock, Waiting};
use crate::block::{BitmapOrder, VolumeUuid};
use crate::campaign::cleanup::{self, Leftover, Runs};
use crate::campaign::clone_cleanup::{LeftoverClone, delete_leftover, leftover_clones};
use crate::campaign::restore::{StampedBlocks, put_back, stamped_blocks};
use crate::campaign::store::RunState;
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs, TargetArgs};
use crate::cli::config::Seconds;
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::device::Host;
use crate::qemu;
use crate::sim;
use crate::sim::attach::{clean_stale, stale_attachments};
use clap::Args;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What to clean.
#[derive(Args, Clone, Debug)]
pub struct CleanArgs {
    /// Which array; without one only this machine is looked at. Volumes narrow the list.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Delete what is listed, and put back the blocks that are listed.
    #[arg(long, visible_alias = "delete")]
    pub yes: bool,
    /// Also delete snapshots of runs that have no folder in --run-dir: they may go on elsewhere.
    #[arg(long)]
    pub unknown_runs: bool,
    /// How long a deleted snapshot may take to be gone.
    #[arg(long, value_name = "TIME", default_value = "180s")]
    pub delete_timeout: Seconds,
    /// Where the list goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// One thing found, and what became of it.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Snapshot {
        name: String,
        uuid: String,
        volume: String,
        run: String,
        run_state: &'static str,
        age_seconds: Option<u64>,
        deleted: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A place that could not be looked at: what is left there is not known.
    Unreadable {
        why: String,
    },
    /// Blocks that the handshake of a killed run may have left stamped.
    Blocks {
        volume: String,
        device: String,
        run: String,
        lbas: Vec<u64>,
        restored: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A volume that was made to read a snapshot.
    Clone {
        name: String,
        volume: String,
        run: String,
        run_state: &'static str,
        deleted: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A mount or a daemon of a process that is gone.
    Local {
        what: &'static str,
        path: String,
        deleted: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    CleanFinished {
        found: usize,
        deleted: usize,
        left: usize,
        exit_code: u8,
    },
}

/// Lists, and with `--yes` deletes.
///
/// # Errors
/// [`Failure`] if the array cannot be asked.
pub fn run(
    args: &CleanArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let mut lines = local(args.yes, context);
    let array = match args.target.first_given() {
        Some(_) => {
            let connection = args.target.connection(env_token, &[])?;
            Some(connect(&connection, BitmapOrder::Little, context)?.client)
        }
        None => None,
    };
    lines.extend(blocks(args, array.as_ref().map(|client| client as &dyn Array)));
    if let Some(client) = &array {
        // A clone goes before the snapshot it was made of.
        lines.extend(clones(args, client)?);
        lines.extend(snapshots(args, client, context)?);
    }
    let found = lines.len();
    let gone = |line: &&Line| {
        matches!(
            line,
            Line::Snapshot { deleted: true, .. }
                | Line::Clone { deleted: true, .. }
                | Line::Local { deleted: true, .. }
                | Line::Blocks { restored: true, .. }
        )
    };
    let deleted = lines.iter().filter(gone).count();
    let left = found - deleted;
    let is_unknown = lines.iter().any(|line| matches!(line, Line::Unreadable { .. }));
    let exit = if is_unknown || (args.yes && left > 0) { Exit::Nothing } else { Exit::Passed };
    lines.push(Line::CleanFinished { found, deleted, left, exit_code: exit.code() });
    for line in &lines {
        match context.ui.form {
            Form::Jsonl => context.ui.event(line),
            Form::Text => context.ui.print(&text(line)),
        }
    }
    if !args.yes && left > 0 {
        context.ui.say("nothing was deleted or put back; add --yes to have that done");
    }
    Ok(exit)
}

fn text(line: &Line) -> String {
    let fate = |deleted: bool, why: &Option<String>| match (deleted, why) {
        (true, _) => "deleted".to_owned(),
        (false, Some(why)) => format!("left: {why}"),
        (false, None) => "there".to_owned(),
    };
    match line {
        Line::Snapshot { name, volume, run_state, age_seconds, deleted, why, .. } => {
            let age = age_seconds.map_or_else(|| "age unknown".to_owned(), age_text);
            let fate = fate(*deleted, why);
            format!("{name}  volume {volume}  {age}  run {run_state}  {fate}")
        }
        Line::Clone { name, volume, run_state, deleted, why, .. } => {
            format!("{name}  clone {volume}  run {run_state}  {}", fate(*deleted, why))
        }
        Line::Blocks { volume, device, run, lbas, restored, why } => {
            let fate = match (restored, why) {
                (true, None) => "put back".to_owned(),
                (true, Some(why)) => format!("put back, but {why}"),
                (false, why) => fate(false, why),
            };
            let count = lbas.len();
            format!("{count} blocks of {device}  volume {volume}  stamped by run {run}  {fate}")
        }
        Line::Local { what, path, deleted, why } => {
            format!("{what} {path}  {}", fate(*deleted, why))
        }
        Line::Unreadable { why } => {
            format!("could not be looked at, so what is left there is not known: {why}")
        }
        Line::CleanFinished { found: 0, .. } => "nothing is left of earlier runs".to_owned(),
        Line::CleanFinished { found, deleted, left, .. } => {
            format!("{found} found, {deleted} deleted, {left} left")
        }
    }
}

fn age_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s old"),
        120..7200 => format!("{} min old", seconds / 60),
        7200..172_800 => format!("{} h old", seconds / 3600),
        _ => format!("{} d old", seconds / 86_400),
    }
}

/// Mounts, loop devices and daemons of processes that are gone.
fn local(delete: bool, context: &mut Context) -> Vec<Line> {
    let mut lines = Vec::new();
    match stale_attachments() {
        Ok(found) => lines.extend(found.iter().map(|stale| stale_line(stale, delete))),
        Err(error) => {
            context.ui.say(&format!("warning: stale mounts were not looked for: {error}"))
        }
    }
    match qemu::leftovers(&std::env::temp_dir()) {
        Ok(found) => lines.extend(found.iter().map(|leftover| {
            let removed = delete.then(|| qemu::remove_leftover(leftover));
            local_line("qemu run", leftover.dir.display().to_string(), removed)
        })),
        Err(error) => {
            context.ui.say(&format!("warning: old QEMU runs were not looked for: {error}"))
        }
    }
    lines
}

fn stale_line(stale: &sim::attach::Stale, delete: bool) -> Line {
    let removed = delete.then(|| clean_stale(stale));
    local_line("mount", stale.mount.display().to_string(), removed)
}

fn local_line<E: std::fmt::Display>(
    what: &'static str,
    path: String,
    removed: Option<Result<(), E>>,
) -> Line {
    let deleted = matches!(removed, Some(Ok(())));
    let why = removed.and_then(Result::err).map(|error| error.to_string());
    Line::Local { what, path, deleted, why }
}

impl CleanArgs {
    /// The volumes that narrow the list; none is all.
    fn volumes(&self) -> Vec<VolumeUuid> {
        [self.target.source_uuid, self.target.target_uuid].into_iter().flatten().collect()
    }

    /// The device the flags name for a volume.
    fn device(&self, volume: VolumeUuid) -> Option<&Path> {
        let TargetArgs { source_uuid, target_uuid, source_device, target_device, .. } =
            &self.target;
        [(source_uuid, source_device), (target_uuid, target_device)]
            .into_iter()
            .find_map(|(uuid, device)| device.as_deref().filter(|_| *uuid == Some(volume)))
    }
}

/// Blocks that killed runs may have left stamped.
fn blocks(args: &CleanArgs, array: Option<&dyn Array>) -> Vec<Line> {
    let found = match stamped_blocks(&args.output.run_dir, &args.volumes()) {
        Ok(found) => found,
        Err(error) => {
            let why = format!("the run folders: {error}");
            return vec![Line::Unreadable { why }];
        }
    };
    let unreadable =
        found.unreadable.iter().map(|error| Line::Unreadable { why: error.to_string() });
    unreadable.chain(found.blocks.iter().map(|blocks| blocks_line(args, array, blocks))).collect()
}

fn blocks_line(args: &CleanArgs, array: Option<&dyn Array>, blocks: &StampedBlocks) -> Line {
    let saved = &blocks.saved;
    let device = args.device(saved.volume).unwrap_or(&saved.device);
    let done = match array {
        _ if !args.yes => None,
        None => Some(Err("give --endpoint, so that the array can be asked for it".to_owned())),
        Some(array) => Some(
            array
                .volume(saved.volume)
                .map_err(|error| error.to_string())
                .and_then(|info| put_back(&Host::default(), blocks, &info, device)),
        ),
    };
    let (restored, why) = match done {
        None => (false, None),
        Some(Err(why)) => (false, Some(why)),
        Some(Ok(put)) if put.kept.is_empty() => (true, None),
        Some(Ok(put)) => (true, Some(format!("{} were written since and stay", put.kept))),
    };
    Line::Blocks {
        volume: saved.volume.to_string(),
        device: device.display().to_string(),
        run: blocks.run.to_string(),
        lbas: saved.blocks.iter().map(|(lba, _)| lba.get()).collect(),
        restored,
        why,
    }
}

/// Clones with this tool's names on the array.
fn clones(args: &CleanArgs, client: &dyn Clones) -> Result<Vec<Line>, Failure> {
    let runs = Runs { root: &args.output.run_dir, own: None, delete_unknown: args.unknown_runs };
    let found = leftover_clones(client, runs)?;
    let line = |clone: &LeftoverClone| {
        let done = args.yes.then(|| delete_leftover(client, runs, clone));
        Line::Clone {
            name: clone.name.to_string(),
            volume: clone.volume.to_string(),
            run: clone.name.run().to_string(),
            run_state: state_words(clone.run_state),
            deleted: matches!(done, Some(Ok(()))),
            why: done.and_then(Result::err),
        }
    };
    Ok(found.iter().map(line).collect())
}

const fn state_words(state: RunState) -> &'static str {
    match state {
        RunState::Alive => "goes on",
        RunState::Ended => "ended",
        RunState::Unknown => "unknown",
    }
}

/// Snapshots with this tool's names on the array.
fn snapshots(
    args: &CleanArgs,
    client: &dyn Array,
    context: &mut Context,
) -> Result<Vec<Line>, Failure> {
    let volumes = args.volumes();
    let runs = Runs { root: &args.output.run_dir, own: None, delete_unknown: args.unknown_runs };
    let found = cleanup::leftovers(client, &volumes, runs, SystemTime::now())?;
    let left = if args.yes {
        let gone = args.delete_timeout.0;
        let waiting = Waiting { available: Duration::ZERO, gone, stop: context.stop.flag() };
        Some(cleanup::delete(client, &RealClock::new(), waiting, runs, &found))
    } else {
        None
    };
    let line = |leftover: &Leftover| {
        let kept = left.as_ref().map(|left| {
            left.iter()
                .find(|kept| kept.leftover.snapshot == leftover.snapshot)
                .map(|kept| &kept.why)
        });
        snapshot_line(leftover, matches!(kept, Some(None)), kept.flatten().cloned())
    };
    Ok(found.iter().map(line).collect())
}

fn snapshot_line(leftover: &Leftover, deleted: bool, why: Option<String>) -> Line {
    Line::Snapshot {
        name: leftover.name.to_string(),
        uuid: leftover.snapshot.to_string(),
        volume: leftover.volume.to_string(),
        run: leftover.name.run().to_string(),
        run_state: state_words(leftover.run_state),
        age_seconds: leftover.age.map(|age| age.as_secs()),
        deleted,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::SnapshotState;
    use crate::block::{RunId, SnapshotName, SnapshotUuid};
    use crate::cli::ui::Versioned;

    fn leftover() -> Leftover {
        Leftover {
            snapshot: SnapshotUuid::from_u128(1),
            name: SnapshotName::new(RunId::from_u128(7), 3),
            volume: VolumeUuid::from_u128(2),
            state: SnapshotState::Available,
            age: Some(Duration::from_secs(7200)),
            run_state: RunState::Ended,
        }
    }

    #[test]
    fn lines_say_what_became_of_each() {
        let name = leftover().name;
        let volume = "00000000-0000-0000-0000-000000000002";
        let there = snapshot_line(&leftover(), false, None);
        assert_eq!(text(&there), format!("{name}  volume {volume}  2 h old  run ended  there"));
        let gone = snapshot_line(&leftover(), true, None);
        assert!(text(&gone).ends_with("deleted"));
        let kept = snapshot_line(&leftover(), false, Some("run 7 goes on".to_owned()));
        assert!(text(&kept).ends_with("left: run 7 goes on"));
        let json = serde_json::to_string(&Versioned { v: 1, event: &gone }).expect("encodes");
        assert!(json.starts_with(r#"{"v":1,"event":"snapshot","name":"tsync-"#), "{json}");
        assert!(
            json.ends_with(r#""run_state":"ended","age_seconds":7200,"deleted":true}"#),
            "{json}"
        );
    }

    #[test]
    fn local_things_say_why_they_stayed() {
        let failed: Result<(), &str> = Err("busy");
        let line = local_line("mount", "/tmp/x".to_owned(), Some(failed));
        assert_eq!(text(&line), "mount /tmp/x  left: busy");
        let line = local_line::<&str>("mount", "/tmp/x".to_owned(), None);
        assert_eq!(text(&line), "mount /tmp/x  there");
    }

    #[test]
    fn blocks_say_whether_they_were_put_back() {
        let line = |restored, why: Option<&str>| Line::Blocks {
            volume: "v".to_owned(),
            device: "/dev/x".to_owned(),
            run: "r".to_owned(),
            lbas: vec![3, 9],
            restored,
            why: why.map(str::to_owned),
        };
        let start = "2 blocks of /dev/x  volume v  stamped by run r  ";
        assert_eq!(text(&line(false, None)), format!("{start}there"));
        assert_eq!(text(&line(true, None)), format!("{start}put back"));
        assert_eq!(
            text(&line(true, Some("LBA 3 stays"))),
            format!("{start}put back, but LBA 3 stays")
        );
        assert_eq!(text(&line(false, Some("busy"))), format!("{start}left: busy"));
        let json = serde_json::to_string(&line(true, None)).expect("encodes");
        assert!(json.ends_with(r#""lbas":[3,9],"restored":true}"#), "{json}");
    }

    #[test]
    fn ages_read_in_the_largest_useful_unit() {
        let ages = [5, 600, 10_000, 500_000].map(age_text);
        assert_eq!(ages, ["5 s old", "10 min old", "2 h old", "5 d old"]);
    }
}
