//! The flags of random checking (`check`, `soak`). Not covered: what they ask for
//! (`super::commands::check`).

use super::args::{Backend, ConsentArgs, OrderArg, OutputArgs, TargetArgs};
use super::config::{Seconds, Size};
use crate::block::Policy;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

const ON_AN_ARRAY: &str = "On an array";
const LONG: &str = "Long runs, many hosts";

/// Random checking.
#[derive(Args, Clone, Debug)]
pub struct CampaignArgs {
    /// Seed, decimal or 0x...: the same seed gives the same cases [default: drawn and printed].
    #[arg(long, value_name = "S")]
    pub seed: Option<Seed>,
    /// How many cases [default of check: 10000, or until --duration is over].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub cases: Option<u64>,
    /// How long (s, m, h).
    #[arg(long, value_name = "TIME", value_parser = Seconds::not_zero)]
    pub duration: Option<Seconds>,
    /// Operations of a case at most, not counting those that observe at its end.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ops: Option<u32>,
    /// What to draw (see `lbaudit list profiles`) [default: everything that the target offers].
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub profile: String,
    /// Which target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What may be destroyed there.
    #[command(flatten, next_help_heading = ON_AN_ARRAY)]
    pub consent: ConsentArgs,
    /// How much of the volumes is written [default: 64MiB].
    #[arg(long, value_name = "SIZE", help_heading = ON_AN_ARRAY)]
    pub region: Option<Size>,
    /// Where that part begins [default: 0].
    #[arg(long, value_name = "SIZE", help_heading = ON_AN_ARRAY)]
    pub region_at: Option<Size>,
    /// Read snapshots through clones: volumes made of them, and deleted again, by this run.
    #[arg(long, help_heading = ON_AN_ARRAY)]
    pub clones: bool,
    /// Run exactly this trace, once.
    #[arg(long, value_name = "FILE", help_heading = ON_AN_ARRAY)]
    pub scenario: Option<PathBuf>,
    /// How long a snapshot may take to become Available, or to be gone [default: 180s].
    #[arg(long, value_name = "TIME", help_heading = ON_AN_ARRAY, value_parser = Seconds::not_zero)]
    pub snapshot_timeout: Option<Seconds>,
    /// Order of the bytes of a bitmap.
    #[arg(long, value_name = "ORDER", default_value = "auto", help_heading = ON_AN_ARRAY)]
    pub bitmap_order: OrderArg,
    /// Who plays the array.
    #[arg(long, value_name = "NAME", default_value = "lightbits")]
    pub backend: Backend,
    /// qemu-storage-daemon, if it is not on PATH.
    #[arg(long, value_name = "PATH")]
    pub qsd: Option<PathBuf>,
    /// How over-reporting is judged: exact, chunk, granule=N, report-only [default: drawn for each
    /// case, as its array may do].
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Plant this bug (see `lbaudit list bugs`); repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// How the simulator is reached [default: in this process, but for one case in 2000].
    #[arg(long, value_name = "HOW")]
    pub transport: Option<Transport>,
    /// Threads [default: one a core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// End after so many different findings [default: 1 for check, no end for soak].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_failures: Option<u64>,
    /// How long one finding may be shrunk.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub shrink_time: Seconds,
    /// Calls of the API a second at most.
    #[arg(long, value_name = "N", help_heading = ON_AN_ARRAY)]
    pub max_requests_per_s: Option<NonZeroU64>,
    /// Bytes a second at most that are read from and written to the two devices.
    #[arg(long, value_name = "SIZE", help_heading = ON_AN_ARRAY)]
    pub max_bytes_per_s: Option<Size>,
    /// Snapshots of this run that are alive at a time at most [default: as many as a case draws].
    #[arg(long, value_name = "N", help_heading = ON_AN_ARRAY, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_live_snapshots: Option<u32>,
    /// soak: read the whole region of the target every N cases, and hold it against what it was
    /// [default: 100].
    #[arg(long, value_name = "N", help_heading = ON_AN_ARRAY, value_parser = clap::value_parser!(u64).range(1..))]
    pub audit_every: Option<u64>,
    /// soak: how long to wait for an array that is unwell, with ever longer pauses [default: 1h].
    #[arg(long, value_name = "TIME", help_heading = ON_AN_ARRAY)]
    pub patience: Option<Seconds>,
    /// Run only the I-th of N parts of the campaign, counted from 0, or the part that Slurm or
    /// Kubernetes names (auto). All parts together are the campaign.
    #[arg(long, value_name = "I/N|auto", help_heading = LONG)]
    pub shard: Option<String>,
    /// Go on with a run that was interrupted: a run folder, its name, its id, or latest. Its flags
    /// are taken over, but for --destroy and tokens; others that are given now replace them.
    #[arg(long, value_name = "RUN", help_heading = LONG)]
    pub resume: Option<String>,
    /// Run this command for each finding, with the finding as JSON on its standard input. It is split
    /// at white space and run without a shell.
    #[arg(long, value_name = "CMD", help_heading = LONG)]
    pub on_finding: Option<String>,
    /// Keep the run's metrics in this file, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE", help_heading = LONG)]
    pub metrics_file: Option<PathBuf>,
    /// Answer GET /metrics here (OpenMetrics), for example 127.0.0.1:9464. Anybody who can connect can
    /// read them.
    #[arg(long, value_name = "ADDR:PORT", help_heading = LONG)]
    pub metrics_listen: Option<SocketAddr>,
    /// End when the run's folder has grown to this.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", help_heading = LONG)]
    pub max_disk: Size,
    /// Also write a JUnit file here.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub junit: Option<PathBuf>,
    /// Also write the report here.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The command line, without secrets, as the run's folder keeps it.
    #[arg(skip)]
    pub arguments: Vec<String>,
}

/// A seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u64);

/// The text is no seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no seed: give a number below 2^64, decimal or 0x...")]
pub struct BadSeed(String);

impl FromStr for Seed {
    type Err = BadSeed;
    fn from_str(text: &str) -> Result<Seed, BadSeed> {
        let seed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        seed.map(Seed).map_err(|_| BadSeed(text.to_owned()))
    }
}

/// How the simulator is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// As a value in this process, every case.
    Inproc,
    /// Through its HTTPS server, every case.
    Http,
}
