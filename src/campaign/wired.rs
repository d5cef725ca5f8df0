//! A case over the wire: the simulator behind its HTTPS server, asked through the same client as a
//! real array. It finds what only JSON and HTTP can get wrong.
//!
//! Server, certificate and connection go from one case to the next; what they serve is the case's
//! own array, and nothing of the case before is remembered on either side, so that a case is the
//! same wherever and after whatever it runs. The data plane stays in this process, and time virtual;
//! blocks are 4 KiB, the API's unit. What the API does not offer (rollback, resize, restart, clones,
//! reading snapshots) is skipped. Not covered: the data plane (`super::embedded`).

use super::case::{CaseOutcome, RUN, run_case, run_on};
use super::inproc::InProcess;
use crate::array::Array;
use crate::block::{BitmapOrder, BlockSize, CloneFullDiff, RollbackKind};
use crate::engine::Event;
use crate::lightbits::{
    BadFingerprint, ClientConfig, ConnectError, Fingerprint, LightbitsClient, Timeouts, TlsConfig,
    Token, TokenError,
};
use crate::model::Model;
use crate::oracle::{Checks, Verdict};
use crate::scenario::Scenario;
use crate::sim::server::{RunningServer, ServeError, ServerConfig, start};
use crate::sim::{SimArray, SimError};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The server or the client of a case cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WiredError {
    /// The header describes no world.
    #[error(transparent)]
    World(#[from] SimError),
    /// No server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The server cannot listen any more.
    #[error("the embedded server cannot listen: {0}")]
    Listen(#[source] std::io::Error),
    /// The server's token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server's certificate has no usable fingerprint.
    #[error(transparent)]
    Pin(#[from] BadFingerprint),
    /// No client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The same scenario as it is run over the wire: blocks of the API's size, nothing that the API does
/// not speak of.
pub fn over_the_wire(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    for shape in scenario.header.volumes.values_mut() {
        shape.block = BlockSize::DEVICE;
    }
    scenario.header.rollback = RollbackKind::Linear;
    scenario.header.clone_full_diff = CloneFullDiff::IncludesParent;
    scenario.header.over_https = true;
    scenario
}

/// A server and its client.
struct Wire {
    server: RunningServer,
    client: LightbitsClient,
}

/// Servers that wait for their next case: as many as there were cases at once.
pub struct Wires {
    stop: Arc<AtomicBool>,
    idle: Mutex<Vec<Wire>>,
}

impl Wires {
    /// No server yet. `stop` ends calls under way.
    pub fn new(stop: Arc<AtomicBool>) -> Wires {
        Wires { stop, idle: Mutex::new(Vec::new()) }
    }

    /// Runs one case as its header says: in this process or over the wire.
    ///
    /// # Errors
    /// [`WiredError`] if the world, the server or the client cannot be set up.
    pub fn run(
        &self,
        scenario: &Scenario,
        checks: Checks,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<CaseOutcome, WiredError> {
        if !scenario.header.over_https {
            return Ok(run_case(scenario, checks, on_event)?);
        }
        let target = InProcess::of_header(&scenario.header, RUN)?;
        let wire = self.wire(target.array())?;
        let mut sut = target.sut();
        let mut model = Model::new(RUN, &target.shapes(), wire.client.capabilities());
        sut.array = &wire.client;
        sut.checks = checks;
        // What one HTTP connection of one client promises is judged as on a simulator.
        let outcome = run_on(scenario, &mut model, &mut sut, on_event);
        drop(sut);
        // Whatever made a case end half-way may still be on its way through that server.
        if !matches!(outcome.verdict, Verdict::Unknown(_)) {
            self.idle().push(wire);
        }
        Ok(outcome)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server of `array` and a client that knows nothing of it.
    fn wire(&self, array: &SimArray) -> Result<Wire, WiredError> {
        // Taken in a statement of its own, or the lock would be held while starting.
        let waiting = self.idle().pop();
        if let Some(wire) = waiting {
            wire.server.serve_instead(array.clone(), &[]).map_err(WiredError::Listen)?;
            wire.client.forget_snapshots();
            return Ok(wire);
        }
        let server = start(array.clone(), ServerConfig::default())?;
        let client = LightbitsClient::connect(ClientConfig {
            endpoints: vec![server.endpoint()],
            project: ServerConfig::default().project,
            token: Token::from_text(&server.token)?,
            tls: TlsConfig {
                ca_file: None,
                pins: vec![server.pin_sha256.parse::<Fingerprint>()?],
                insecure: false,
            },
            bitmap_order: BitmapOrder::Little,
            timeouts: Timeouts::default(),
            stop: Arc::clone(&self.stop),
        })?;
        Ok(Wire { server, client })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Extent, Geometry, LbaCount, Policy, Role};
    use crate::engine::{CaseName, PROFILES, generate};
    use crate::oracle::Kind;
    use crate::scenario::{Header, Label, Op};

    fn scenario(planted: &[&str]) -> Scenario {
        let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let mut header = Header::new(volumes, Policy::Exact, "a test");
        header.planted = planted.iter().map(|&name| name.to_owned()).collect();
        let ops = [
            Op::Write { at: Extent::lbas(63, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Rollback { label: Label(0) },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        over_the_wire(&Scenario::new(header, ops))
    }

    fn wires() -> Wires {
        Wires::new(Arc::new(AtomicBool::new(false)))
    }

    fn on(wires: &Wires, scenario: &Scenario) -> CaseOutcome {
        wires.run(scenario, Checks::ALL, &mut |_| ()).expect("a server and a client")
    }

    #[test]
    fn a_case_is_judged_over_https_as_in_process() {
        let wires = wires();
        let honest = on(&wires, &scenario(&[]));
        assert_eq!((&honest.verdict, honest.ops, honest.diffs), (&Verdict::Pass, 3, 1));
        let planted = scenario(&["bit63-dropped"]);
        assert_eq!(on(&wires, &planted).kind(), Some(Kind::Missed));
        let mut here = planted;
        here.header.over_https = false;
        assert_eq!(on(&wires, &here).kind(), Some(Kind::Missed));
    }

    #[test]
    fn a_case_is_the_same_on_a_new_server_and_on_one_that_served_others() {
        let profile = PROFILES.first().expect("the default");
        let drawn =
            |case| over_the_wire(&generate(profile, CaseName { seed: 7, case: case * 2000 }));
        let used = wires();
        let mut refused_or_lean = 0;
        for case in 0..12u64 {
            let scenario = drawn(case);
            let freedoms = scenario.header.freedoms;
            refused_or_lean += u32::from(freedoms.transient_errors || freedoms.omitted_zeros);
            let (again, fresh) = (on(&used, &scenario), on(&wires(), &scenario));
            assert_eq!(again.verdict, Verdict::Pass, "case {case}");
            assert_eq!((again.digest, again.ops), (fresh.digest, fresh.ops), "case {case}");
        }
        assert_eq!(used.idle().len(), 1, "one after the other on one server");
        assert!(refused_or_lean > 0, "the wire's own freedoms are taken");
    }
}
