//! `lbaudit doctor`: preflight. Opens nothing for writing, creates nothing.
//!
//! Not covered: what is looked at (`crate::campaign::doctor`).

use crate::block::{BitmapOrder, Role};
use crate::campaign::cleanup::Runs;
use crate::campaign::doctor::{
    Inputs, Row, RowState, SUITE_FOOTPRINT, TlsCheck, VolumeInput, examine,
};
use crate::cli::Context;
use crate::cli::args::{Form, OutputArgs, TargetArgs};
use crate::cli::config::VOLUME_FLAGS;
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::device::Host;
use crate::qemu;
use crate::sim::attach::stale_attachments;
use clap::Args;
use serde::Serialize;
use std::path::Path;
use std::time::SystemTime;

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Which array and volumes; without them only this machine is looked at.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where the answer goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What must be well before the array can be asked at all. Anything else that is wrong a run refuses.
const REACH: [&str; 4] = ["endpoint", "tls", "project", "token"];

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Looked { what: &'a str, state: &'static str, seen: &'a str, next: &'a str },
    DoctorFinished { ok: usize, warnings: usize, failed: usize, skipped: usize, exit_code: u8 },
}

/// Looks at everything.
///
/// # Errors
/// [`Failure`] for a command line that cannot work.
pub fn run(
    args: &DoctorArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let mut rows = machine_rows();
    if args.target.first_given().is_some() {
        rows.extend(array_rows(args, env_token, context)?);
    }
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let (ok, warnings) = (count(RowState::Ok), count(RowState::Warn));
    let (failed, skipped) = (count(RowState::Fail), count(RowState::Skip));
    let wrong = |row: &Row| row.state == RowState::Fail;
    let exit = match rows.iter().any(|row| wrong(row) && REACH.contains(&row.what.as_str())) {
        true => Exit::CouldNotTest,
        false if failed > 0 => Exit::Usage,
        false => Exit::Passed,
    };
    for row in &rows {
        show(row, context);
    }
    match context.ui.form {
        Form::Jsonl => {
            let exit_code = exit.code();
            let line = Line::DoctorFinished { ok, warnings, failed, skipped, exit_code };
            context.ui.event(&line);
        }
        Form::Text => {
            let verdict = if failed > 0 { "a run would be refused" } else { "a run is possible" };
            let counts =
                format!("{ok} fine, {warnings} to know, {failed} wrong, {skipped} not looked at");
            context.ui.print(&format!("{counts}: {verdict}"));
        }
    }
    Ok(exit)
}

fn show(row: &Row, context: &mut Context) {
    let Row { what, seen, next, state } = row;
    if context.ui.form == Form::Jsonl {
        let state = match state {
            RowState::Ok => "ok",
            RowState::Warn => "warn",
            RowState::Fail => "fail",
            RowState::Skip => "skip",
        };
        return context.ui.event(&Line::Looked { what, state, seen, next });
    }
    for line in lines(row) {
        context.ui.print(&line);
    }
}

/// A row as text: mark, what, what was seen; below it what to do.
fn lines(row: &Row) -> Vec<String> {
    let mark = match row.state {
        RowState::Ok => '✓',
        RowState::Warn => '!',
        RowState::Fail => '✗',
        RowState::Skip => '-',
    };
    let mut lines = vec![format!("{mark} {:<16} {}", row.what, row.seen)];
    if !row.next.is_empty() {
        lines.push(format!("{:19}{}", "", row.next));
    }
    lines
}

fn array_rows(
    args: &DoctorArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Vec<Row>, Failure> {
    let connection = args.target.connection(env_token, &VOLUME_FLAGS)?;
    let wanted = args.target.volumes()?;
    let connected = connect(&connection, BitmapOrder::Little, context)?;
    let volumes = [
        VolumeInput { role: Role::Source, volume: wanted.source, device: wanted.source_device },
        VolumeInput { role: Role::Target, volume: wanted.target, device: wanted.target_device },
    ];
    let tls = match &connection.tls {
        _ if connection.endpoints.iter().all(|endpoint| endpoint.starts_with("http://")) => {
            TlsCheck::NotUsed
        }
        tls if tls.insecure => TlsCheck::None,
        tls if !tls.pins.is_empty() => TlsCheck::Pinned,
        _ => TlsCheck::Verified,
    };
    let endpoint = connection.endpoints.join(", ");
    let inputs = Inputs {
        endpoint: &endpoint,
        tls,
        token_expires: connected.token_expires,
        project: &connection.project,
        volumes: &volumes,
        footprint: SUITE_FOOTPRINT,
        host: &Host::default(),
        runs: Runs { root: &args.output.run_dir, own: None, delete_unknown: false },
        now: SystemTime::now(),
    };
    Ok(examine(&inputs, &connected.client))
}

/// What this machine offers, whatever the array.
fn machine_rows() -> Vec<Row> {
    let row = |what: &str, good: bool, seen: &str, next: &str| Row {
        what: what.to_owned(),
        state: if good { RowState::Ok } else { RowState::Warn },
        seen: seen.to_owned(),
        next: if good { String::new() } else { next.to_owned() },
    };
    let fuse = Path::new("/dev/fuse").exists();
    let root = rustix::process::geteuid().is_root();
    let loops = root && Path::new("/dev/loop-control").exists();
    let mut rows = vec![
        row(
            "fuse",
            fuse,
            if fuse { "/dev/fuse is there" } else { "/dev/fuse is missing" },
            "the simulator then uses in-process volumes",
        ),
        row(
            "loop devices",
            loops,
            if loops { "can be made" } else { "cannot be made" },
            "as root with /dev/loop-control the simulator's volumes are block devices",
        ),
    ];
    for (program, why) in [
        ("dd", "needed for --checksum external"),
        ("sha256sum", "needed for --checksum external"),
        (
            "qemu-storage-daemon",
            "needed for --backend qemu (package qemu-system-common or qemu-utils)",
        ),
    ] {
        let path = on_path(program);
        let seen = path.clone().unwrap_or_else(|| "not on PATH".to_owned());
        rows.push(row(program, path.is_some(), &seen, why));
    }
    let stale = stale_attachments().map_or(0, |found| found.len())
        + qemu::leftovers(&std::env::temp_dir()).map_or(0, |found| found.len());
    let seen = if stale == 0 { "none".to_owned() } else { format!("{stale} of dead processes") };
    rows.push(row("stale mounts", stale == 0, &seen, "`lbaudit clean` lists and removes them"));
    rows
}

fn on_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.map(|file| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_row_says_what_to_do() {
        let row = Row {
            what: "source device".to_owned(),
            state: RowState::Fail,
            seen: "/dev/x belongs to another volume".to_owned(),
            next: "swap the devices".to_owned(),
        };
        assert_eq!(
            lines(&row),
            [
                "✗ source device    /dev/x belongs to another volume",
                "                   swap the devices",
            ]
        );
        let fine = Row { state: RowState::Ok, next: String::new(), ..row };
        assert_eq!(lines(&fine).len(), 1);
    }

    #[test]
    fn this_machine_is_described_without_failing() {
        let rows = machine_rows();
        assert!(rows.len() >= 6);
        assert!(rows.iter().all(|row| row.state != RowState::Fail));
        assert!(rows.iter().all(|row| row.state == RowState::Ok || !row.next.is_empty()));
    }
}
