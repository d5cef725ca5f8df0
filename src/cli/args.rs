//! The command line as clap sees it. Only shapes; what belongs together is checked in
//! [`super::config`]. Not covered: defaults that depend on the target, and files or the environment
//! beyond clap's own.

use super::config::{Seconds, Size};
use crate::block::{BitmapOrder, Policy, VolumeUuid};
use crate::device::ConsentItem;
use crate::lightbits::Fingerprint;
use crate::suite::Phase;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which target, and how to reach it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Target (none of these: an embedded simulator)")]
pub struct TargetArgs {
    /// REST endpoint, https://HOST or https://HOST:PORT; repeat it for equivalent ones.
    #[arg(
        long,
        value_name = "URL",
        env = "LBAUDIT_ENDPOINT",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub endpoint: Vec<String>,
    /// UUID of the volume that is written and snapshotted.
    #[arg(long, value_name = "UUID", env = "LBAUDIT_SOURCE_UUID", hide_env_values = true)]
    pub source_uuid: Option<VolumeUuid>,
    /// UUID of the volume that syncs copy to.
    #[arg(long, value_name = "UUID", env = "LBAUDIT_TARGET_UUID", hide_env_values = true)]
    pub target_uuid: Option<VolumeUuid>,
    /// Block device of the source volume; found by its wwid if absent.
    #[arg(long, value_name = "PATH", env = "LBAUDIT_SOURCE_DEVICE", hide_env_values = true)]
    pub source_device: Option<PathBuf>,
    /// Block device of the target volume; found by its wwid if absent.
    #[arg(long, value_name = "PATH", env = "LBAUDIT_TARGET_DEVICE", hide_env_values = true)]
    pub target_device: Option<PathBuf>,
    /// Project of the volumes [default: default].
    #[arg(long, value_name = "NAME", env = "LBAUDIT_PROJECT", hide_env_values = true)]
    pub project: Option<String>,
    /// File with the token. Without a flag it comes from the environment: LIGHTBITS_JWT.
    #[arg(long, value_name = "FILE", env = "LBAUDIT_JWT_FILE", hide_env_values = true)]
    pub jwt_file: Option<PathBuf>,
    /// Program and arguments (no shell) that print the token.
    #[arg(long, value_name = "CMD", env = "LBAUDIT_JWT_COMMAND", hide_env_values = true)]
    pub jwt_command: Option<String>,
    /// The token itself; other users of this host can see it in the process list.
    #[arg(long, value_name = "TOKEN")]
    pub jwt: Option<String>,
    /// Certificates to trust, PEM.
    #[arg(long, value_name = "FILE", env = "LBAUDIT_CA_FILE", hide_env_values = true)]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate, hex; repeatable.
    #[arg(
        long,
        value_name = "HEX",
        env = "LBAUDIT_PIN_SHA256",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub pin_sha256: Vec<Fingerprint>,
    /// Do not verify the server's certificate.
    #[arg(long)]
    pub insecure: bool,
}

/// Where results go and how they look.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Form of the results on standard output.
    #[arg(
        long,
        value_name = "FORM",
        default_value = "text",
        env = "LBAUDIT_OUTPUT",
        hide_env_values = true
    )]
    pub output: Form,
    /// Folder of the run folders.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./lbaudit-runs",
        env = "LBAUDIT_RUN_DIR",
        hide_env_values = true
    )]
    pub run_dir: PathBuf,
    /// Colours.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        env = "LBAUDIT_COLOR",
        hide_env_values = true
    )]
    pub color: When,
    /// Progress on standard error.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        env = "LBAUDIT_PROGRESS",
        hide_env_values = true
    )]
    pub progress: ProgressArg,
    /// Only what is not fine, and the last line.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Form of results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Jsonl,
}

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to show progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ProgressArg {
    /// A spinner on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A spinner, if there is a terminal.
    Spinner,
    /// A line every 30 seconds.
    Lines,
    /// Nothing.
    None,
}

/// Who plays the array.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Backend {
    /// A Lightbits cluster, or the embedded simulator of one.
    #[default]
    Lightbits,
    /// qemu-storage-daemon and its dirty bitmaps.
    Qemu,
    /// The same with bitmap and data cut in two commands: a real bug of real software.
    #[value(hide = true)]
    QemuNonatomic,
    /// The same with its bitmaps cleared behind the adapter's back: every diff must be found short.
    #[value(hide = true)]
    QemuCleared,
}

/// Order of the bytes of a bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum OrderArg {
    /// Little; the handshake says so where the answers look swapped.
    #[default]
    Auto,
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl OrderArg {
    /// The order, if it was said.
    pub const fn order(self) -> Option<BitmapOrder> {
        match self {
            OrderArg::Auto => None,
            OrderArg::Little => Some(BitmapOrder::Little),
            OrderArg::Big => Some(BitmapOrder::Big),
        }
    }
}

/// How contents are checksummed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ChecksumArg {
    /// dd piped into sha256sum.
    External,
    /// O_DIRECT reads in this process.
    Direct,
}

