//! Our copy against `dd` with direct I/O, in turn on one pair of loop devices backed by tmpfs.
//!
//! `cargo bench --bench copy` as root. Prints medians and their ratio and judges nothing: absolute
//! times are not stable, and even ratios move by a quarter on a busy machine (`performance.md`).
//! The loop devices detach themselves when this process ends, however it ends, and their backing
//! files have no name. Not covered: real disks, where the disk decides and not the copier.

#![expect(clippy::print_stdout, reason = "a bench reports to the person who runs it")]

use lbaudit::array::{AlignedBuf, BlockDevice, DeviceError};
use lbaudit::block::{BlockSize, ByteOffset, Extent, Lba, LbaCount, LbaSet};
use lbaudit::device::ioctl;
use lbaudit::sync::{ChecksumMethod, CopyConfig, DEFAULT_WORKERS, PipelineBugs, RUN_LBAS_MAX};
use lbaudit::sync::{copy, digest};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const SIZE: LbaCount = LbaCount::mib(512);
const ROUNDS: usize = 7;
/// Tries to get a loop device before somebody else does.
const LOOP_TRIES: usize = 20;
static GO_ON: AtomicBool = AtomicBool::new(false);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    // `cargo test --all-targets` starts benches too, without this argument.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root can make loop devices; run this bench as root");
        return Ok(());
    }
    let source = LoopDevice::new(1)?;
    let target = LoopDevice::new(2)?;
    let mib = SIZE.nominal_bytes().as_mib();
    println!("{mib:.0} MiB of {} to {}, final flush included", source.name(), target.name());
    println!("median of {ROUNDS} rounds, every copier in turn in each round\n");
    contiguous(&source, &target)?;
    scattered(&source, &target)
}

/// One way to copy.
enum Copier {
    /// Ours, with this many workers.
    Ours(usize),
    /// `dd` with direct I/O and blocks of 1 MiB.
    Dd,
}

fn contiguous(source: &LoopDevice, target: &LoopDevice) -> Outcome<()> {
    let whole = Extent::new(Lba::new(0), SIZE).ok_or("an empty bench")?;
    let plan: Vec<Extent> = whole.pieces(RUN_LBAS_MAX).collect();
    let copiers = [1, 4, DEFAULT_WORKERS, 16, 32].map(Copier::Ours);
    let copiers: Vec<Copier> = copiers.into_iter().chain([Copier::Dd]).collect();
    let seconds = compare(&copiers, &plan, source, target)?;
    let dd = *seconds.last().ok_or("no copier")?;
    println!("contiguous, {} runs of 256 KiB", plan.len());
    report(&copiers, &seconds, SIZE);
    for (copier, time) in copiers.iter().zip(&seconds) {
        if matches!(copier, Copier::Ours(DEFAULT_WORKERS)) {
            println!("  ratio to dd: {:.2} (at least 1.00 wanted)\n", dd / time);
        }
    }
    let ours = |device| digest(ChecksumMethod::Direct, device, whole, &GO_ON);
    let (read, copied) = (ours(source)?, ours(target)?);
    let by_dd = digest(ChecksumMethod::External, target, whole, &GO_ON)?;
    if read == copied && copied == by_dd {
        return Ok(());
    }
    Err(format!("digests differ: source {read}, target {copied}, target by dd {by_dd}").into())
}

fn scattered(source: &LoopDevice, target: &LoopDevice) -> Outcome<()> {
    let mut set = LbaSet::new();
    let (mut at, mut random) = (0, 1u64);
    while at + 32 < SIZE.get() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let len = 1 + (random >> 40) % 16;
        set.insert(Extent::lbas(at, len));
        at += len + 1 + (random >> 50) % 8;
    }
    let copiers = [1, 4, DEFAULT_WORKERS, 16, 32].map(Copier::Ours);
    let seconds = compare(&copiers, set.runs(), source, target)?;
    println!("scattered, {} runs of 4 to 64 KiB", set.runs().len());
    report(&copiers, &seconds, set.count());
    Ok(())
}

