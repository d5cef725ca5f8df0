//! `lbaudit sync`: replays one diff from the source device to the target device, through the same
//! guards and the same pipeline as the suite. Not covered: whether the diff was right (`suite`);
//! what was copied is compared, not what the diff left out.

use super::diff::find;
use super::suite::{clean_command, folder};
use crate::array::{Array, BlockDevice, RealClock, Waiting};
use crate::block::{BitmapOrder, CHUNK_LBAS, Lba, LbaCount, LbaSet, Policy, RunId};
use crate::campaign::audit::take;
use crate::campaign::journal::{Journal, Journalled};
use crate::cli::args::{ConsentArgs, Form, OrderArg, OutputArgs, TargetArgs};
use crate::cli::config::{Seconds, Size, VOLUME_FLAGS};
use crate::cli::connect::connect;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::{Context, volumes};
use crate::engine::Ledger;
use crate::model::Model;
use crate::suite::{mib_per_s, seconds};
use crate::sync::{
    ChecksumError, CopyConfig, CopyError, PipelineBugs, Side, WalkRequest, copy, direct, plan, walk,
};
use clap::Args;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Which diff, from where to where.
#[derive(Args, Clone, Debug)]
pub struct SyncArgs {
    /// Which array and volumes.
    #[command(flatten)]
    pub target: TargetArgs,
    /// What may be destroyed there.
    #[command(flatten)]
    pub consent: ConsentArgs,
    /// The snapshot.
    #[arg(long, value_name = "NAME|UUID")]
    pub snapshot: String,
    /// Its base; since creation if absent.
    #[arg(long, value_name = "NAME|UUID")]
    pub base: Option<String>,
    /// Refuse to copy more than this (KiB, MiB, GiB, TiB).
    #[arg(long, value_name = "SIZE", default_value = "64GiB")]
    pub max_full_sync: Size,
    /// Order of the bytes of a bitmap; auto is little.
    #[arg(long, value_name = "ORDER", default_value = "auto")]
    pub bitmap_order: OrderArg,
    /// How long a snapshot of the handshake may take to become Available, or to be gone.
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = Seconds::not_zero)]
    pub available_timeout: Seconds,
    /// Where the result goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    SyncFinished {
        ranges: u64,
        pages: u32,
        lbas: u64,
        seconds: f64,
        mib_per_s: f64,
        runs_compared: usize,
        runs_different: usize,
        lbas_changed_since: u64,
        notes: &'a [String],
        exit_code: u8,
    },
}

/// What a sync did.
struct Done {
    ranges: u64,
    pages: u32,
    lbas: LbaCount,
    took: Duration,
    compared: usize,
    different: usize,
    /// What was copied.
    copied: LbaSet,
    /// What of it was written since the snapshot: the copy has those blocks as they are, not as they
    /// were.
    changed: LbaSet,
    /// What was odd about the answer.
    notes: Vec<String>,
    /// Whether the diff had no base: the copy is whole only on a blank target.
    is_full: bool,
}

/// Copies one diff and compares what was copied.
///
/// # Errors
/// [`Failure`] of guards, handshake, walk or copy.
pub fn run(
    args: &SyncArgs,
    env_token: Option<String>,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let connection = args.target.connection(env_token, &VOLUME_FLAGS)?;
    let wanted = args.target.volumes()?;
    let order = args.bitmap_order.order().unwrap_or(BitmapOrder::Little);
    let client = connect(&connection, order, context)?.client;
    let snapshot = find(&client, &args.snapshot)?;
    let base = args.base.as_ref().map(|base| find(&client, base)).transpose()?;
    if snapshot.volume != wanted.source {
        return Err(Failure::usage(format!(
            "snapshot `{}` is of volume {}, not of the source {}",
            args.snapshot, snapshot.volume, wanted.source
        )));
    }
    if let Some(other) = base.as_ref().filter(|base| base.volume != snapshot.volume) {
        return Err(Failure::usage(format!(
            "base `{}` is of volume {}, not of the source {}: a diff against it says nothing of what to \
             copy",
            other.name, other.volume, wanted.source
        )));
    }
    let opened = volumes::open(&client, &wanted, &args.consent, LbaCount::ZERO, &mut context.ui)?;
    // What a diff without base holds of a clone's past nobody knows (`lightbits-api.md` section 3).
    if base.is_none() && opened.infos[0].is_clone {
        return Err(Failure::usage(format!(
            "{} is a clone: a diff without base may leave out what it had when it was made, so nothing \
             is copied by one; give a --base of it, after a copy of the whole device",
            wanted.source
        )));
    }
    let device = opened.source.len_lbas();
    if snapshot.len > device {
        return Err(Failure::could_not(format!(
            "snapshot `{}` has {} LBAs, the source device only {device}: was the volume shrunk? its \
             copy cannot be read from the device",
            args.snapshot, snapshot.len
        )));
    }
    let shapes = volumes::shapes(&opened.infos, false);
    let run_id = RunId::random();
    let folder = folder(&args.output.run_dir, run_id)?;
    let journal = Journal::create(&folder.path().join("journal.jsonl"), run_id)
        .map_err(|error| Failure::could_not(format!("cannot keep a journal: {error}")))?;
    let array = Journalled::new(&client, &journal);
    let (clock, ledger, stop) = (RealClock::new(), Ledger::new(run_id), context.stop.clone());
    stop.on_second(clean_command(&connection, &wanted, &args.output.run_dir));
    let limit = args.available_timeout.0;
    let waiting = Waiting { available: limit, gone: limit, stop: stop.flag() };
    let port = volumes::RunPort {
        array: &array,
        clock: &clock,
        waiting,
        ledger: &ledger,
        journal: &journal,
        region: None,
    };
    let mut model = Model::new(run_id, &shapes, array.capabilities());
    let ui = &context.ui;
    let armed = volumes::arm(&port, opened, shapes, &mut model, Policy::Chunk, &stop, ui)?;
    for finding in &armed.findings {
        context.ui.say(&format!("handshake: {finding}"));
    }
    for note in &armed.notes {
        context.ui.say(&format!("note: {note}"));
    }
    context.ui.say("note: the live source is read; the copy is that of the snapshot only while nobody writes to it");
    let request = WalkRequest {
        snapshot: snapshot.uuid,
        base: base.map(|base| base.uuid),
        from: Lba::new(0),
        volume_len: snapshot.len,
        strict: false,
        bugs: PipelineBugs::NONE,
        stop: stop.flag(),
    };
    // A diff that was proved wrong on these very devices must not decide what a copy leaves out.
    let done = match armed.findings.len() {
        0 => transfer(&array, &request, args, (&armed.source, &armed.target)).and_then(|done| {
            let changed = changed_since(&port, &request, &done, &armed.rewritten)?;
            Ok(Done { changed, ..done })
        }),
        wrong => Err(distrusted(wrong)),
    };
    volumes::sweep(&port);
    if !ledger.live().is_empty() {
        let command = clean_command(&connection, &wanted, &args.output.run_dir);
        context
            .ui
            .say(&format!("the handshake's snapshots are on the array; to delete them: {command}"));
    }
    Ok(report(&done?, context))
}

