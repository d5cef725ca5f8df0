//! `audit`: the laws of `oracle.md` section 6 on snapshots that are there already, of a volume that
//! this tool never wrote. It only asks for diffs and reads images; it writes nothing, takes and
//! deletes a snapshot only where the user allows it ([`take`], [`Doomed`]), and knows no model, so what
//! it finds is a contradiction between the array's own answers, or between an answer and an image.
//!
//! Snapshots do not change, so every answer stays comparable with every other, whoever writes the
//! volume meanwhile. Somebody who deletes a snapshot in mid-audit is nobody's wrong answer. Memory is
//! bounded: an answer of more runs than [`Audit::runs_kept`] goes by; it is held to its shape and to
//! its own repetition, and a note says that nothing else was compared with it. Not covered: what the
//! array knows and tells nobody about; a change that every diff leaves out is seen only with an image.

use crate::array::{
    ApiError, Array, BlockDevice, Clock, DeviceError, SnapshotInfo, SnapshotState, Waiting,
    delete_and_wait, wait_available,
};
use crate::block::{ByteOffset, Extent, Lba, LbaCount, LbaSet, Policy, SnapshotUuid, VolumeUuid};
use crate::engine::Ledger;
use crate::model::Expected;
use crate::oracle::{
    CheckId, Checks, Kind, Reason, Violation, asked, judge_answered, judge_gone_middle,
    judge_offset_walk, judge_refused, judge_repeat, judge_triangle,
};
use crate::scenario::Label;
use crate::sync::{PipelineBugs, WalkError, WalkRequest, walk_streaming};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The laws that an audit asks about.
pub const AUDIT_CHECKS: [CheckId; 7] = [
    CheckId::Shape,
    CheckId::Answered,
    CheckId::Refused,
    CheckId::Repeat,
    CheckId::Triangle,
    CheckId::OffsetWalk,
    CheckId::Unreported,
];

/// How often a wait looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// LBAs of an image read at once.
const READ_LBAS: LbaCount = LbaCount::new(256);

/// Runs of one answer that are kept: 16 MiB. With the 49 questions of 16 snapshots that is 784 MiB
/// at the very worst.
pub const RUNS_KEPT: usize = 1 << 20;

/// One of this run's own snapshots, which the audit may delete to ask about a base that is gone.
pub struct Doomed<'a> {
    /// Its place, neither the first nor the last.
    pub place: usize,
    /// For the wait until it is gone.
    pub clock: &'a dyn Clock,
    /// How long that may take.
    pub waiting: Waiting<'a>,
}

/// What to audit. `Label(n)` in every violation is the `n`th snapshot.
pub struct Audit<'a> {
    /// The control plane; only looked at.
    pub array: &'a dyn Array,
    /// Available snapshots of one volume, oldest first.
    pub snapshots: &'a [SnapshotInfo],
    /// A snapshot of another volume: a base that must be refused.
    pub foreign: Option<SnapshotUuid>,
    /// How exact the answers must be: the triangle law holds under `exact` only.
    pub policy: Policy,
    /// Which laws to hold the answers against.
    pub checks: Checks,
    /// Whether disorder inside a page and pad bits are violations.
    pub strict: bool,
    /// Images of snapshots, by their place: devices of clones, of which nothing but reading is asked.
    pub images: BTreeMap<usize, &'a dyn BlockDevice>,
    /// Whether the snapshots are known to lie on one chain in this order. Where nobody knows the
    /// volume's history a pair may rightly be refused: it may have been rolled back between them.
    pub one_chain: bool,
    /// Whether the images are known to be of these snapshots. What differs from an image that
    /// nobody proved says nothing about the array.
    pub images_proved: bool,
    /// Whether a diff without base holds only what came after the volume was cloned: then the images
    /// say nothing of it.
    pub since_clone: bool,
    /// All Available snapshots of the volume when the audit began, sorted; `None` if nobody else can
    /// change them.
    pub chain: Option<&'a [SnapshotUuid]>,
    /// A snapshot that may be deleted at the end.
    pub doomed: Option<Doomed<'a>>,
    /// Runs of one answer that are kept, see [`RUNS_KEPT`].
    pub runs_kept: usize,
    /// Set when the user asked to stop.
    pub stop: &'a AtomicBool,
}

