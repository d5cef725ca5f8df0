//! A case over the wire: the simulator behind its HTTPS server, asked through the same client as a
//! real array. Slow (a server, a certificate and a connection for each case), and it finds what only
//! JSON and HTTP can get wrong.
//!
//! The data plane stays in this process, and time virtual; blocks are 4 KiB, the API's unit. What
//! the API does not offer (rollback, resize, restart, clones, reading snapshots) is skipped. Not covered: the
//! data plane (`super::embedded`).

use super::case::{CaseOutcome, RUN, run_on};
use super::inproc::InProcess;
use crate::array::Array;
use crate::block::{BitmapOrder, BlockSize, CloneFullDiff, RollbackKind};
use crate::engine::Event;
use crate::lightbits::{
    BadFingerprint, ClientConfig, ConnectError, Fingerprint, LightbitsClient, Timeouts, TlsConfig,
    Token, TokenError,
};
use crate::model::Model;
use crate::oracle::Checks;
use crate::scenario::Scenario;
use crate::sim::SimError;
use crate::sim::server::{ServeError, ServerConfig, start};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The server or the client of a case cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum WiredError {
    /// The header describes no world.
    #[error(transparent)]
    World(#[from] SimError),
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
}

/// The same scenario as it can be run over the wire: blocks of the API's size, nothing that the API
/// does not speak of.
pub fn over_the_wire(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    for shape in scenario.header.volumes.values_mut() {
        shape.block = BlockSize::DEVICE;
    }
    scenario.header.rollback = RollbackKind::Linear;
    scenario.header.clone_full_diff = CloneFullDiff::IncludesParent;
    scenario
}

/// Runs one case, already fit for the wire, through a server and a client of its own.
///
/// # Errors
/// [`WiredError`] if they cannot be set up.
pub fn run_wired(
    scenario: &Scenario,
    checks: Checks,
    stop: &Arc<AtomicBool>,
    on_event: &mut dyn FnMut(Event),
) -> Result<CaseOutcome, WiredError> {
    let target = InProcess::of_header(&scenario.header, RUN)?;
    let server = start(target.array().clone(), ServerConfig::default())?;
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
        stop: Arc::clone(stop),
    })?;
    let mut sut = target.sut();
    let mut model = Model::new(RUN, &target.shapes(), client.capabilities());
    sut.array = &client;
    sut.checks = checks;
    // What one HTTP connection of one client promises is judged as on a simulator.
    Ok(run_on(scenario, &mut model, &mut sut, on_event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Extent, Geometry, LbaCount, Policy, Role};
    use crate::oracle::{Kind, Verdict};
    use crate::scenario::{Header, Label, Op};

    fn over_https(planted: &[&str]) -> CaseOutcome {
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
        let scenario = over_the_wire(&Scenario::new(header, ops));
        let stop = Arc::new(AtomicBool::new(false));
        run_wired(&scenario, Checks::ALL, &stop, &mut |_| ()).expect("a server and a client")
    }

    #[test]
    fn a_case_is_judged_over_https_as_in_process() {
        let honest = over_https(&[]);
        assert_eq!((&honest.verdict, honest.ops, honest.diffs), (&Verdict::Pass, 3, 1));
        assert_eq!(over_https(&["bit63-dropped"]).kind(), Some(Kind::Missed));
        assert_eq!(honest.digest, over_https(&[]).digest, "a case repeats itself");
    }
}