/// What of a copy from the live device is not of its snapshot: a snapshot that is taken now knows what
/// has been written since. The chunks of what the handshake wrote over itself do not count.
fn changed_since(
    port: &volumes::RunPort<'_>,
    request: &WalkRequest<'_>,
    done: &Done,
    rewritten: &LbaSet,
) -> Result<LbaSet, Failure> {
    let volume = port.array.snapshot(request.snapshot)?.volume;
    take((port.array, port.clock, port.waiting), port.ledger, volume, (1, Duration::ZERO))?;
    // The newest of this run's.
    let Some(now) = port.ledger.live().pop() else { return Ok(LbaSet::new()) };
    let since = WalkRequest { snapshot: now, base: Some(request.snapshot), ..*request };
    let since = walk(port.array, &since, &mut |_, _| ())?.set;
    let own = rewritten.rounded_out(LbaCount::new(CHUNK_LBAS));
    Ok(done.copied.intersection(&since).difference(&own))
}

/// The diffs of this array were found wrong by the handshake.
fn distrusted(findings: usize) -> Failure {
    let message = format!(
        "the handshake found {findings} wrong answer(s) of this array: nothing was copied, because a \
         copy by its diffs could not be trusted"
    );
    Failure { exit: Exit::Violation, message }
}

fn transfer(
    array: &dyn Array,
    request: &WalkRequest<'_>,
    args: &SyncArgs,
    (source, target): (&dyn BlockDevice, &dyn BlockDevice),
) -> Result<Done, Failure> {
    let start = Instant::now();
    let answer = walk(array, request, &mut |_, _| ())?;
    let lbas = answer.set.count();
    if lbas.nominal_bytes().get() > args.max_full_sync.0.get() {
        return Err(Failure::could_not(format!(
            "the diff holds {:.1} MB, more than --max-full-sync: raise it, or give a --base",
            lbas.nominal_bytes().as_mib()
        )));
    }
    let runs = plan(&answer.chunks, None, PipelineBugs::NONE);
    copy(&runs, source, target, &CopyConfig::default(), None, request.stop)
        .map_err(copy_failure)?;
    let took = start.elapsed();
    let mut different = 0;
    for at in answer.set.runs() {
        let cannot = |error: ChecksumError| Failure::could_not(error.to_string());
        let one = direct(source, *at, request.stop).map_err(cannot)?;
        let two = direct(target, *at, request.stop).map_err(cannot)?;
        different += usize::from(one != two);
    }
    let compared = answer.set.runs().len();
    let (ranges, pages) = (answer.ranges, answer.pages);
    let (copied, notes, is_full) = (answer.set, answer.notes, request.base.is_none());
    let changed = LbaSet::new();
    Ok(Done { ranges, pages, lbas, took, compared, different, copied, changed, notes, is_full })
}

fn copy_failure(error: CopyError) -> Failure {
    let exit = match error {
        CopyError::Interrupted => Exit::Interrupted,
        CopyError::Outside { side: Side::Target, .. } => Exit::Usage,
        _ => Exit::CouldNotTest,
    };
    Failure { exit, message: error.to_string() }
}

