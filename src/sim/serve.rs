//! `sim serve`: the simulator as a process of its own, with its volumes attached.
//!
//! Puts together array, HTTPS server and attached volumes, says where they are, waits to be told to
//! stop, and takes everything away again. Not covered: arguments and printing (`crate::cli`), and
//! the parent's side of an embedded server (`crate::campaign::embedded`).

use super::attach::{AttachError, AttachKind, Attachment};
use super::fuse::{ByteVolume, Files, Later, VolumeFile};
use super::hostile::FaultSpec;
use super::server::{self, RunningServer, ServerConfig};
use super::wire::Profile;
use super::{Bug, Preload, SimArray, SimConfig, SimError};
use crate::array::RealClock;
use crate::block::{BlockSize, LbaCount, Role, VolumeUuid};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// How often the wish to stop is looked at.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Long enough for a diff over HTTPS to find a new snapshot still Creating.
const LONG_CREATING: Duration = Duration::from_secs(1);

/// What to serve and how.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen; port 0 asks for a free one. Loopback only.
    pub listen: SocketAddr,
    /// Size of every volume in bytes: whole blocks of 4096.
    pub size_bytes: u64,
    /// How the volumes become paths.
    pub attach: AttachKind,
    /// Ranges of one diff page at most.
    pub page_limit: u32,
    /// Planted bugs; empty means honest.
    pub bugs: Vec<Bug>,
    /// How JSON is written.
    pub profile: Profile,
    /// The one project there is.
    pub project: String,
    /// Whether there is a third volume, a bystander.
    pub neighbour: bool,
    /// LBAs of the source that count as written before the snapshot `preload`, which is then taken.
    pub preload: Option<Preload>,
    /// Whether the diff of a snapshot still Creating is answered, with the first half of its
    /// ranges, instead of refused; new snapshots then stay Creating for a second at least.
    pub partial_while_creating: bool,
    /// How long a new snapshot stays Creating, and a deleted one Deleting.
    pub delay: Duration,
    /// What goes wrong, on the wire and on the volumes.
    pub faults: Vec<FaultSpec>,
}

impl Default for ServeConfig {
    /// The defaults of the command line: a free port of 127.0.0.1, two volumes of 2 GiB, an honest
    /// array that takes 10 ms over its snapshots.
    fn default() -> ServeConfig {
        let server = ServerConfig::default();
        ServeConfig {
            listen: server.listen,
            size_bytes: 2 << 30,
            attach: AttachKind::Auto,
            page_limit: SimConfig::default().page_limit,
            bugs: Vec::new(),
            profile: server.profile,
            project: server.project,
            neighbour: false,
            preload: None,
            partial_while_creating: false,
            delay: Duration::from_millis(10),
            faults: Vec::new(),
        }
    }
}

/// The one line that `sim serve` prints (`cli.md`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Version of this line: 1.
    pub v: u32,
    /// URL of the API.
    pub endpoint: String,
    /// SHA-256 of the server's certificate, hexadecimal.
    pub pin_sha256: String,
    /// File with the authority of the certificate, PEM.
    pub ca_file: PathBuf,
    /// File with a token.
    pub jwt_file: PathBuf,
    /// The project.
    pub project: String,
    /// Source, target and perhaps neighbour.
    pub volumes: Vec<ReadyVolume>,
    /// What did not work as well as it might have, for the user; not part of the line.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A volume in [`Ready`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadyVolume {
    /// What it is for.
    pub role: Role,
    /// Its name on the array.
    pub name: String,
    /// Its identity on the array.
    pub uuid: VolumeUuid,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where it is attached; `None` when volumes are not attached.
    pub device: Option<PathBuf>,
}

/// The simulator could not be served, or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No volume can have this size.
    #[error("a volume cannot have {0} bytes; --size takes a multiple of 4096 above zero")]
    Size(u64),
    /// A fault is to happen on a volume that there is not.
    #[error("there is no {0} volume that could fail; --neighbour adds one")]
    NoVolume(Role),
    /// The array refused its volumes.
    #[error("cannot set up the simulated array: {0}")]
    Array(#[from] SimError),
    /// The server cannot be started.
    #[error(transparent)]
    Server(#[from] server::ServeError),
    /// Certificate and token cannot be written, or not removed.
    #[error("cannot keep certificate and token in a temporary folder: {0}")]
    Files(#[source] io::Error),
    /// The volumes cannot be attached or detached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// A flag that SIGINT, SIGTERM and SIGHUP raise; with `with_parent` also the end of this process's
/// parent, which is seen at the end of standard input (and the kernel sends SIGTERM).
///
/// # Errors
/// If the system refuses the handlers.
pub fn stop_flag(with_parent: bool) -> io::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if with_parent {
        // A parent that died before this line is no race: its end of the pipe is closed by now.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        let stop = Arc::clone(&stop);
        std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
            wait_for_end(io::stdin().lock());
            stop.store(true, Ordering::Relaxed);
        })?;
    }
    Ok(stop)
}