/// Takes `count` snapshots with `every` between them, for others to write in, and waits until each is
/// Available. The caller deletes them: they are in the ledger.
///
/// # Errors
/// What the array answered; those taken until then are in the ledger.
pub fn take(
    (array, clock, waiting): (&dyn Array, &dyn Clock, Waiting<'_>),
    ledger: &Ledger,
    volume: VolumeUuid,
    (count, every): (u32, Duration),
) -> Result<(), ApiError> {
    for nth in 0..count {
        let until = clock.now() + if nth > 0 { every } else { Duration::ZERO };
        while clock.now() < until {
            if waiting.stop.load(Ordering::Relaxed) {
                return Err(ApiError::Interrupted);
            }
            clock.sleep(LOOK_EVERY.min(until.saturating_sub(clock.now())));
        }
        let made = array.create_snapshot(volume, ledger.next_name())?;
        ledger.made(made.uuid);
        wait_available(array, clock, made.uuid, waiting)?;
    }
    Ok(())
}

/// What an audit came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audited {
    /// Diffs that were answered.
    pub answered: u64,
    /// Diffs that were rightly refused.
    pub refused: u64,
    /// Comparisons made: answers with answers, answers with images.
    pub compared: u64,
    /// Blocks of images that were read.
    pub blocks_read: u64,
    /// Questions about a pair of snapshots.
    pub pairs_asked: u64,
    /// Those that were answered.
    pub pairs_answered: u64,
    /// Differences to images that nobody proved.
    pub unproved: u64,
    /// Images that were not compared with an answer, because that was too long to keep.
    pub uncompared: u64,
    /// Contradictions that do not count, because the volume's snapshots changed meanwhile.
    pub changed: u64,
    /// What contradicts what.
    pub violations: Vec<Violation>,
    /// What is odd but legal, each thing once.
    pub notes: Vec<String>,
}

/// Snapshot and base by their places.
type Pair = (usize, Option<usize>);

/// Everything that was said so far.
struct Auditing<'p, 'a> {
    plan: &'p Audit<'a>,
    done: Audited,
    answers: BTreeMap<Pair, LbaSet>,
    /// The volume's snapshots as they have to be now.
    chain: Option<Vec<SnapshotUuid>>,
}

/// One answer as it went by.
struct Walked {
    /// What it reports; of an answer that is not whole, its beginning.
    set: LbaSet,
    /// Whether that is all.
    is_whole: bool,
    /// Of every chunk and bitmap, in order.
    digest: [u8; 32],
}

impl Audit<'_> {
    /// Asks everything and compares. What it came to until then is told also where it could not be
    /// told to the end, for a fault of the network or of a device or because the user asked to stop:
    /// the reason comes with it.
    pub fn run(&self) -> (Audited, Option<Reason>) {
        let chain = self.chain.map(<[SnapshotUuid]>::to_vec);
        let mut auditing =
            Auditing { plan: self, done: Audited::default(), answers: BTreeMap::new(), chain };
        let ended = auditing.all();
        auditing.done.violations.sort_by_key(|violation| violation.kind);
        (auditing.done, ended.err())
    }
}

fn label(place: usize) -> Label {
    Label(u32::try_from(place).unwrap_or(u32::MAX))
}

fn unknown(error: ApiError) -> Reason {
    match error {
        ApiError::Interrupted => Reason::Interrupted,
        other => Reason::Api(other.to_string()),
    }
}

fn of_device(error: DeviceError) -> Reason {
    match error {
        DeviceError::Interrupted => Reason::Interrupted,
        other => Reason::Device(other.to_string()),
    }
}

impl Auditing<'_, '_> {
    fn all(&mut self) -> Result<(), Reason> {
        self.diffs()?;
        self.refusals()?;
        self.triangles();
        self.images()?;
        self.gone_base()
    }

