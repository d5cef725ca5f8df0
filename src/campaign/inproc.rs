//! A simulated array inside this process: no files, no server, virtual time, small blocks.
//!
//! Not covered: the wire. What only HTTP can get wrong is not tested here.

use crate::array::{Clock, VirtualClock, Waiting};
use crate::block::{BlockSize, Geometry, LbaCount, Policy, Role, RunId, VolumeUuid};
use crate::engine::{DeviceHandle, Ledger, Pipeline, Recorded, Sut, SutVolume};
use crate::model::Model;
use crate::oracle::Checks;
use crate::scenario::{Header, SyncSource};
use crate::sim::{Bug, SimArray, SimConfig, SimError};
use crate::suite::Options;
use crate::sync::{ChecksumMethod, CopyConfig, PipelineBug, PipelineBugs};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Deadline of every wait, in virtual time: longer than any legal lateness.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long the simulated array takes to make and to delete a snapshot, in virtual time.
const DELAY: Duration = Duration::from_millis(2);

/// What to simulate.
#[derive(Clone, Debug)]
pub struct InProcessConfig {
    /// Size of both volumes.
    pub len: LbaCount,
    /// Bytes of one LBA.
    pub block: BlockSize,
    /// Ranges of one diff page at most.
    pub page_limit: u32,
    /// Planted bugs of the array.
    pub array_bugs: Vec<Bug>,
    /// Planted bugs of the pipeline.
    pub pipeline_bugs: PipelineBugs,
}

/// A simulated array with its volumes and everything a scenario needs.
pub struct InProcess {
    shapes: BTreeMap<Role, Geometry>,
    pipeline_bugs: PipelineBugs,
    array: SimArray,
    clock: Arc<VirtualClock>,
    ledger: Ledger,
    volumes: BTreeMap<Role, VolumeUuid>,
    stop: AtomicBool,
}

impl InProcess {
    /// Sets the array up, with an empty source and target.
    ///
    /// # Errors
    /// The simulator's, if the size is none.
    pub fn new(config: InProcessConfig, run: RunId) -> Result<InProcess, SimError> {
        let shape = Geometry { block: config.block, len: config.len, fresh: true };
        let shapes = [(Role::Source, shape), (Role::Target, shape)].into();
        let sim = SimConfig {
            block: config.block,
            page_limit: config.page_limit,
            bugs: config.array_bugs,
            ..SimConfig::default()
        };
        InProcess::build(sim, shapes, config.pipeline_bugs, run)
    }

    /// The world that a scenario's header describes: volumes and their past, page limit, freedoms,
    /// planted bugs of both sides. All volumes have the source's block size. Names of bugs that
    /// nobody knows plant nothing; the command line refuses them earlier.
    ///
    /// # Errors
    /// The simulator's, if a size is none.
    pub fn of_header(header: &Header, run: RunId) -> Result<InProcess, SimError> {
        let source = header.volumes.get(&Role::Source);
        let sim = SimConfig {
            block: source.map_or(BlockSize::SMALLEST, |shape| shape.block),
            page_limit: header.page_limit.unwrap_or(10_000),
            clone_full_diff: header.clone_full_diff,
            rollback: header.rollback,
            bugs: header.planted.iter().filter_map(|name| Bug::from_name(name)).collect(),
            freedoms: header.freedoms,
            contents: header.contents,
            ..SimConfig::default()
        };
        let pipeline_bugs =
            header.planted.iter().filter_map(|name| PipelineBug::from_name(name)).collect();
        let made = InProcess::build(sim, header.volumes.clone(), pipeline_bugs, run)?;
        for (role, uuid) in &made.volumes {
            if made.shapes.get(role).is_some_and(|shape| !shape.fresh) {
                let which = Role::ALL.iter().position(|known| known == role).unwrap_or(0);
                made.array.age(*uuid, header.freedoms.seed.wrapping_add(which as u64))?;
            }
        }
        Ok(made)
    }

    fn build(
        sim: SimConfig,
        shapes: BTreeMap<Role, Geometry>,
        pipeline_bugs: PipelineBugs,
        run: RunId,
    ) -> Result<InProcess, SimError> {
        let clock = Arc::new(VirtualClock::new());
        let sim = SimConfig {
            create_delay: DELAY,
            delete_delay: DELAY,
            partial_diff_while_creating: pipeline_bugs.has(PipelineBug::ReadsBeforeAvailable),
            ..sim
        };
        let array = SimArray::new(sim, clock.clone());
        let mut volumes = BTreeMap::new();
        for (role, shape) in &shapes {
            let name = match role {
                Role::Source => "vol-src",
                Role::Target => "vol-dst",
                Role::Neighbour => "vol-nbr",
                Role::Clone => "vol-cln",
            };
            volumes.insert(*role, array.create_volume(name, shape.len, None)?);
        }
        let (stop, ledger) = (AtomicBool::new(false), Ledger::new(run));
        Ok(InProcess { shapes, pipeline_bugs, array, clock, ledger, volumes, stop })
    }

    /// The simulated array itself.
    pub fn array(&self) -> &SimArray {
        &self.array
    }

    /// Set to stop whatever runs here.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Shapes of the volumes.
    pub fn shapes(&self) -> BTreeMap<Role, Geometry> {
        self.shapes.clone()
    }

