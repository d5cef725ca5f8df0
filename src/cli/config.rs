//! From parsed flags to a checked configuration. Pure: reads no file, no environment, no clock. Not
//! covered: whether endpoints, files, devices and volumes exist.

use super::args::{Backend, ChecksumArg, ConsentArgs, SuiteArgs, TargetArgs};
use super::select::Selection;
use crate::block::{BitmapOrder, ByteLen, Policy, VolumeUuid};
use crate::lightbits::TlsConfig;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Flags that do not make a configuration; always exit 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Some target flags are there and others, which they need, are not.
    #[error(
        "{given} given, but {missing} missing: give all of them, or none for the embedded simulator"
    )]
    Incomplete {
        /// The first flag that was given.
        given: &'static str,
        /// Those that are missing.
        missing: String,
    },
    /// The command needs an array.
    #[error("this command needs a target: {0}")]
    NoTarget(String),
    /// Two flags that exclude each other.
    #[error("{0} and {1} exclude each other: give one of them")]
    Both(&'static str, &'static str),
    /// A flag that only the embedded simulator understands.
    #[error("{0} works on the embedded simulator only, and target flags were given")]
    EmbeddedOnly(&'static str),
    /// No token.
    #[error("no token: set LIGHTBITS_JWT, or give --jwt-file or --jwt-command")]
    NoToken,
    /// Source and target are one volume.
    #[error("source and target are the same volume {0}: give two")]
    SameVolume(VolumeUuid),
}

/// A secret: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// Given in the environment.
    Environment(Secret),
    /// Given as a flag, which shows in the process list.
    Flag(Secret),
    /// In a file.
    File(PathBuf),
    /// Printed by this program with these arguments.
    Command(String),
}

/// How to talk to an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Equivalent endpoints, at least one.
    pub endpoints: Vec<String>,
    /// The project.
    pub project: String,
    /// Where the token comes from.
    pub token: Token,
    /// How the server proves who it is.
    pub tls: TlsConfig,
}

/// The two volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volumes {
    /// The volume that is written and snapshotted.
    pub source: VolumeUuid,
    /// The volume that syncs copy to.
    pub target: VolumeUuid,
    /// The source's device; to be found by wwid if absent.
    pub source_device: Option<PathBuf>,
    /// The target's device; to be found by wwid if absent.
    pub target_device: Option<PathBuf>,
}

/// QEMU as it is, or spoilt on purpose to prove that the alarm rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QemuVariant {
    /// As it is.
    Honest,
    /// Bitmap and data are cut in two commands.
    Nonatomic,
    /// Bitmaps are cleared behind the adapter's back.
    Cleared,
}

/// What the suite runs against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A simulator that this process starts and ends.
    Embedded {
        /// Ranges of one page.
        page_limit: u32,
        /// Without server and devices.
        in_process: bool,
    },
    /// A cluster, or anything that speaks like one.
    Array {
        /// How to talk to it.
        connection: Box<Connection>,
        /// Which volumes.
        volumes: Box<Volumes>,
        /// Consent to overwrite them, as far as flags gave it.
        consent: ConsentArgs,
    },
    /// QEMU's own change tracker.
    Qemu {
        /// The daemon, if not on PATH.
        qsd: Option<PathBuf>,
        /// What is wrong with it on purpose.
        variant: QemuVariant,
    },
}

impl Target {
    /// The word every screen and report says.
    pub const fn name(&self) -> &'static str {
        match self {
            Target::Embedded { .. } => "simulator",
            Target::Array { .. } => "array",
            Target::Qemu { variant: QemuVariant::Honest, .. } => "qemu",
            Target::Qemu { variant: QemuVariant::Nonatomic, .. } => "qemu-nonatomic",
            Target::Qemu { variant: QemuVariant::Cleared, .. } => "qemu-cleared",
        }
    }
}

/// A suite run, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuiteConfig {
    /// What it runs against.
    pub target: Target,
    /// Which tests.
    pub selection: Selection,
    /// Names of planted bugs, not yet looked up.
    pub plant: Vec<String>,
    /// How over-reporting is judged.
    pub policy: Policy,
    /// Byte order of bitmaps, if it was said.
    pub bitmap_order: Option<BitmapOrder>,
    /// Whether checksums are made by dd and sha256sum.
    pub external_checksum: bool,
    /// Full syncs of more are refused.
    pub max_full_sync: ByteLen,
    /// Full syncs copy only the tests' own regions.
    pub limit_to_footprint: bool,
    /// Deadline of a snapshot to become Available.
    pub available_timeout: Duration,
    /// Deadline of a deleted snapshot to be gone.
    pub delete_timeout: Duration,
    /// Least speed of the timed sync, MiB/s.
    pub min_mib_per_s: u32,
    /// Leave the snapshots.
    pub keep_snapshots: bool,
    /// Stop at the first test that does not pass.
    pub fail_fast: bool,
    /// Say what would run, and do nothing.
    pub dry_run: bool,
}