    /// Whether the volume's snapshots are still those that were there, and Available: if not, answers
    /// may rightly differ from before.
    fn is_unchanged(&mut self) -> Result<bool, Reason> {
        let now = self.plan.array.snapshots().map_err(unknown)?;
        let volume = self.plan.snapshots.first().map(|info| info.volume);
        let mut own: Vec<SnapshotUuid> = now
            .iter()
            .filter(|info| Some(info.volume) == volume && info.state == SnapshotState::Available)
            .map(|info| info.uuid)
            .collect();
        own.sort_unstable();
        let same = self.chain.as_ref().is_none_or(|before| *before == own);
        if !same {
            self.done.changed += 1;
            let text = "the volume's snapshots changed in mid-audit: what differs since then says \
                        nothing of the array; run it again";
            note(&mut self.done.notes, text.to_owned());
        }
        Ok(same)
    }

    /// Every snapshot since creation, against the one before, against the one before that, and the
    /// newest against the oldest: each asked twice, and once more from the middle.
    fn diffs(&mut self) -> Result<(), Reason> {
        let count = self.plan.snapshots.len();
        let mut pairs: Vec<Pair> = (0..count)
            .flat_map(|snap| {
                let bases =
                    [Some(None), snap.checked_sub(1).map(Some), snap.checked_sub(2).map(Some)];
                bases.into_iter().flatten().map(move |base| (snap, base))
            })
            .collect();
        pairs.extend(count.checked_sub(1).filter(|last| *last > 2).map(|last| (last, Some(0))));
        for pair in pairs {
            let is_pair = u64::from(pair.1.is_some());
            self.done.pairs_asked += is_pair;
            let Some(whole) = self.ask(pair, Lba::new(0), false)? else { continue };
            self.done.pairs_answered += is_pair;
            if let Some(again) = self.ask(pair, Lba::new(0), true)? {
                let found = repeated(pair, &whole, &again);
                self.held_if_unchanged(CheckId::Repeat, found)?;
            }
            if !whole.is_whole {
                let text = format!(
                    "{} has more than {} run(s): held to its shape and to its repetition, not compared \
                     with other answers or images",
                    asked(label(pair.0), pair.1.map(label)),
                    self.plan.runs_kept
                );
                note(&mut self.done.notes, text);
                let has_image = |place| self.plan.images.contains_key(&place);
                self.done.uncompared +=
                    u64::from(has_image(pair.0) && pair.1.is_none_or(has_image));
                continue;
            }
            let whole = whole.set;
            for from in inside(&whole, self.plan.snapshots[pair.0].len) {
                if let Some(walked) = self.ask(pair, from, true)? {
                    let found = judge_offset_walk(named(pair), from, &whole, &walked.set);
                    self.held_if_unchanged(CheckId::OffsetWalk, found)?;
                }
            }
            self.answers.insert(pair, whole);
        }
        Ok(())
    }

    /// Law 1: what must be refused is.
    fn refusals(&mut self) -> Result<(), Reason> {
        let Some(last) = self.plan.snapshots.len().checked_sub(1) else { return Ok(()) };
        let snap = self.plan.snapshots[last].uuid;
        let nobody = SnapshotUuid::random();
        let named = label(last);
        let itself = asked(named, Some(named));
        let [of_nobody, of_other] = ["nobody's", "another volume's"]
            .map(|whose| format!("diff({named}) with {whose} snapshot as its base"));
        let nobodys = format!("the diff of a snapshot that is not there, base {named},");
        let mut wrong = vec![
            (snap, snap, &itself, "the snapshot is its own base"),
            (snap, nobody, &of_nobody, "there is no such base"),
            (nobody, snap, &nobodys, "there is no such snapshot"),
        ];
        let foreign = self.plan.foreign;
        wrong
            .extend(foreign.map(|other| (snap, other, &of_other, "the base is of another volume")));
        for (snapshot, base, question, why) in wrong {
            self.refusal(last, (snapshot, base), question, why)?;
        }
        Ok(())
    }