/// Reads until nothing comes any more.
fn wait_for_end(mut input: impl Read) {
    let mut ignored = [0; 256];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

/// Serves a simulated array, calls `ready` once everything is there, and takes it all away when
/// `stop` is raised.
///
/// # Errors
/// [`ServeError`]: what was already there is taken away first. After the stop: the first thing that
/// could not be taken away.
pub fn serve(
    config: &ServeConfig,
    ready: &mut dyn FnMut(&Ready),
    stop: &AtomicBool,
) -> Result<(), ServeError> {
    let (array, mut volumes) = set_up(config)?;
    let server_config = ServerConfig {
        listen: config.listen,
        project: config.project.clone(),
        profile: config.profile,
        faults: config.faults.clone(),
    };
    let server = server::start(array.clone(), server_config)?;
    let secrets = Secrets::write(&server).map_err(ServeError::Files)?;
    let files = volumes.iter().map(|volume| {
        let name = format!("{}-{}", volume.role, volume.uuid);
        Ok(VolumeFile { name, volume: Arc::new(array.device(volume.uuid)?) })
    });
    let files = Files::from(files.collect::<Result<Vec<_>, SimError>>()?);
    let attachment = Attachment::new(files.and_later(clones_of(&array)), config.attach)?;
    for (volume, path) in volumes.iter_mut().zip(attachment.paths()) {
        volume.device = Some(path.clone());
    }
    // Whatever attaching them read is not counted.
    for fault in &config.faults {
        arm(&array, &volumes, *fault)?;
    }
    ready(&Ready {
        v: 1,
        endpoint: server.endpoint(),
        pin_sha256: server.pin_sha256.clone(),
        ca_file: secrets.ca_file.clone(),
        jwt_file: secrets.jwt_file.clone(),
        project: config.project.clone(),
        volumes,
        notes: attachment.notes().to_vec(),
    });
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STOP_POLL);
    }
    let detached = attachment.detach().map_err(ServeError::Attach);
    server.stop();
    let removed = secrets.folder.close().map_err(ServeError::Files);
    detached.and(removed)
}

/// Arms a fault of a volume's data plane; those of the wire are the server's.
fn arm(array: &SimArray, volumes: &[ReadyVolume], fault: FaultSpec) -> Result<(), ServeError> {
    let FaultSpec::Data { fault, volume, when } = fault else { return Ok(()) };
    let of = volumes.iter().find(|known| known.role == volume);
    let of = of.ok_or(ServeError::NoVolume(volume))?;
    Ok(array.arm(of.uuid, fault, when)?)
}

/// The clones that there are whenever somebody looks, as files beside the volumes.
fn clones_of(array: &SimArray) -> Later {
    let array = array.clone();
    Arc::new(move |name| {
        let (role, uuid) = name.split_once('-')?;
        let uuid: VolumeUuid = uuid.parse().ok().filter(|_| role == Role::Clone.to_string())?;
        array.volume(uuid)?.source_snapshot?;
        Some(Arc::new(array.device(uuid).ok()?) as Arc<dyn ByteVolume>)
    })
}

/// The array and its volumes, not attached yet.
fn set_up(config: &ServeConfig) -> Result<(SimArray, Vec<ReadyVolume>), ServeError> {
    let block = BlockSize::DEVICE;
    if config.size_bytes == 0 || !config.size_bytes.is_multiple_of(block.bytes()) {
        return Err(ServeError::Size(config.size_bytes));
    }
    let array = SimArray::new(
        SimConfig {
            block,
            page_limit: config.page_limit,
            create_delay: match config.partial_while_creating {
                true => config.delay.max(LONG_CREATING),
                false => config.delay,
            },
            partial_diff_while_creating: config.partial_while_creating,
            delete_delay: config.delay,
            bugs: config.bugs.clone(),
            ..SimConfig::default()
        },
        Arc::new(RealClock::new()),
    );
    let mut wanted = vec![(Role::Source, "vol-src"), (Role::Target, "vol-dst")];
    if config.neighbour {
        wanted.push((Role::Neighbour, "vol-neighbour"));
    }
    let len = LbaCount::new(config.size_bytes / block.bytes());
    let mut volumes = Vec::new();
    for (role, name) in wanted {
        let uuid = array.create_volume(name, len, Some(VolumeUuid::random()))?;
        let name = name.to_owned();
        volumes.push(ReadyVolume { role, name, uuid, size_bytes: config.size_bytes, device: None });
    }
    if let (Some(preload), Some(source)) = (config.preload, volumes.first()) {
        array.preload(source.uuid, preload)?;
        array.create_snapshot(source.uuid, "preload")?;
    }
    Ok((array, volumes))
}

/// Certificate and token as files that only this user can read; removed with the folder.
#[derive(Debug)]
struct Secrets {
    folder: TempDir,
    ca_file: PathBuf,
    jwt_file: PathBuf,
}

impl Secrets {
    fn write(server: &RunningServer) -> io::Result<Secrets> {
        let folder = tempfile::Builder::new()
            .prefix("lbaudit-serve-")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()?;
        let ca_file = folder.path().join("ca.pem");
        let jwt_file = folder.path().join("token.jwt");
        private_file(&ca_file)?.write_all(server.ca_pem.as_bytes())?;
        private_file(&jwt_file)?.write_all(server.token.as_bytes())?;
        Ok(Secrets { folder, ca_file, jwt_file })
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
