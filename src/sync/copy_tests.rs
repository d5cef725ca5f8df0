use super::*;
use crate::block::LbaSet;
use crate::sync::testing::{BLOCK, MemoryDevice};
use proptest::prelude::*;

const LBAS: usize = 400;
static GO_ON: AtomicBool = AtomicBool::new(false);

fn config(workers: usize) -> CopyConfig {
    CopyConfig { workers, bugs: PipelineBugs::NONE }
}

fn planted(bug: PipelineBug) -> CopyConfig {
    CopyConfig { workers: 1, bugs: bug.into() }
}

/// Copies `plan` between fresh devices and returns the target.
#[track_caller]
fn copied(plan: &[Extent], source: &MemoryDevice, config: &CopyConfig) -> MemoryDevice {
    let target = MemoryDevice::new(LBAS);
    copy(plan, source, &target, config, None, &GO_ON).expect("an honest device");
    target
}

proptest! {
    #[test]
    fn exactly_the_planned_lbas_are_copied(
        extents in prop::collection::vec((0u64..320, 1u64..80).prop_map(|(a, n)| Extent::lbas(a, n)), 0..8),
        workers in 0usize..5,
        limit_blocks in 1usize..9,
    ) {
        let plan = LbaSet::from(extents).runs().to_vec();
        let source = MemoryDevice::numbered(LBAS);
        let target = MemoryDevice::new(LBAS).taking_at_most(limit_blocks * BLOCK + 3);
        let progress = AtomicU64::new(0);
        let report = copy(&plan, &source, &target, &config(workers), Some(&progress), &GO_ON)
            .expect("short writes are continued");
        let set = LbaSet::from(plan.clone());
        for lba in 0..LBAS as u64 {
            let expected = if set.contains(Lba::new(lba)) { source.block(lba) } else { vec![0; BLOCK] };
            prop_assert_eq!(target.block(lba), expected, "LBA {}", lba);
        }
        prop_assert_eq!(report, CopyReport { lbas: set.count(), runs: plan.len() });
        prop_assert_eq!(progress.into_inner(), set.count().get());
        prop_assert_eq!(target.flushes.into_inner(), 1);
    }
}

#[test]
fn a_read_error_ends_the_copy_before_the_flush() {
    let source = MemoryDevice::numbered(LBAS).failing_read_at(130);
    let target = MemoryDevice::new(LBAS);
    for workers in [1, 4] {
        let plan = [Extent::lbas(0, 64), Extent::lbas(128, 64), Extent::lbas(200, 8)];
        let result = copy(&plan, &source, &target, &config(workers), None, &GO_ON);
        assert!(matches!(result, Err(CopyError::Read(DeviceError::Io { .. }))), "{result:?}");
    }
    assert_eq!(target.flushes.into_inner(), 0);
}

#[test]
fn with_one_worker_nothing_is_written_after_the_first_error() {
    let source = MemoryDevice::numbered(LBAS);
    let target = MemoryDevice::new(LBAS).failing_write_at(100);
    let plan = [Extent::lbas(0, 64), Extent::lbas(100, 1), Extent::lbas(200, 8)];
    let result = copy(&plan, &source, &target, &config(1), None, &GO_ON);
    assert!(matches!(result, Err(CopyError::Write(DeviceError::Io { .. }))), "{result:?}");
    assert_eq!(target.block(0), source.block(0));
    assert_eq!(target.block(200), vec![0; BLOCK]);
}

#[test]
fn a_failed_flush_fails_the_copy() {
    let (source, target) = (MemoryDevice::numbered(LBAS), MemoryDevice::new(LBAS).failing_flush());
    let result = copy(&[Extent::lbas(0, 1)], &source, &target, &config(1), None, &GO_ON);
    assert!(matches!(result, Err(CopyError::Flush(_))), "{result:?}");
}