    /// One question that must be refused. `last` is the snapshot that is named in a violation.
    fn refusal(
        &mut self,
        last: usize,
        (snapshot, base): (SnapshotUuid, SnapshotUuid),
        question: &str,
        why: &'static str,
    ) -> Result<(), Reason> {
        let len = self.plan.snapshots[last].len;
        match self.walk((snapshot, Some(base)), len, Lba::new(0)) {
            Ok(reported) => {
                self.done.answered += 1;
                let found = judge_answered(question, &Expected::Refusal(why), &reported.set);
                self.held(CheckId::Answered, found.map(|v| v.about(label(last), None)));
            }
            Err(WalkError::Api(ApiError::NotFound(_) | ApiError::Refused(_))) => {
                self.done.refused += 1;
                self.done.compared += 1;
            }
            Err(WalkError::Api(error)) => return Err(unknown(error)),
            // It was answered, and badly.
            Err(WalkError::Shape(fault)) => {
                let sentence = format!("{question} was answered although {why}, and {fault}");
                let found = Violation::new(Kind::Refusal, sentence).about(label(last), None);
                self.held(CheckId::Answered, Some(found));
            }
        }
        Ok(())
    }

    /// Laws 1 and 4 about a snapshot in the middle that is deleted: as a base it must be refused, and
    /// the diff across it still holds what it held, as far as answers are exact.
    fn gone_base(&mut self) -> Result<(), Reason> {
        let Some(Doomed { place, clock, waiting }) = &self.plan.doomed else { return Ok(()) };
        let (array, after) = (self.plan.array, place + 1);
        let (Some(gone), Some(snap), Some(before)) =
            (self.plan.snapshots.get(*place), self.plan.snapshots.get(after), place.checked_sub(1))
        else {
            return Ok(());
        };
        delete_and_wait(array, *clock, gone.uuid, *waiting).map_err(unknown)?;
        if let Some(chain) = &mut self.chain {
            chain.retain(|uuid| *uuid != gone.uuid);
        }
        let question = format!("diff({}) with a deleted base", label(after));
        self.refusal(after, (snap.uuid, gone.uuid), &question, "the base has been deleted")?;
        let across = (after, Some(before));
        let Some(then) = self.answers.get(&across).cloned() else { return Ok(()) };
        let Some(now) = self.ask(across, Lba::new(0), true)?.filter(|now| now.is_whole) else {
            return Ok(());
        };
        match judge_gone_middle(named(across), label(*place), &then, &now.set) {
            Some(lost) if self.plan.policy != Policy::Exact => {
                let text = format!("{} (legal unless answers are exact)", lost.sentence);
                note(&mut self.done.notes, text);
            }
            found => self.held(CheckId::Repeat, found),
        }
        Ok(())
    }

    /// Law 4 over every three answers that hang together.
    fn triangles(&mut self) {
        let mut found = Vec::new();
        let mut compared = 0;
        for (&(snap, base), long) in &self.answers {
            let after = base.map_or(0, |base| base + 1);
            for middle in after..snap {
                let sides =
                    (self.answers.get(&(middle, base)), self.answers.get(&(snap, Some(middle))));
                let (Some(first), Some(second)) = sides else { continue };
                compared += 1;
                let between = (label(middle), self.plan.snapshots[middle].len);
                let (pair, sides) = (named((snap, base)), (long, first, second));
                match judge_triangle(pair, between, sides) {
                    Some(extra) if self.plan.policy == Policy::Exact => found.push(extra),
                    Some(extra) => {
                        note(
                            &mut self.done.notes,
                            format!("{} (legal unless answers are exact)", extra.sentence),
                        );
                    }
                    None => {}
                }
            }
        }
        if self.plan.checks.has(CheckId::Triangle) {
            self.done.compared += compared;
            self.done.violations.extend(found);
        }
    }

