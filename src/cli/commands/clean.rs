//! `lbaudit clean`: what earlier runs left, on the array and on this machine. Lists it; deletes it
//! only when told to. What it deletes is found by this tool's own names, never by guess.

use crate::array::{RealClock, Waiting};
use crate::block::BitmapOrder;
use crate::campaign::cleanup::{self, Leftover, Runs};
use crate::campaign::store::RunState;
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs, TargetArgs};
use crate::cli::config::Seconds;
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::qemu;
use crate::sim;
use crate::sim::attach::{clean_stale, stale_attachments};
use clap::Args;
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// What to clean.
#[derive(Args, Clone, Debug)]
pub struct CleanArgs {
    /// Which array; without one only this machine is looked at. Volumes narrow the list.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Delete what is listed.
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
    if args.target.first_given().is_some() {
        lines.extend(snapshots(args, env_token, context)?);
    }
    let found = lines.len();
    let gone = |line: &&Line| {
        matches!(line, Line::Snapshot { deleted: true, .. } | Line::Local { deleted: true, .. })
    };
    let deleted = lines.iter().filter(gone).count();
    let left = found - deleted;
    let exit = if args.yes && left > 0 { Exit::Nothing } else { Exit::Passed };
    lines.push(Line::CleanFinished { found, deleted, left, exit_code: exit.code() });
    for line in &lines {
        match context.ui.form {
            Form::Jsonl => context.ui.event(line),
            Form::Text => context.ui.print(&text(line)),
        }
    }
    if !args.yes && left > 0 {
        context.ui.say("nothing was deleted; add --yes to delete what is listed");
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
        Line::Local { what, path, deleted, why } => {
            format!("{what} {path}  {}", fate(*deleted, why))
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

/// Snapshots with this tool's names on the array.
fn snapshots(
    args: &CleanArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Vec<Line>, Failure> {
    let connection = args.target.connection(env_token, &[])?;
    let client = connect(&connection, BitmapOrder::Little, context)?.client;
    let volumes: Vec<_> =
        [args.target.source_uuid, args.target.target_uuid].into_iter().flatten().collect();
    let runs = Runs { root: &args.output.run_dir, own: None, delete_unknown: args.unknown_runs };
    let found = cleanup::leftovers(&client, &volumes, runs, SystemTime::now())?;
    let left = if args.yes {
        let gone = args.delete_timeout.0;
        let waiting = Waiting { available: Duration::ZERO, gone, stop: context.stop.flag() };
        Some(cleanup::delete(&client, &RealClock::new(), waiting, runs, &found))
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
        run_state: match leftover.run_state {
            RunState::Alive => "goes on",
            RunState::Ended => "ended",
            RunState::Unknown => "unknown",
        },
        age_seconds: leftover.age.map(|age| age.as_secs()),
        deleted,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::SnapshotState;
    use crate::block::{RunId, SnapshotName, SnapshotUuid, VolumeUuid};
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
    fn ages_read_in_the_largest_useful_unit() {
        let ages = [5, 600, 10_000, 500_000].map(age_text);
        assert_eq!(ages, ["5 s old", "10 min old", "2 h old", "5 d old"]);
    }
}