#[test]
fn a_device_that_takes_nothing_twice_is_an_error_and_not_a_hang() {
    for taken in [0, BLOCK - 1] {
        let target = MemoryDevice::new(LBAS).taking_at_most(taken);
        let source = MemoryDevice::numbered(LBAS);
        let result = copy(&[Extent::lbas(0, 4)], &source, &target, &config(2), None, &GO_ON);
        assert!(matches!(result, Err(CopyError::Write(DeviceError::Short { .. }))), "{result:?}");
    }
}

#[test]
fn the_stop_flag_ends_the_copy_before_the_next_run() {
    let (source, target) = (MemoryDevice::numbered(LBAS), MemoryDevice::new(LBAS));
    let stop = AtomicBool::new(true);
    for workers in [1, 3] {
        let result = copy(&[Extent::lbas(0, 200)], &source, &target, &config(workers), None, &stop);
        assert!(matches!(result, Err(CopyError::Interrupted)), "{result:?}");
    }
    assert_eq!(source.reads.into_inner(), 0);
    assert_eq!(target.bytes(), MemoryDevice::new(LBAS).bytes());
}

#[test]
fn a_run_that_does_not_fit_is_refused_before_anything_is_written() {
    let (source, small) = (MemoryDevice::numbered(LBAS), MemoryDevice::new(100));
    let plan = [Extent::lbas(0, 10), Extent::lbas(95, 6)];
    let result = copy(&plan, &source, &small, &config(1), None, &GO_ON);
    assert!(
        matches!(result, Err(CopyError::Outside { side: Side::Target, run, .. }) if run == plan[1]),
        "{result:?}"
    );
    let result = copy(&plan, &small, &source, &config(1), None, &GO_ON);
    assert!(matches!(result, Err(CopyError::Outside { side: Side::Source, .. })), "{result:?}");
    assert_eq!(small.bytes(), MemoryDevice::new(100).bytes());
}

#[test]
fn zero_blocks_are_copied_unless_the_bug_is_planted() {
    let source = MemoryDevice::numbered(LBAS);
    source.set_block(1, 0);
    for (config, expected) in [(config(1), 0), (planted(PipelineBug::SkipsZeroBlocks), 7)] {
        let target = MemoryDevice::new(LBAS);
        target.set_block(1, 7);
        let plan = [Extent::lbas(0, 3)];
        copy(&plan, &source, &target, &config, None, &GO_ON).expect("an honest device");
        assert_eq!(target.block(1), vec![expected; BLOCK]);
        assert_eq!((target.block(0), target.block(2)), (source.block(0), source.block(2)));
    }
}

#[test]
fn a_short_write_is_left_short_only_by_the_planted_bug() {
    let source = MemoryDevice::numbered(LBAS);
    let target = MemoryDevice::new(LBAS).taking_at_most(BLOCK);
    let config = planted(PipelineBug::ShortWriteIgnored);
    copy(&[Extent::lbas(0, 2)], &source, &target, &config, None, &GO_ON).expect("no error seen");
    assert_eq!(target.block(0), source.block(0));
    assert_eq!(target.block(1), vec![0; BLOCK]);
}

#[test]
fn the_32_bit_bug_wraps_only_past_4_gib() {
    let source = MemoryDevice::numbered(LBAS);
    let planned = [Extent::lbas(7, 3)];
    let honest = copied(&planned, &source, &config(1)).bytes();
    assert_eq!(copied(&planned, &source, &planted(PipelineBug::SeekOverflow32Bit)).bytes(), honest);
    let stop = AtomicBool::new(false);
    let job = Job {
        plan: &[],
        source: &source,
        target: &source,
        block: BlockSize::SMALLEST,
        bugs: PipelineBug::SeekOverflow32Bit.into(),
        progress: None,
        stop: &stop,
        next_run: AtomicUsize::new(0),
        halted: AtomicBool::new(false),
        first_error: Mutex::new(None),
    };
    let past = Lba::new((1 << 26) + 5);
    assert_eq!(job.offset(past).ok(), Some(ByteOffset::new((1 << 32) + 5 * 64)));
    assert_eq!(job.target_offset(past).ok(), Some(ByteOffset::new(5 * 64)));
}