impl SuiteConfig {
    /// Checks the flags; `env_token` is the environment's LIGHTBITS_JWT.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn new(args: &SuiteArgs, env_token: Option<String>) -> Result<SuiteConfig, ConfigError> {
        let target = suite_target(args, env_token)?;
        let is_array = matches!(target, Target::Array { .. });
        let external_checksum = match args.checksum {
            Some(how) => how == ChecksumArg::External,
            None => is_array,
        };
        let default_policy = if is_array { Policy::Chunk } else { Policy::Exact };
        Ok(SuiteConfig {
            target,
            selection: Selection {
                tests: args.test.clone(),
                skip: args.skip.clone(),
                group: args.group.map(Into::into),
            },
            plant: args.plant.clone(),
            policy: args.policy.unwrap_or(default_policy),
            bitmap_order: args.bitmap_order.order(),
            external_checksum,
            max_full_sync: args.max_full_sync.0,
            limit_to_footprint: args.limit_to_footprint,
            available_timeout: args.available_timeout.0,
            delete_timeout: args.delete_timeout.0,
            min_mib_per_s: args.min_mbps,
            keep_snapshots: args.keep_snapshots,
            fail_fast: args.fail_fast,
            dry_run: args.dry_run,
        })
    }
}

fn suite_target(args: &SuiteArgs, env_token: Option<String>) -> Result<Target, ConfigError> {
    let given = args.target.first_given().or(args.consent.first_given());
    if args.backend != Backend::Lightbits {
        if let Some(flag) = given {
            return Err(ConfigError::Both("--backend qemu", flag));
        }
        let variant = match args.backend {
            Backend::QemuNonatomic => QemuVariant::Nonatomic,
            Backend::QemuCleared => QemuVariant::Cleared,
            Backend::Qemu | Backend::Lightbits => QemuVariant::Honest,
        };
        return Ok(Target::Qemu { qsd: args.qsd.clone(), variant });
    }
    if given.is_none() {
        return Ok(Target::Embedded { page_limit: args.page_limit, in_process: args.in_process });
    }
    if args.in_process {
        return Err(ConfigError::EmbeddedOnly("--in-process"));
    }
    let connection = Box::new(args.target.connection(env_token, &VOLUME_FLAGS)?);
    let volumes = Box::new(args.target.volumes()?);
    Ok(Target::Array { connection, volumes, consent: args.consent.clone() })
}

/// Flags that a command needs besides the endpoint.
pub const VOLUME_FLAGS: [&str; 2] = ["--source-uuid", "--target-uuid"];

