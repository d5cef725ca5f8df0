//! One run: the canonical scenario through server and client, with faults, a deadline and a look at
//! what is left afterwards.
//!
//! Not covered: whether what it came to may be (`super::judge`).

use super::super::inproc::InProcess;
use super::super::journal::{Journal, JournalError, Journalled, Records, read};
use crate::array::{ApiError, Array, Waiting, delete_and_wait};
use crate::block::{BitmapOrder, Role, RunId, VolumeUuid};
use crate::engine::{Event, Sut, run};
use crate::lightbits::{
    BadFingerprint, ClientConfig, ConnectError, Fingerprint, LightbitsClient, Timeouts, TlsConfig,
    Token, TokenError,
};
use crate::model::Model;
use crate::oracle::Verdict;
use crate::scenario::{Label, Op, Scenario};
use crate::sim::hostile::{FaultSpec, MetFault};
use crate::sim::server::{RunningServer, ServeError, ServerConfig, start};
use crate::sim::wire::Profile;
use crate::sim::{SimArray, SimError, SimSnapshotState};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use tempfile::TempDir;

/// Fixed: a run with the same faults is the same run.
const RUN: RunId = RunId::from_u128(4);
/// Deadline of the waits for a state, in virtual time: longer than any lateness of a fault that is
/// merely slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How the client waits: long enough for an answer on a busy machine, short enough for thousands of
/// runs in which none comes.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    call: Duration::from_millis(500),
    diff: Duration::from_millis(500),
    total: Duration::from_millis(1500),
    closing: Duration::from_millis(400),
    hurry: 50,
};