    /// A shadow model of the array as it was set up.
    pub fn model(&self) -> Model {
        let capabilities = crate::array::Array::capabilities(&self.array);
        Model::new(self.ledger.run(), &self.shapes, capabilities)
    }

    /// The array as a system under test.
    pub fn sut(&self) -> Sut<'_> {
        let device = |uuid: &VolumeUuid| {
            let device = self.array.device(*uuid).ok()?;
            Some(SutVolume { uuid: *uuid, device: DeviceHandle::Owned(Box::new(device)) })
        };
        let volumes = self.volumes.iter().filter_map(|(role, uuid)| Some((*role, device(uuid)?)));
        let clock: &dyn Clock = self.clock.as_ref();
        Sut {
            array: &self.array,
            volumes: volumes.collect(),
            clock,
            waiting: Waiting { available: PATIENCE, gone: PATIENCE, stop: &self.stop },
            ledger: &self.ledger,
            pipeline: Pipeline {
                copy: CopyConfig { workers: 1, bugs: self.pipeline_bugs },
                checksum: ChecksumMethod::Direct,
                limit_to: None,
                max_full_sync: None,
                strict: true,
            },
            in_memory: true,
            checks: Checks::ALL,
            record: Recorded::Nothing,
        }
    }

    /// How the fixed suite runs here.
    pub fn suite_options(&self) -> Options {
        Options {
            volumes: self.shapes(),
            policy: Policy::Exact,
            source: SyncSource::Snapshot,
            min_mib_per_s: 10,
            keep_snapshots: false,
            fail_fast: false,
            stop_budget: PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::run_case;
    use super::*;
    use crate::block::{CloneFullDiff, Extent, Freedoms, Lba, RollbackKind};
    use crate::oracle::Verdict;
    use crate::scenario::{Label, Op, Scenario};

    fn header() -> Header {
        let block = BlockSize::SMALLEST;
        let shape = |len, fresh| Geometry { block, len: LbaCount::new(len), fresh };
        let volumes = [
            (Role::Source, shape(645, false)),
            (Role::Target, shape(700, false)),
            (Role::Neighbour, shape(100, true)),
        ];
        Header { page_limit: Some(2), ..Header::new(volumes.into(), Policy::Chunk, "a test") }
    }

    #[test]
    fn each_volume_has_its_own_size_and_past() {
        let target = InProcess::of_header(&header(), RunId::from_u128(1)).expect("sets up");
        let sut = target.sut();
        for (role, shape) in &header().volumes {
            let device = sut.volumes.get(role).expect("is there").device();
            assert_eq!(device.len_lbas(), shape.len);
            let mut bytes = vec![0; 100 * 64];
            device.read_at(crate::block::ByteOffset::new(0), &mut bytes).expect("reads");
            assert_eq!(bytes.iter().all(|&byte| byte == 0), shape.fresh, "{role}");
        }
        let header = Header {
            rollback: RollbackKind::Forks,
            clone_full_diff: CloneFullDiff::SinceClone,
            ..header()
        };
        let target = InProcess::of_header(&header, RunId::from_u128(1)).expect("sets up");
        let capabilities = crate::array::Array::capabilities(target.array());
        assert_eq!(capabilities.rollback, RollbackKind::Forks);
        assert_eq!(capabilities.clone_full_diff, Some(CloneFullDiff::SinceClone));
        assert_eq!(capabilities.page_limit, Some(2));
    }

    #[test]
    fn an_honest_array_with_every_freedom_passes() {
        let write = |start, lbas| Op::Write { at: Extent::lbas(start, lbas) };
        let take = |label| Op::Take { label: Label(label), wait: true };
        let diff = |snap, base: Option<u32>| Op::Diff {
            snap: Label(snap),
            base: base.map(Label),
            from: Lba::new(0),
            between_pages: None,
        };
        let sync = |snap, base: Option<u32>| Op::Sync {
            snap: Label(snap),
            base: base.map(Label),
            from: SyncSource::Snapshot,
            during: Vec::new(),
        };
        let ops = vec![
            take(0),
            write(3, 70),
            take(1),
            Op::Rewrite { at: Extent::lbas(3, 40) },
            write(400, 9),
            Op::On { volume: Role::Neighbour, op: Box::new(write(3, 1)) },
            take(2),
            diff(1, Some(0)),
            diff(2, Some(1)),
            diff(2, Some(0)),
            diff(2, Some(0)),
            sync(2, None),
            Op::Discard { at: Extent::lbas(0, 300) },
            take(3),
            Op::Delete { label: Label(2), wait: true },
            diff(3, None),
            sync(3, Some(1)),
        ];
        for seed in 0..60 {
            let freedoms = Freedoms {
                seed,
                chunk_rounded: true,
                elide_same_content: true,
                late_available: true,
                late_cut: true,
                slow_delete: true,
                uneven_pages: true,
                repeated_edges: true,
                ..Freedoms::NONE
            };
            let scenario = Scenario::new(Header { freedoms, ..header() }, ops.clone());
            let outcome = run_case(&scenario, Checks::ALL, &mut |_| ()).expect("sets up");
            assert_eq!(outcome.verdict, Verdict::Pass, "seed {seed}");
        }
    }
}
