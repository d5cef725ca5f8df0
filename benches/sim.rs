//! The simulator's share of an operation: nanoseconds per write, take, diff and case set-up.
//!
//! `cargo bench --bench sim`. Prints figures and judges nothing. Not covered: the model, the oracle
//! and the interpreter, whose share comes on top.

#![expect(clippy::print_stdout, reason = "a bench reports to the person who runs it")]

use lbaudit::array::{Array, BlockDevice, Clock, VirtualClock};
use lbaudit::block::{
    BlockSize, ByteOffset, Freedoms, Lba, LbaCount, RunId, SnapshotName, SnapshotUuid, VolumeUuid,
};
use lbaudit::sim::{SimArray, SimConfig, SimDevice};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// 64 TiB of 4 KiB blocks; nothing may cost by the volume's size.
const LEN: LbaCount = LbaCount::new((64 << 40) / 4096);
const DELAY: Duration = Duration::from_millis(10);
/// Short rounds and their fastest tenth: what it costs when nobody else has the core.
const ROUNDS: usize = 1000;
/// Cases of one round.
const CASES: u32 = 20;
/// Operations of one kind in a case.
const WRITES: u32 = 32;
const SNAPSHOTS: u32 = 8;
const RUN: RunId = RunId::from_u128(1);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    // `cargo test --all-targets` starts benches too, without this argument.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    println!("fastest tenth of {ROUNDS} rounds of {CASES} cases; nanoseconds per operation");
    println!(
        "{:32} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "set-up", "write", "take", "diff", "delete"
    );
    let all = Freedoms {
        seed: 1,
        chunk_rounded: true,
        elide_same_content: true,
        late_available: true,
        late_cut: true,
        slow_delete: true,
        uneven_pages: true,
        repeated_edges: true,
        ..Freedoms::NONE
    };
    for (name, contents, freedoms) in [
        ("bounds (no contents)", false, Freedoms::NONE),
        ("contents", true, Freedoms::NONE),
        ("contents, every freedom", true, all),
    ] {
        let mut figures: [Vec<f64>; 5] = Default::default();
        for _ in 0..ROUNDS {
            let mut spent = [Duration::ZERO; 5];
            for case in 0..CASES {
                one_case(u64::from(case), contents, freedoms, &mut spent)?;
            }
            let counts = [1, WRITES, SNAPSHOTS, SNAPSHOTS, SNAPSHOTS];
            for ((figures, spent), count) in figures.iter_mut().zip(spent).zip(counts) {
                figures.push(spent.as_secs_f64() * 1e9 / f64::from(CASES * count));
            }
        }
        let tenth = |figures: &mut Vec<f64>| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 10]
        };
        let [set_up, write, take, diff, delete] = figures.each_mut().map(tenth);
        println!("{name:32} {set_up:8.0} {write:8.0} {take:8.0} {diff:8.0} {delete:8.0}");
    }
    Ok(())
}

/// Adds the time that `work` takes.
fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *spent += start.elapsed();
    done
}

struct Rig {
    clock: Arc<VirtualClock>,
    array: SimArray,
    source: VolumeUuid,
    device: SimDevice,
}

fn rig(contents: bool, freedoms: Freedoms) -> Outcome<Rig> {
    let clock = Arc::new(VirtualClock::new());
    let config = SimConfig {
        block: BlockSize::SMALLEST,
        create_delay: DELAY,
        delete_delay: DELAY,
        contents,
        freedoms,
        ..SimConfig::default()
    };
    let array = SimArray::new(config, clock.clone());
    let source = array.create_volume("vol-src", LEN, None)?;
    array.create_volume("vol-dst", LEN, None)?;
    let device = array.device(source)?;
    Ok(Rig { clock, array, source, device })
}

/// Writes, takes, diffs and deletes in turn, as a random case does; waiting is sleeping on a virtual
/// clock.
fn one_case(
    seed: u64,
    contents: bool,
    freedoms: Freedoms,
    spent: &mut [Duration; 5],
) -> Outcome<()> {
    let [set_up, write, take, diff, delete] = spent;
    let rig = timed(set_up, || rig(contents, freedoms))?;
    let (array, device): (&dyn Array, &dyn BlockDevice) = (&rig.array, &rig.device);
    let block = [7; 64 * 8];
    let mut taken: Vec<SnapshotUuid> = Vec::new();
    let mut lba = seed;
    for number in 0..SNAPSHOTS {
        timed(write, || -> Outcome<()> {
            for _ in 0..WRITES.div_ceil(SNAPSHOTS) {
                lba = lba.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) % 4096;
                device.write_at(ByteOffset::new(lba * 64), &block)?;
            }
            Ok(())
        })?;
        let made = timed(take, || -> Outcome<SnapshotUuid> {
            let made = array.create_snapshot(rig.source, SnapshotName::new(RUN, number))?.uuid;
            rig.clock.sleep(Duration::from_secs(60));
            black_box(array.snapshot(made)?);
            Ok(made)
        })?;
        timed(diff, || array.diff_page(made, taken.last().copied(), Lba::new(0)).map(black_box))?;
        taken.push(made);
    }
    timed(delete, || taken.iter().try_for_each(|snapshot| array.delete_snapshot(*snapshot)))?;
    Ok(())
}