/// Median seconds of each copier.
fn compare(
    copiers: &[Copier],
    plan: &[Extent],
    source: &LoopDevice,
    target: &LoopDevice,
) -> Outcome<Vec<f64>> {
    let mut times = vec![Vec::new(); copiers.len()];
    for round in 0..=ROUNDS {
        for turn in 0..copiers.len() {
            // Another copier goes first in each round, so that none is always warm.
            let index = (turn + round) % copiers.len();
            let time = run(&copiers[index], plan, source, target)?;
            // The first round only warms up.
            if round > 0 {
                times[index].push(time.as_secs_f64());
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn run(
    copier: &Copier,
    plan: &[Extent],
    source: &LoopDevice,
    target: &LoopDevice,
) -> Outcome<Duration> {
    let start = Instant::now();
    match copier {
        Copier::Ours(workers) => {
            let config = CopyConfig { workers: *workers, bugs: PipelineBugs::NONE };
            copy(plan, source, target, &config, None, &GO_ON)?;
        }
        Copier::Dd => {
            let status = Command::new("dd")
                .arg(format!("if={}", source.path.display()))
                .arg(format!("of={}", target.path.display()))
                .args(["bs=1M", "iflag=direct", "oflag=direct", "conv=fsync,notrunc"])
                .stderr(Stdio::null())
                .status()?;
            if !status.success() {
                return Err(format!("dd failed: {status}").into());
            }
        }
    }
    Ok(start.elapsed())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(copiers: &[Copier], seconds: &[f64], copied: LbaCount) {
    for (copier, time) in copiers.iter().zip(seconds) {
        let name = match copier {
            Copier::Ours(workers) => format!("lbaudit, {workers:2} workers"),
            Copier::Dd => "dd bs=1M direct".to_owned(),
        };
        let rate = copied.nominal_bytes().as_mib() / time;
        println!("  {name:20} {:8.1} ms {rate:8.0} MiB/s", time * 1000.0);
    }
}

/// A loop device with direct I/O on a nameless file in memory.
struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// A device full of bytes drawn from `seed`.
    fn new(seed: u64) -> Outcome<LoopDevice> {
        let mut backing = tempfile::tempfile_in("/dev/shm")?;
        let mut block = AlignedBuf::new(1 << 20);
        let mut random = seed;
        for _ in 0..SIZE.nominal_bytes().get() >> 20 {
            for word in block.chunks_exact_mut(8) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                word.copy_from_slice(&random.to_le_bytes());
            }
            backing.write_all(&block)?;
        }
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        for _ in 0..LOOP_TRIES {
            let path = PathBuf::from(format!("/dev/loop{}", ioctl::loop_get_free(&control)?));
            // The kernel makes the node a moment after it gave the number.
            let Ok(device) = open_direct(&path) else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            if ioctl::loop_configure(&device, &backing, 4096).is_ok() {
                return Ok(LoopDevice { device, path });
            }
        }
        Err("no free loop device".into())
    }

    fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)
}

impl BlockDevice for LoopDevice {
    fn block_size(&self) -> BlockSize {
        BlockSize::DEVICE
    }
    fn len_lbas(&self) -> LbaCount {
        SIZE
    }
    fn read_at(&self, at: ByteOffset, buf: &mut [u8]) -> Result<(), DeviceError> {
        let read = self.device.read_exact_at(buf, at.get());
        read.map_err(|source| DeviceError::Io { op: "read", at, source })
    }
    fn write_at(&self, at: ByteOffset, buf: &[u8]) -> Result<usize, DeviceError> {
        let written = self.device.write_at(buf, at.get());
        written.map_err(|source| DeviceError::Io { op: "write", at, source })
    }
    fn write_zeroes(&self, _: Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("write-zeroes"))
    }
    fn discard(&self, _: Lba, _: LbaCount) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("discard"))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        let flushed = self.device.sync_data();
        flushed.map_err(|source| DeviceError::Io { op: "flush", at: ByteOffset::new(0), source })
    }
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