/// The self-test itself cannot go on; says nothing about the tool under test.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// No array.
    #[error(transparent)]
    Array(#[from] SimError),
    /// No server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The server's token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server's certificate has no usable fingerprint.
    #[error(transparent)]
    Pin(#[from] BadFingerprint),
    /// No client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No journal, or no thread, or the server cannot listen again.
    #[error("the self-test cannot go on: {0}")]
    Io(#[from] io::Error),
    /// The journal cannot be read back.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Puts something between the tool and its client; for a look at whether the alarm rings.
pub type Wrapper = for<'a> fn(&'a dyn Array) -> Box<dyn Array + 'a>;

/// What was really compared in a run, step by step: equal to an honest run's, or something is
/// missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// Steps that were run and not skipped, by their place.
    pub steps: Vec<usize>,
    /// Diffs answered, and how many LBAs each reported.
    pub diffs: Vec<(Label, Option<Label>, u64)>,
    /// Diffs refused.
    pub refused: Vec<(Label, Option<Label>)>,
    /// LBAs that each sync copied.
    pub copied: Vec<u64>,
}

impl Compared {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Step { index, .. } => self.steps.push(*index),
            Event::Skipped { .. } => drop(self.steps.pop()),
            Event::Diffed { snap, base, lbas, .. } => self.diffs.push((*snap, *base, lbas.get())),
            Event::Refused { snap, base, .. } => self.refused.push((*snap, *base)),
            Event::Synced { lbas, .. } => self.copied.push(lbas.get()),
            _ => {}
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub enum Ran {
    /// It ended.
    Ended(Box<Ended>),
    /// It panicked, with these words.
    Panicked(String),
    /// It did not end within its deadline; it was given up.
    Hung,
}

/// A run that ended.
#[derive(Debug)]
pub struct Ended {
    /// What the oracle says.
    pub verdict: Verdict,
    /// The step it was at when it stopped.
    pub at: Option<Op>,
    /// What was compared.
    pub compared: Compared,
    /// The faults of the wire that happened before the verdict.
    pub met: Vec<MetFault>,
    /// The faults of the data plane that happened, with how often.
    pub met_data: Vec<(FaultSpec, u32)>,
    /// How many faults happened in all, those while cleaning up included.
    pub met_in_all: u64,
    /// Snapshots that are on the array and in no list.
    pub unlisted: Vec<String>,
    /// Snapshots that are on the array and listed.
    pub listed: usize,
}

/// A server that serves one run after the other, and where their journals go.
pub struct FaultRig {
    server: RunningServer,
    folder: TempDir,
    runs: AtomicU64,
    deadline: Duration,
    wrapper: Option<Wrapper>,
}

impl FaultRig {
    /// A server. Each run gets `deadline`.
    ///
    /// # Errors
    /// [`RigError`].
    pub fn new(deadline: Duration, wrapper: Option<Wrapper>) -> Result<FaultRig, RigError> {
        let nothing = InProcess::of_header(&super::canonical().header, RUN)?;
        // Zeros are written, so that a fault can leave them out.
        let config = ServerConfig { profile: Profile::B, ..ServerConfig::default() };
        let server = start(nothing.array().clone(), config)?;
        let folder = tempfile::Builder::new().prefix("lbaudit-faults-").tempdir()?;
        Ok(FaultRig { server, folder, runs: AtomicU64::new(0), deadline, wrapper })
    }

    /// Runs the scenario once with these faults. After [`Ran::Hung`] the rig must not be used again:
    /// the run may still be on its way through its server.
    ///
    /// # Errors
    /// [`RigError`]: the self-test cannot go on.
    pub fn run(self: &Arc<FaultRig>, faults: &[FaultSpec]) -> Result<Ran, RigError> {
        let (ended, ends) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (rig, faults, theirs) = (Arc::clone(self), faults.to_vec(), Arc::clone(&stop));
        let run = move || {
            let ran = catch_unwind(AssertUnwindSafe(|| rig.run_here(&faults, &theirs)));
            // Nobody listens after the deadline.
            let _given_up = ended.send(ran);
        };
        let thread = std::thread::Builder::new().name("fault-run".to_owned()).spawn(run)?;
        match ends.recv_timeout(self.deadline) {
            Ok(ran) => {
                let _ended = thread.join();
                match ran {
                    Ok(ended) => ended.map(|ended| Ran::Ended(Box::new(ended))),
                    Err(panic) => Ok(Ran::Panicked(words_of(panic.as_ref()))),
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                stop.store(true, Ordering::Relaxed);
                Ok(Ran::Hung)
            }
        }
    }

    fn client(&self, stop: &Arc<AtomicBool>) -> Result<LightbitsClient, RigError> {
        Ok(LightbitsClient::connect(ClientConfig {
            endpoints: vec![self.server.endpoint()],
            project: ServerConfig::default().project,
            token: Token::from_text(&self.server.token)?,
            tls: TlsConfig {
                ca_file: None,
                pins: vec![self.server.pin_sha256.parse::<Fingerprint>()?],
                insecure: false,
            },
            bitmap_order: BitmapOrder::Little,
            timeouts: TIMEOUTS,
            stop: Arc::clone(stop),
        })?)
    }

    fn run_here(&self, faults: &[FaultSpec], stop: &Arc<AtomicBool>) -> Result<Ended, RigError> {
        let scenario = super::canonical();
        let target = InProcess::of_header(&scenario.header, RUN)?;
        let mut sut = target.sut();
        let uuids = |role: Role| sut.volumes.get(&role).map(|volume| volume.uuid);
        let armed = arm(target.array(), faults, uuids)?;
        self.server.serve_instead(target.array().clone(), faults)?;
        let client = self.client(stop)?;
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("journal-{number}.jsonl"));
        let journal = Journal::create(&path, RUN)?;
        let journalled = Journalled::new(&client, &journal);
        let wrapped = self.wrapper.map(|wrap| wrap(&journalled));
        sut.array = wrapped.as_deref().unwrap_or(&journalled);
        sut.waiting = Waiting { available: PATIENCE, gone: PATIENCE, stop };
        let mut model = Model::new(RUN, &target.shapes(), client.capabilities());

        let (compared, at, verdict) = run_scenario(&scenario, &mut model, &mut sut);
        let met = self.server.faults_met();
        let met_data: Vec<(FaultSpec, u32)> = armed
            .iter()
            .map(|(spec, volume)| (*spec, target.array().faults_met(*volume)))
            .collect();
        clean_up(&sut);
        let in_all = self.server.faults_met().len() as u64;
        let of_data = armed.iter().map(|(_, volume)| u64::from(target.array().faults_met(*volume)));
        let met_in_all = in_all + of_data.sum::<u64>();
        let records = read(&path)?;
        let _removed = std::fs::remove_file(&path);
        let (listed, unlisted) = left_on(target.array(), &records);
        Ok(Ended { verdict, at, compared, met, met_data, met_in_all, unlisted, listed })
    }
}

fn run_scenario(
    scenario: &Scenario,
    model: &mut Model,
    sut: &mut Sut<'_>,
) -> (Compared, Option<Op>, Verdict) {
    let (mut compared, mut at) = (Compared::default(), None);
    let verdict = run(scenario, model, sut, &mut |event| {
        compared.event(&event);
        if let Event::Step { op, .. } = event {
            at = Some(op);
        }
    });
    (compared, at, verdict)
}

/// Arms the faults of the data plane, each with its volume.
fn arm(
    array: &SimArray,
    faults: &[FaultSpec],
    uuid: impl Fn(Role) -> Option<VolumeUuid>,
) -> Result<Vec<(FaultSpec, VolumeUuid)>, RigError> {
    let mut armed = Vec::new();
    for spec in faults {
        if let FaultSpec::Data { fault, volume, when } = spec
            && let Some(volume) = uuid(*volume)
        {
            array.arm(volume, *fault, *when)?;
            armed.push((*spec, volume));
        }
    }
    Ok(armed)
}

/// Deletes what the run took, until the array no longer answers.
fn clean_up(sut: &Sut<'_>) {
    for snapshot in sut.ledger.live() {
        match delete_and_wait(sut.array, sut.clock, snapshot, sut.waiting) {
            Ok(()) => sut.ledger.gone(snapshot),
            // The others would fail in the same way, one deadline after the other.
            Err(ApiError::Transport { .. } | ApiError::Server(..)) => return,
            Err(_) => {}
        }
    }
}

/// How many snapshots the array has that the journal lists, and the names of the others.
fn left_on(array: &SimArray, records: &Records) -> (usize, Vec<String>) {
    let listed = |name: &str, volume: VolumeUuid| {
        records.open.iter().any(|open| open.name.to_string() == name && open.volume == volume)
    };
    let left = array.snapshots();
    // One that is on its way out is as good as gone.
    let left = left.iter().filter(|s| s.state != SimSnapshotState::Deleting);
    let (known, unknown): (Vec<_>, Vec<_>) = left.partition(|s| listed(&s.name, s.volume));
    (known.len(), unknown.into_iter().map(|snapshot| snapshot.name.clone()).collect())
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_owned())
}
