//! `lbaudit sim serve`: the simulator as a process of its own.
//!
//! Not covered: the server itself and its attachments (`crate::sim`).

use crate::cli::Context;
use crate::cli::config::{Seconds, Size};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::sim::attach::AttachKind;
use crate::sim::hostile::FaultSpec;
use crate::sim::serve::{ServeConfig, serve, stop_flag};
use crate::sim::wire::Profile;
use crate::sim::{Bug, Preload};
use crate::sync::PipelineBug;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;

/// What to serve.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on; loopback only, port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Size of every volume (KiB, MiB, GiB, TiB).
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    pub size: Size,
    /// How the volumes become paths.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub attach: Attach,
    /// Ranges of one diff page at most.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub page_limit: u32,
    /// Plant this bug of the array side; repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// Fail as SPEC says, `KIND@[WHERE:]N[+]`: `status-503@4` is the 4th call that can meet it,
    /// `truncated-json@diff:2+` the 2nd diff and every later one, `data:metadata@target:1` the 1st
    /// write of the target. `lbaudit list faults` names the kinds. Repeatable, one for each volume.
    #[arg(long, value_name = "SPEC")]
    pub fault: Vec<FaultSpec>,
    /// How JSON is written: A leaves zeros out, B writes them.
    #[arg(long, value_name = "PROFILE", default_value = "a", ignore_case = true)]
    pub profile: ProfileArg,
    /// The one project there is.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub project: String,
    /// How long a new snapshot stays Creating, and a deleted one Deleting.
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    pub delay: Seconds,
    /// Add a third volume, a bystander.
    #[arg(long)]
    pub neighbour: bool,
    /// Mark LBAs of the source as written, without contents, and take the snapshot `preload`.
    #[arg(long, value_name = "dense|alternating|random:SEED", value_parser = preload)]
    pub preload: Option<Preload>,
    /// Answer the diff of a snapshot still Creating with half of it, as the planted bug of a
    /// client that does not wait deserves.
    #[arg(long, hide = true)]
    pub partial_while_creating: bool,
    /// End with the parent process.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// How volumes become paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Attach {
    /// Loop devices as root, else FUSE files, else none.
    Auto,
    /// A FUSE file each.
    Fuse,
    /// A loop block device each (root).
    Loop,
    /// Not at all.
    None,
}

/// How JSON is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ProfileArg {
    /// Zeros are left out.
    A,
    /// Zeros are written.
    B,
}

fn preload(text: &str) -> Result<Preload, String> {
    match text {
        "dense" => Ok(Preload::Dense),
        "alternating" => Ok(Preload::Alternating),
        _ => text
            .strip_prefix("random:")
            .and_then(|seed| seed.parse().ok())
            .map(Preload::Random)
            .ok_or_else(|| "give dense, alternating or random:SEED".to_owned()),
    }
}

/// Serves until a signal, and takes everything away.
///
/// # Errors
/// [`Failure`] if it cannot be served, or not taken away.
pub fn run(args: &ServeArgs, context: &mut Context) -> Result<Exit, Failure> {
    let config = ServeConfig {
        listen: args.listen,
        size_bytes: args.size.0.get(),
        attach: match args.attach {
            Attach::Auto => AttachKind::Auto,
            Attach::Fuse => AttachKind::Fuse,
            Attach::Loop => AttachKind::Loop,
            Attach::None => AttachKind::None,
        },
        page_limit: args.page_limit,
        bugs: args.plant.iter().map(|name| array_bug(name)).collect::<Result<_, _>>()?,
        profile: match args.profile {
            ProfileArg::A => Profile::A,
            ProfileArg::B => Profile::B,
        },
        project: args.project.clone(),
        neighbour: args.neighbour,
        preload: args.preload,
        partial_while_creating: args.partial_while_creating,
        delay: args.delay.0,
        faults: args.fault.clone(),
    };
    let stop = stop_flag(args.with_parent)
        .map_err(|error| Failure::could_not(format!("cannot listen to signals: {error}")))?;
    let ui = &mut context.ui;
    serve(
        &config,
        &mut |ready| {
            for note in &ready.notes {
                ui.say(&format!("note: {note}"));
            }
            ui.json(ready);
        },
        &stop,
    )?;
    Ok(Exit::Passed)
}

/// The array's bug of this name.
///
/// # Errors
/// If there is none; a bug of the pipeline is named as such.
pub fn array_bug(name: &str) -> Result<Bug, Failure> {
    Bug::from_name(name).ok_or_else(|| {
        if PipelineBug::from_name(name).is_some() {
            Failure::usage(format!(
                "`{name}` is a bug of the pipeline, not of the array: give it to `lbaudit suite --plant`"
            ))
        } else {
            super::unknown_bug(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preloads_read_as_in_the_manual() {
        assert_eq!(preload("dense"), Ok(Preload::Dense));
        assert_eq!(preload("random:7"), Ok(Preload::Random(7)));
        for bad in ["random", "random:", "random:x", "sparse", ""] {
            assert!(preload(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pipeline_bugs_are_not_served() {
        let bug = array_bug("discard-untracked").expect("a bug of the array");
        assert_eq!(bug.name(), "discard-untracked");
        let wrong = array_bug("chunk-for-lba").expect_err("a bug of the pipeline");
        assert!(wrong.message.contains("pipeline"), "{}", wrong.message);
        let unknown = array_bug("discard-untraked").expect_err("no bug");
        assert!(unknown.message.contains("`discard-untracked`"), "{}", unknown.message);
    }
}