impl TargetArgs {
    /// The first target flag that was given.
    pub fn first_given(&self) -> Option<&'static str> {
        [
            (!self.endpoint.is_empty(), "--endpoint"),
            (self.source_uuid.is_some(), "--source-uuid"),
            (self.target_uuid.is_some(), "--target-uuid"),
            (self.source_device.is_some(), "--source-device"),
            (self.target_device.is_some(), "--target-device"),
            (self.project.is_some(), "--project"),
            (self.jwt_file.is_some(), "--jwt-file"),
            (self.jwt_command.is_some(), "--jwt-command"),
            (self.jwt.is_some(), "--jwt"),
            (self.ca_file.is_some(), "--ca-file"),
            (!self.pin_sha256.is_empty(), "--pin-sha256"),
            (self.insecure, "--insecure"),
        ]
        .into_iter()
        .find_map(|(is_given, flag)| is_given.then_some(flag))
    }
    /// How to talk to the array; `also` are flags the command needs besides the endpoint.
    ///
    /// # Errors
    /// [`ConfigError`] naming every flag that is missing, or the first that is wrong.
    pub fn connection(
        &self,
        env_token: Option<String>,
        also: &[&'static str],
    ) -> Result<Connection, ConfigError> {
        let has = |flag: &str| match flag {
            "--endpoint" => !self.endpoint.is_empty(),
            "--source-uuid" => self.source_uuid.is_some(),
            "--target-uuid" => self.target_uuid.is_some(),
            _ => true,
        };
        let missing: Vec<&str> =
            ["--endpoint"].iter().chain(also).copied().filter(|flag| !has(flag)).collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            return Err(match self.first_given() {
                Some(given) => ConfigError::Incomplete { given, missing },
                None => ConfigError::NoTarget(missing),
            });
        }
        Ok(Connection {
            endpoints: self.endpoint.clone(),
            project: self.project.clone().unwrap_or_else(|| "default".to_owned()),
            token: self.token(env_token)?,
            tls: self.tls()?,
        })
    }
    /// The two volumes.
    ///
    /// # Errors
    /// [`ConfigError`] if one is missing or both are one.
    pub fn volumes(&self) -> Result<Volumes, ConfigError> {
        let given = self.first_given().unwrap_or("nothing");
        let need = |uuid: Option<VolumeUuid>, flag: &str| {
            uuid.ok_or(ConfigError::Incomplete { given, missing: flag.to_owned() })
        };
        let source = need(self.source_uuid, "--source-uuid")?;
        let target = need(self.target_uuid, "--target-uuid")?;
        if source == target {
            return Err(ConfigError::SameVolume(source));
        }
        let (source_device, target_device) =
            (self.source_device.clone(), self.target_device.clone());
        Ok(Volumes { source, target, source_device, target_device })
    }
    fn token(&self, env_token: Option<String>) -> Result<Token, ConfigError> {
        match (&self.jwt, &self.jwt_file, &self.jwt_command) {
            (Some(_), Some(_), _) => Err(ConfigError::Both("--jwt", "--jwt-file")),
            (Some(_), _, Some(_)) => Err(ConfigError::Both("--jwt", "--jwt-command")),
            (_, Some(_), Some(_)) => Err(ConfigError::Both("--jwt-file", "--jwt-command")),
            (Some(token), None, None) => Ok(Token::Flag(Secret(token.clone()))),
            (None, Some(path), None) => Ok(Token::File(path.clone())),
            (None, None, Some(command)) => Ok(Token::Command(command.clone())),
            (None, None, None) => env_token
                .filter(|token| !token.trim().is_empty())
                .map(|token| Token::Environment(Secret(token)))
                .ok_or(ConfigError::NoToken),
        }
    }
    fn tls(&self) -> Result<TlsConfig, ConfigError> {
        if self.insecure && !self.pin_sha256.is_empty() {
            return Err(ConfigError::Both("--insecure", "--pin-sha256"));
        }
        if self.insecure && self.ca_file.is_some() {
            return Err(ConfigError::Both("--insecure", "--ca-file"));
        }
        let (ca_file, pins) = (self.ca_file.clone(), self.pin_sha256.clone());
        Ok(TlsConfig { ca_file, pins, insecure: self.insecure })
    }
}

/// A size: `64GiB`, `2MiB`, `4096`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub ByteLen);

/// A time: `180s`, `3m`, `2h`, `500ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seconds(pub Duration);

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// No size.
    #[error("`{0}` is no size: 4096, 512KiB, 64MiB, 2GiB, 1TiB")]
    Size(String),
    /// No time.
    #[error("`{0}` is no time: 500ms, 180s, 3m, 8h")]
    Time(String),
    /// No time at all.
    #[error("with `{0}` nothing could ever be in time: 500ms, 180s, 3m, 8h")]
    Zero(String),
}

/// `digits` and the factor of the unit that follows them, multiplied.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl Seconds {
    /// A time in which something can happen.
    ///
    /// # Errors
    /// [`BadQuantity`] for what is no time, or none at all.
    pub fn not_zero(text: &str) -> Result<Seconds, BadQuantity> {
        match text.parse()? {
            Seconds(Duration::ZERO) => Err(BadQuantity::Zero(text.to_owned())),
            time => Ok(time),
        }
    }
}

impl FromStr for Size {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Size, BadQuantity> {
        let units =
            [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        let bytes = quantity(text, &units);
        bytes
            .map(|bytes| Size(ByteLen::new(bytes)))
            .ok_or_else(|| BadQuantity::Size(text.to_owned()))
    }
}

impl FromStr for Seconds {
    type Err = BadQuantity;
    fn from_str(text: &str) -> Result<Seconds, BadQuantity> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
        let millis = quantity(text, &units);
        millis
            .map(|millis| Seconds(Duration::from_millis(millis)))
            .ok_or_else(|| BadQuantity::Time(text.to_owned()))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