    /// Law 5: what a diff without base leaves out is zeros, and what a diff between two images leaves
    /// out is the same in both.
    fn images(&mut self) -> Result<(), Reason> {
        if !self.plan.checks.has(CheckId::Unreported) {
            return Ok(());
        }
        let pairs: Vec<(Pair, LbaSet)> =
            self.answers.iter().map(|(pair, set)| (*pair, set.clone())).collect();
        for ((snap, base), reported) in pairs {
            let Some(image) = self.plan.images.get(&snap) else { continue };
            let before = match base {
                None if self.plan.since_clone => continue,
                None => None,
                Some(base) => match self.plan.images.get(&base) {
                    Some(before) => Some((*before, self.plan.snapshots[base].len)),
                    None => continue,
                },
            };
            let whole = Extent::new(Lba::new(0), self.plan.snapshots[snap].len);
            let left_out = whole.map(LbaSet::from).unwrap_or_default().difference(&reported);
            let wrong = match before {
                None => self.differing(*image, None, &left_out)?,
                Some((before, len)) => {
                    // What lies above the end of a smaller base has come since, if it is no zeros.
                    let both = Extent::new(Lba::new(0), len);
                    let both = both.map(|both| left_out.within(both)).unwrap_or_default();
                    let above = self.differing(*image, None, &left_out.difference(&both))?;
                    self.differing(*image, Some(before), &both)?.union(&above)
                }
            };
            self.done.compared += 1;
            if wrong.is_empty() {
                continue;
            }
            if !self.plan.images_proved {
                self.done.unproved += 1;
                let text = format!(
                    "difference to an unproved image at {wrong}: nothing says that the device holds \
                     the image of {}",
                    label(snap)
                );
                note(&mut self.done.notes, text);
                continue;
            }
            let (snap, base) = named((snap, base));
            let sentence = match base {
                None => format!(
                    "{wrong} of the image of {snap} are not zeros, diff({snap}) without base does not \
                     report them"
                ),
                Some(base) => format!(
                    "{wrong} differ between the images of {base} and {snap}, diff({snap}, base \
                     {base}) does not report them"
                ),
            };
            self.done
                .violations
                .push(Violation::new(Kind::Missed, sentence).about(snap, base).at(wrong));
        }
        Ok(())
    }

    /// LBAs of `at` at which an image differs from another one, or from zeros.
    fn differing(
        &mut self,
        image: &dyn BlockDevice,
        before: Option<&dyn BlockDevice>,
        at: &LbaSet,
    ) -> Result<LbaSet, Reason> {
        let block = image.block_size();
        let bytes = usize::try_from(READ_LBAS.bytes(block).get()).unwrap_or(0);
        let (mut now, mut then) = (vec![0; bytes], vec![0; bytes]);
        let mut differ = LbaSet::new();
        for part in at.runs().iter().flat_map(|run| run.pieces(READ_LBAS)) {
            if self.plan.stop.load(Ordering::Relaxed) {
                return Err(Reason::Interrupted);
            }
            let end = usize::try_from(part.len_lbas().bytes(block).get()).unwrap_or(0);
            let start = part.start().byte_offset(block).unwrap_or(ByteOffset::new(u64::MAX));
            image.read_at(start, &mut now[..end]).map_err(of_device)?;
            match before {
                Some(before) => before.read_at(start, &mut then[..end]).map_err(of_device)?,
                None => then[..end].fill(0),
            }
            self.done.blocks_read += part.len_lbas().get();
            let blocks = now[..end].chunks(block.get()).zip(then[..end].chunks(block.get()));
            for ((one, other), lba) in blocks.zip(part.start().get()..) {
                if one != other {
                    differ.insert(Extent::lbas(lba, 1));
                }
            }
        }
        Ok(differ)
    }

    /// One diff from an LBA on, which may have been answered before; `None` if it was refused or malformed, which is judged here.
    fn ask(&mut self, pair: Pair, from: Lba, was_answered: bool) -> Result<Option<Walked>, Reason> {
        let plan = self.plan;
        let (snap, base) = (&plan.snapshots[pair.0], pair.1.map(|base| &plan.snapshots[base]));
        match self.walk((snap.uuid, base.map(|base| base.uuid)), snap.len, from) {
            Ok(set) => {
                self.done.answered += 1;
                Ok(Some(set))
            }
            Err(WalkError::Api(ApiError::NotFound(reply) | ApiError::Refused(reply))) => {
                for info in [Some(snap), base].into_iter().flatten() {
                    if !self.is_there(info)? {
                        let text = format!("{} is not Available any more", info.uuid);
                        note(&mut self.done.notes, text);
                        return Ok(None);
                    }
                }
                if !was_answered && pair.1.is_some() && !plan.one_chain {
                    note(&mut self.done.notes, format!("refused: {reply}"));
                    return Ok(None);
                }
                // A node that lags says so once.
                if let Ok(set) = self.walk((snap.uuid, base.map(|base| base.uuid)), snap.len, from)
                {
                    note(&mut self.done.notes, format!("refused once, then answered: {reply}"));
                    self.done.answered += 1;
                    return Ok(Some(set));
                }
                let found = judge_refused(named(pair), &Expected::Answer, &reply.to_string());
                self.held_if_unchanged(CheckId::Refused, found)?;
                Ok(None)
            }
            Err(WalkError::Api(error)) => Err(unknown(error)),
            Err(WalkError::Shape(fault)) => {
                let (snap, base) = named(pair);
                let at = fault.extent().map(LbaSet::from).unwrap_or_default();
                let found = Violation::new(Kind::Malformed, fault.to_string()).about(snap, base);
                self.held(CheckId::Shape, Some(found.at(at)));
                Ok(None)
            }
        }
    }

