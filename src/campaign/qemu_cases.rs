//! Cases on QEMU's own change tracker: each on volumes made for it, on daemons that go from one
//! case to the next.
//!
//! A daemon serves one case at a time, so there are as many as threads. A new daemon for each case
//! would cost more than the case; new volumes cost a few milliseconds and leave nothing of the case
//! before. A daemon whose call failed is stopped, and the case that saw it could not be judged.
//! Not covered: which cases are drawn, and what is done about a finding.

use super::case::{CaseOutcome, run_on};
use crate::array::{Array, RealClock, Waiting};
use crate::block::{BlockSize, Capabilities, Geometry, LbaCount, Role, RunId};
use crate::engine::{DeviceHandle, Event, Ledger, Pipeline, Recorded, Sut, SutVolume};
use crate::model::Model;
use crate::oracle::{Checks, Reason, Verdict};
use crate::qemu::{DataPlane, QemuArray, QemuConfig, QemuError};
use crate::scenario::{Header, Scenario};
use crate::sync::{ChecksumMethod, CopyConfig, PipelineBug};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a snapshot may take to be there and to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Daemons that wait for their next case.
pub struct QemuBench<'b> {
    config: QemuConfig,
    stop: &'b AtomicBool,
    idle: Mutex<Vec<QemuArray>>,
}

impl QemuBench<'_> {
    /// Starts the first daemon, which shows that there is a usable QEMU. Volumes are reached over
    /// NBD, whatever the configuration says.
    ///
    /// # Errors
    /// As [`QemuArray::start`].
    pub fn start(config: QemuConfig, stop: &AtomicBool) -> Result<QemuBench<'_>, QemuError> {
        let config = QemuConfig { data_plane: Some(DataPlane::Nbd), ..config };
        let first = QemuArray::start(config.clone())?;
        Ok(QemuBench { config, stop, idle: Mutex::new(vec![first]) })
    }

    /// Runs one case on new volumes of the sizes that its header wants. QEMU is what it is: a
    /// header's freedoms and planted bugs of an array mean nothing here.
    pub fn run(
        &self,
        scenario: &Scenario,
        record: Recorded,
        on_event: &mut dyn FnMut(Event),
    ) -> CaseOutcome {
        let outcome = volumes(&scenario.header)
            .and_then(|lens| self.ready(&lens))
            .map(|array| self.run_on(array, scenario, record, on_event));
        outcome.unwrap_or_else(|error| CaseOutcome::unknown(Reason::Api(error.to_string())))
    }

    /// What QEMU offers.
    pub fn capabilities(&self) -> Capabilities {
        QemuArray::offers(self.config.page_limit)
    }

    /// Process ids of the daemons that wait.
    pub fn daemon_pids(&self) -> Vec<u32> {
        self.idle().iter().map(QemuArray::daemon_pid).collect()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<QemuArray>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A daemon with nothing but these volumes, empty.
    fn ready(&self, lens: &BTreeMap<Role, LbaCount>) -> Result<QemuArray, QemuError> {
        // Taken in a statement of its own, or the lock would be held while starting.
        let waiting = self.idle().pop();
        let mut array = match waiting {
            Some(array) => array,
            None => QemuArray::start(self.config.clone())?,
        };
        array.renew(lens)?;
        Ok(array)
    }

    fn run_on(
        &self,
        array: QemuArray,
        scenario: &Scenario,
        record: Recorded,
        on_event: &mut dyn FnMut(Event),
    ) -> CaseOutcome {
        let shapes = scenario.header.volumes.iter();
        // Every volume here is new, whatever the header says.
        let shapes: BTreeMap<Role, Geometry> =
            shapes.map(|(role, shape)| (*role, Geometry { fresh: true, ..*shape })).collect();
        let volume = |role: &Role| {
            let (uuid, device) = array.volume_uuid(*role).zip(array.nbd_device(*role))?;
            let device = DeviceHandle::Owned(Box::new(device));
            Some((*role, SutVolume { uuid, device }))
        };
        let (clock, ledger) = (RealClock::new(), Ledger::new(RunId::random()));
        let planted = scenario.header.planted.iter();
        let bugs = planted.filter_map(|name| PipelineBug::from_name(name)).collect();
        let mut sut = Sut {
            array: &array,
            volumes: shapes.keys().filter_map(volume).collect(),
            clock: &clock,
            waiting: Waiting { available: PATIENCE, gone: PATIENCE, stop: self.stop },
            ledger: &ledger,
            pipeline: Pipeline {
                copy: CopyConfig { bugs, ..CopyConfig::default() },
                checksum: ChecksumMethod::Direct,
                limit_to: None,
                max_full_sync: None,
                strict: true,
            },
            in_memory: false,
            checks: Checks::ALL,
            record,
        };
        let mut model = Model::new(ledger.run(), &shapes, array.capabilities());
        let outcome = run_on(scenario, &mut model, &mut sut, on_event);
        drop(sut);
        let failed = matches!(
            outcome.verdict,
            Verdict::Unknown(Reason::Api(_) | Reason::Device(_) | Reason::Tool(_))
        );
        if !failed {
            self.idle().push(array);
        }
        outcome
    }
}