/// A group of tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Group {
    /// Tests 1 to 7.
    Sanity,
    /// Tests 8 to 13.
    Edge,
    /// Tests 14 to 20.
    Resilience,
}

impl From<Group> for Phase {
    fn from(group: Group) -> Phase {
        match group {
            Group::Sanity => Phase::Sanity,
            Group::Edge => Phase::Edge,
            Group::Resilience => Phase::Resilience,
        }
    }
}

/// What the user gives up.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub struct ConsentArgs {
    /// Consent: the last 12 hex digits of a volume's UUID. Needed for each of the two volumes,
    /// whose data will be destroyed (a sync overwrites the target only, but its handshake writes a
    /// few blocks of the source over themselves).
    #[arg(long, value_name = "LAST12")]
    pub destroy: Vec<ConsentItem>,
    /// A file system, partition table or the like that may stand on a volume and be destroyed with
    /// it, by the name that the refusal gives it; repeatable.
    #[arg(long, value_name = "NAME")]
    pub allow_signature: Vec<String>,
}

impl ConsentArgs {
    /// The first flag that was given.
    pub fn first_given(&self) -> Option<&'static str> {
        match (self.destroy.is_empty(), self.allow_signature.is_empty()) {
            (false, _) => Some("--destroy"),
            (true, false) => Some("--allow-signature"),
            (true, true) => None,
        }
    }
}

/// The 20 fixed tests.
#[derive(Args, Clone, Debug)]
pub struct SuiteArgs {
    /// Which target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What may be destroyed there.
    #[command(flatten, next_help_heading = "Target (none of these: an embedded simulator)")]
    pub consent: ConsentArgs,
    /// Who plays the array.
    #[arg(long, value_name = "NAME", default_value = "lightbits")]
    pub backend: Backend,
    /// qemu-storage-daemon, if it is not on PATH.
    #[arg(long, value_name = "PATH")]
    pub qsd: Option<PathBuf>,
    /// Run this test only: name, number or glob; repeatable.
    #[arg(long, value_name = "NAME")]
    pub test: Vec<String>,
    /// Leave this test out: name, number or glob; repeatable.
    #[arg(long, value_name = "NAME")]
    pub skip: Vec<String>,
    /// Run this group only.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<Group>,
    /// Stop after the first test that does not pass.
    #[arg(long)]
    pub fail_fast: bool,
    /// Say what would run, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the snapshots on the array.
    #[arg(long)]
    pub keep_snapshots: bool,
    /// Notes also under passing tests.
    #[arg(long, short)]
    pub verbose: bool,
    /// Refuse a full sync of more than this (KiB, MiB, GiB, TiB).
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub max_full_sync: Size,
    /// Copy only the LBAs of the tests' own regions in full syncs.
    #[arg(long)]
    pub limit_to_footprint: bool,
    /// How long a snapshot may take to become Available.
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = Seconds::not_zero)]
    pub available_timeout: Seconds,
    /// How long a deleted snapshot may take to be gone.
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = Seconds::not_zero)]
    pub delete_timeout: Seconds,
    /// Order of the bytes of a bitmap.
    #[arg(long, value_name = "ORDER", default_value = "auto")]
    pub bitmap_order: OrderArg,
    /// How contents are checksummed [default: external on an array, direct on the simulator].
    #[arg(long, value_name = "HOW")]
    pub checksum: Option<ChecksumArg>,
    /// Least speed of the timed sync, MiB/s.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub min_mbps: u32,
    /// How over-reporting is judged: exact, chunk, granule=N, report-only
    /// [default: chunk on an array, exact elsewhere].
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Ranges of one page of the embedded simulator, small so that paging is exercised.
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Embedded simulator", value_parser = clap::value_parser!(u32).range(1..))]
    pub page_limit: u32,
    /// Do not start a server or attach volumes: call the simulator in this process.
    #[arg(long, help_heading = "Embedded simulator")]
    pub in_process: bool,
    /// Plant this bug (see `lbaudit list bugs`); repeatable.
    #[arg(long, value_name = "BUG", help_heading = "Embedded simulator")]
    pub plant: Vec<String>,
    /// Also write a JUnit file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub junit: Option<PathBuf>,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Whether this is the original's form, without a subcommand: its exit codes are folded.
    #[arg(skip)]
    pub folded: bool,
}

/// Exhaustive checking in a small scope.
#[derive(Args, Clone, Debug)]
pub struct ExploreArgs {
    /// Operations of a sequence at most.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub depth: usize,
    /// Plant this bug and end at the first sequence that shows it; repeatable.
    #[arg(long, value_name = "BUG")]
    pub plant: Vec<String>,
    /// Plant each bug of the array in turn.
    #[arg(long, conflicts_with = "plant")]
    pub bugs: bool,
    /// Distinct states at most.
    #[arg(long, value_name = "N", default_value_t = 50_000_000)]
    pub max_states: u64,
    /// How long one search may take.
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub time: Seconds,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}