/// An empty diff copies nothing and compares nothing: whether it is right was not seen, and code 0
/// says that something was.
fn verdict(done: &Done) -> Exit {
    match (done.different, done.compared) {
        (0, 0) => Exit::CouldNotTest,
        // It is no copy of the snapshot, and nobody's fault.
        (_, _) if !done.changed.is_empty() => Exit::CouldNotTest,
        (0, _) => Exit::Passed,
        _ => Exit::Violation,
    }
}

fn report(done: &Done, context: &mut Context) -> Exit {
    let exit = verdict(done);
    let speed = mib_per_s(done.lbas.nominal_bytes(), done.took);
    match context.ui.form {
        Form::Jsonl => context.ui.event(&Line::SyncFinished {
            ranges: done.ranges,
            pages: done.pages,
            lbas: done.lbas.get(),
            seconds: done.took.as_secs_f64(),
            mib_per_s: speed,
            runs_compared: done.compared,
            runs_different: done.different,
            lbas_changed_since: done.changed.count().get(),
            notes: &done.notes,
            exit_code: exit.code(),
        }),
        Form::Text => {
            let size = done.lbas.nominal_bytes().as_mib();
            context.ui.print(&format!(
                "synced {} ranges / {size:.1} MB in {} → {speed:.1} MB/s",
                done.ranges,
                seconds(done.took)
            ));
            context.ui.print(&match done.different {
                0 if done.compared == 0 => {
                    "nothing was copied or compared: the diff is empty".to_owned()
                }
                0 => format!("all {} runs equal on both devices", done.compared),
                wrong => format!("{wrong} of {} runs differ after the copy", done.compared),
            });
            done.notes.iter().for_each(|text| context.ui.print(&format!("note {text}")));
            if !done.changed.is_empty() {
                context.ui.print(&format!(
                    "NOT A COPY OF THE SNAPSHOT: {} were written since it was taken, and are as they \
                     were a moment ago",
                    done.changed
                ));
            } else if done.is_full {
                context.ui.print(
                    "the diff had no base: the target is a copy if it was blank before; what the diff \
                     leaves out was not looked at",
                );
            }
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::VirtualClock;
    use crate::block::{BlockSize, ByteLen};
    use crate::sim::{SimArray, SimConfig};
    use clap::Parser;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        sync: SyncArgs,
    }

    /// Syncs a volume with LBAs 3 and 64..128 written to an empty one.
    fn synced(max: u64) -> Result<Done, Failure> {
        let mut args = Flags::try_parse_from(["sync", "--snapshot", "s"]).expect("flags").sync;
        args.max_full_sync = Size(ByteLen::new(max));
        let config = SimConfig { block: BlockSize::SMALLEST, ..SimConfig::default() };
        let array = SimArray::new(config, Arc::new(VirtualClock::new()));
        let len = LbaCount::new(256);
        let source = array.create_volume("a", len, None).expect("created");
        let target = array.create_volume("b", len, None).expect("created");
        let devices = [source, target].map(|volume| array.device(volume).expect("attached"));
        devices[0].write_bytes(3 * 64, &[7; 64]).expect("written");
        devices[0].write_bytes(64 * 64, &[8; 64 * 64]).expect("written");
        let snapshot = array.create_snapshot(source, "s").expect("taken").uuid;
        let stop = AtomicBool::new(false);
        let request = WalkRequest {
            snapshot,
            base: None,
            from: Lba::new(0),
            volume_len: len,
            strict: true,
            bugs: PipelineBugs::NONE,
            stop: &stop,
        };
        let done = transfer(&array, &request, &args, (&devices[0], &devices[1]))?;
        let mut copied = [0; 64];
        devices[1].read_bytes(127 * 64, &mut copied).expect("read");
        assert_eq!(copied, [8; 64]);
        Ok(done)
    }

    #[test]
    fn a_sync_copies_the_diff_and_compares_it() {
        let done = synced(1 << 30).expect("synced");
        assert_eq!((done.lbas, done.ranges), (LbaCount::new(65), 2));
        assert_eq!((done.compared, done.different), (2, 0));
    }

    #[test]
    fn findings_forbid_the_copy_and_an_empty_diff_is_no_success() {
        let (refused, mut done) = (distrusted(2), synced(1 << 30).expect("synced"));
        assert_eq!(refused.exit, Exit::Violation);
        assert!(refused.message.contains("nothing was copied"), "{}", refused.message);
        assert_eq!(verdict(&done), Exit::Passed);
        done.compared = 0;
        assert_eq!(verdict(&done), Exit::CouldNotTest);
        done.different = 1;
        assert_eq!(verdict(&done), Exit::Violation);
        done.changed = LbaSet::from(crate::block::Extent::lbas(3, 1));
        assert_eq!(verdict(&done), Exit::CouldNotTest, "nobody knows what it was");
    }

    #[test]
    fn a_diff_that_is_too_big_is_not_copied() {
        let failure = synced(64 << 12).err().expect("refused");
        assert_eq!(failure.exit, Exit::CouldNotTest);
        assert!(failure.message.contains("--max-full-sync"), "{}", failure.message);
    }
}