    fn walk(
        &mut self,
        (snapshot, base): (SnapshotUuid, Option<SnapshotUuid>),
        volume_len: LbaCount,
        from: Lba,
    ) -> Result<Walked, WalkError> {
        let Audit { array, strict, stop, runs_kept, .. } = *self.plan;
        let bugs = PipelineBugs::NONE;
        let request = WalkRequest { snapshot, base, from, volume_len, strict, bugs, stop };
        let (mut set, mut is_whole, mut digest) = (LbaSet::new(), true, Sha256::new());
        let answer = walk_streaming(array, &request, &mut |_, _| (), &mut |chunks| {
            for chunk in chunks.iter().filter(|chunk| chunk.bits.bits() != 0) {
                digest.update(chunk.start.get().to_le_bytes());
                digest.update(chunk.bits.bits().to_le_bytes());
                is_whole &= set.runs().len() < runs_kept;
                if is_whole {
                    set.insert_chunk(chunk.start, chunk.bits);
                }
            }
        })?;
        answer.notes.into_iter().for_each(|text| note(&mut self.done.notes, text));
        Ok(Walked { set, is_whole, digest: digest.finalize().into() })
    }

    fn is_there(&self, info: &SnapshotInfo) -> Result<bool, Reason> {
        match self.plan.array.snapshot_state(info.uuid) {
            Ok(state) => Ok(state == SnapshotState::Available),
            Err(ApiError::NotFound(_)) => Ok(false),
            Err(error) => Err(unknown(error)),
        }
    }

    /// As [`Auditing::held`], for laws that only hold while the volume's snapshots stay as they are.
    fn held_if_unchanged(
        &mut self,
        check: CheckId,
        found: Option<Violation>,
    ) -> Result<(), Reason> {
        let counts = found.is_none() || self.is_unchanged()?;
        self.held(check, found.filter(|_| counts));
        Ok(())
    }

    /// One comparison of a law, if it is asked about.
    fn held(&mut self, check: CheckId, found: Option<Violation>) {
        if self.plan.checks.has(check) {
            self.done.compared += 1;
            self.done.violations.extend(found);
        }
    }
}

fn note(notes: &mut Vec<String>, text: String) {
    if !notes.contains(&text) {
        notes.push(text);
    }
}

/// Law 2: the same question twice. Where the answers were too long to keep, only that they differ can
/// be told, not where.
fn repeated(pair: Pair, whole: &Walked, again: &Walked) -> Option<Violation> {
    if whole.digest == again.digest {
        return None;
    }
    judge_repeat(named(pair), &whole.set, &again.set).or_else(|| {
        let (snap, base) = named(pair);
        let sentence = format!(
            "{} was asked twice with nothing in between and differs behind its first {} run(s)",
            asked(snap, base),
            whole.set.runs().len()
        );
        Some(Violation::new(Kind::Nondeterministic, sentence).about(snap, base))
    })
}

fn named((snap, base): Pair) -> (Label, Option<Label>) {
    (label(snap), base.map(label))
}

/// Where to begin a walk again: inside the chunk of the first changed LBA, and inside that of one in
/// the middle.
fn inside(whole: &LbaSet, len: LbaCount) -> Vec<Lba> {
    let runs = whole.runs();
    let middle = runs.get(runs.len() / 2);
    let mut starts: Vec<Lba> = [runs.first(), middle]
        .into_iter()
        .flatten()
        .map(|run| run.start().chunk_start().get().saturating_add(33))
        .map(|from| Lba::new(from.min(len.get().saturating_sub(1))))
        .collect();
    starts.dedup();
    starts
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