/// Sizes of the volumes, if QEMU can serve such.
fn volumes(header: &Header) -> Result<BTreeMap<Role, LbaCount>, QemuError> {
    let of = |(role, shape): (&Role, &Geometry)| match shape.block {
        BlockSize::DEVICE => Ok((*role, shape.len)),
        other => Err(QemuError::Config(format!(
            "QEMU's volumes have blocks of {} bytes, not of {}: draw by one of the qemu profiles",
            BlockSize::DEVICE.bytes(),
            other.bytes()
        ))),
    };
    header.volumes.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Extent, Policy};
    use crate::engine::{CaseName, Profile, generate};
    use crate::oracle::Kind;
    use crate::qemu::testing::unless_missing;
    use crate::scenario::{Label, Op};
    use rustix::process::{Pid, Signal, kill_process};

    fn bench(stop: &AtomicBool, config: QemuConfig) -> Option<QemuBench<'_>> {
        unless_missing(QemuBench::start(config, stop))
    }

    fn small() -> QemuConfig {
        QemuConfig { size: LbaCount::new(64), page_limit: 3, ..QemuConfig::default() }
    }

    fn drawn(case: u64) -> Scenario {
        let profile = Profile::by_name("qemu").expect("the profile");
        generate(profile, CaseName { seed: 1, case })
    }

    #[test]
    fn cases_on_one_daemon_do_not_see_each_other_and_repeat_themselves() {
        let stop = AtomicBool::new(false);
        let Some(bench) = bench(&stop, small()) else { return };
        let pids = bench.daemon_pids();
        let run = |case| bench.run(&drawn(case), Recorded::Nothing, &mut |_| ());
        let (first, others): (CaseOutcome, Vec<_>) = (run(0), (1..6).map(run).collect());
        for outcome in others.iter().chain([&first]) {
            assert_eq!(outcome.verdict, Verdict::Pass);
            assert!(outcome.ops > 0 && outcome.diffs > 0);
        }
        assert_eq!(run(0).digest, first.digest);
        assert_eq!(bench.daemon_pids(), pids, "still the one daemon");
    }

    #[test]
    fn a_cleared_bitmap_is_found() {
        let stop = AtomicBool::new(false);
        let config = QemuConfig { clear_bitmaps: true, ..small() };
        let Some(bench) = bench(&stop, config) else { return };
        let kinds: Vec<_> = (0..4)
            .map(|case| bench.run(&drawn(case), Recorded::Nothing, &mut |_| ()).kind())
            .collect();
        assert!(kinds.contains(&Some(Kind::Missed)), "{kinds:?}");
    }

    #[test]
    fn a_daemon_that_dies_is_no_finding_and_the_next_case_gets_another() {
        let stop = AtomicBool::new(false);
        let Some(bench) = bench(&stop, small()) else { return };
        let pid = bench.daemon_pids()[0];
        let die = |event: Event| {
            if matches!(event, Event::Taken { .. }) {
                let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
                kill_process(pid.expect("not zero"), Signal::KILL).expect("it can be killed");
            }
        };
        let shape = Geometry { block: BlockSize::DEVICE, len: LbaCount::new(256), fresh: true };
        let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
        let ops = [
            Op::Write { at: Extent::lbas(63, 1) },
            Op::Take { label: Label(0), wait: true },
            Op::Diff { snap: Label(0), base: None, from: Default::default(), between_pages: None },
        ];
        let scenario = Scenario::new(Header::new(volumes, Policy::Exact, "a test"), ops);
        let mut once = Some(die);
        let outcome = bench.run(&scenario, Recorded::Nothing, &mut |event| {
            if let Some(die) = once.take_if(|_| matches!(event, Event::Taken { .. })) {
                die(event);
            }
        });
        assert!(matches!(outcome.verdict, Verdict::Unknown(Reason::Api(_))), "{outcome:?}");
        assert_eq!(bench.daemon_pids(), [0u32; 0], "the dead one is not used again");
        let again = bench.run(&scenario, Recorded::Nothing, &mut |_| ());
        assert_eq!(again.verdict, Verdict::Pass);
    }

    #[test]
    fn volumes_that_qemu_cannot_serve_are_refused_in_words() {
        let mut scenario = drawn(0);
        for shape in scenario.header.volumes.values_mut() {
            shape.block = BlockSize::SMALLEST;
        }
        let refused = volumes(&scenario.header).expect_err("blocks of another size");
        assert!(refused.to_string().contains("qemu profiles"), "{refused}");
    }
}
