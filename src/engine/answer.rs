//! Asking for a diff and judging the answer: the bounds, the laws, refusals.
//!
//! Not covered: explicit checks (`super::checks`), contents after a sync (`super::verify`).

use super::event::Event;
use super::interp::{Done, Interp};
use super::recording::Place;
use super::session::{Emit, Halt, LastDiff, Pair};
use super::verify::{Tile, WrongBlocks, wrong_in};
use crate::array::{ApiError, SnapshotState};
use crate::block::{Extent, Lba, LbaCount, LbaSet, Policy, Role, RunId};
use crate::judge::Record;
use crate::model::{Expected, Prediction, Value, Values};
use crate::oracle::{
    CheckId, Kind, Reason, Violation, asked, content_violation, judge_answered, judge_bounds,
    judge_cut, judge_offset_walk, judge_refused, judge_repeat, judge_triangle,
};
use crate::scenario::{Label, Op};
use crate::sync::{DiffAnswer, WalkError, WalkRequest, walk};

impl Interp<'_, '_> {
    /// Walks the pages of a diff and judges the answer; `None` if it was rightly refused.
    pub(super) fn ask(
        &mut self,
        pair: Pair,
        from: Lba,
        between: Option<(u32, &Op)>,
        emit: Emit<'_>,
    ) -> Result<Option<DiffAnswer>, Halt> {
        let (snap, base) = pair;
        self.session.last_diff = LastDiff::None;
        let expected = self.expected(pair, from);
        let owner = self.model.snapshot(snap).map_or(Role::Source, |snapshot| snapshot.role);
        let version = self.model.version(owner);
        let request = WalkRequest {
            snapshot: self.uuid(snap)?,
            base: base.map(|base| self.uuid(base)).transpose()?,
            from,
            volume_len: self.model.snapshot(snap).map_or(LbaCount::ZERO, |snapshot| snapshot.len),
            strict: self.sut.pipeline.strict,
            bugs: self.sut.pipeline.copy.bugs,
            stop: self.sut.waiting.stop,
        };
        let array = self.sut.array;
        let mut inner: Done = Ok(());
        let mut pages = 0;
        let walked = walk(array, &request, &mut |_, page| {
            pages += 1;
            emit(Event::Page { page: pages, ranges: page.ranges });
            if let Some((_, op)) = between.filter(|(after, _)| *after == pages) {
                inner = self.exec(owner, op, emit);
            }
        });
        match inner {
            // It meant nothing here; the answer is judged all the same.
            Err(Halt::Skip(why)) => {
                let op = between.map_or(Op::Wait, |(_, op)| op.clone());
                emit(Event::Skipped { op, why });
            }
            inner => inner?,
        }
        // An operation between two pages may have taken an end of the diff away.
        let expected = match between.map(|_| self.expected(pair, from)) {
            Some(after) if after != expected => {
                Expected::Either("an operation between two pages changed what is to be answered")
            }
            _ => expected,
        };
        match walked {
            Ok(answer) => {
                self.session.compared += 1;
                // What changed while it was asked for must not be compared with other answers.
                let version = Some(version).filter(|at| *at == self.model.version(owner));
                let found = self.judge(pair, from, &expected, version, &answer, emit)?;
                let reported = || answer.set.clone();
                self.sut.tell(emit, || Record::Answered { snap, base, from, reported: reported() });
                if found.is_empty() {
                    Ok(Some(answer))
                } else {
                    // The checks that follow may still speak of this answer.
                    self.session.last_diff = LastDiff::Answered { pair, answer };
                    Err(Halt::Violations(found))
                }
            }
            Err(WalkError::Api(error @ (ApiError::NotFound(_) | ApiError::Refused(_)))) => {
                self.refused(pair, from, (&expected, pages), error, emit).map(|()| None)
            }
            Err(WalkError::Shape(fault)) if !self.sut.checks.has(CheckId::Shape) => {
                Err(Halt::Skip(format!("the form of answers is not judged: {fault}")))
            }
            Err(other) => Err(match Halt::from(other) {
                Halt::Violations(found) => {
                    Halt::Violations(found.into_iter().map(|v| v.about(snap, base)).collect())
                }
                other => other,
            }),
        }
    }

    /// Whether the diff of a pair from an LBA on is to be answered.
    fn expected(&self, (snap, base): Pair, from: Lba) -> Expected {
        let expected = self.model.expected(snap, base);
        let len = self.model.snapshot(snap).map_or(LbaCount::ZERO, |snapshot| snapshot.len);
        match expected {
            // Nobody says what an array does with a walk from there.
            Expected::Answer if from.get() > 0 && from.get() >= len.get() => {
                Expected::Either("it starts past the end of the snapshot")
            }
            expected => expected,
        }
    }

    /// A diff was refused after `pages` pages: rightly, wrongly, or because somebody took an end of
    /// it away meanwhile.
    fn refused(
        &mut self,
        pair: Pair,
        from: Lba,
        (expected, pages): (&Expected, u32),
        error: ApiError,
        emit: Emit<'_>,
    ) -> Done {
        let (snap, base) = pair;
        let (ApiError::NotFound(reply) | ApiError::Refused(reply)) = error else {
            return Err(error.into());
        };
        self.sut.tell(emit, || Record::TurnedDown { snap, base, pages });
        let judged = |check: CheckId| self.sut.checks.has(check);
        if let (Expected::Refusal(why), true, true) =
            (expected, pages > 0, judged(CheckId::Answered))
        {
            let sentence = format!(
                "the diff of {snap} was answered with {pages} pages and then refused, although {why}"
            );
            self.session.compared += 1;
            return Err(Violation::new(Kind::Refusal, sentence).about(snap, base).into());
        }
        let wrongly = judge_refused(pair, expected, &reply.to_string());
        if let Some(violation) = wrongly.filter(|_| judged(CheckId::Refused)) {
            // A snapshot that expired, or that somebody else deleted, is nobody's wrong answer.
            for label in [Some(snap), base].into_iter().flatten() {
                let info = self.sut.array.snapshot(self.uuid(label)?)?;
                if info.state != SnapshotState::Available {
                    let why = format!("{label} is {:?} now; {reply}", info.state);
                    return Err(Halt::Unknown(Reason::Api(why)));
                }
            }
            self.session.compared += 1;
            return Err(violation.into());
        }
        // Where either is right, a refusal has told something only if an answer could have been wrong.
        let rest = Extent::between(from.chunk_start(), Lba::new(u64::MAX));
        let told = match expected {
            Expected::Refusal(_) => true,
            _ => self
                .model
                .predict(snap, base)
                .zip(rest)
                .is_some_and(|(bounds, rest)| !bounds.must.within(rest).is_empty()),
        };
        self.session.compared += u64::from(told);
        emit(Event::Refused { snap, base, status: reply.status, text: reply.text });
        Ok(())
    }

    /// Everything the oracle has to say about an answer.
    fn judge(
        &mut self,
        pair: Pair,
        from: Lba,
        expected: &Expected,
        version: Option<u64>,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Vec<Violation>, Halt> {
        let (snap, base) = pair;
        let asked_from = Extent::between(from.chunk_start(), Lba::new(u64::MAX));
        let inside = |set: LbaSet| match from.get() {
            0 => set,
            _ => asked_from.map(|asked| set.within(asked)).unwrap_or_default(),
        };
        let bounds = self
            .model
            .predict(snap, base)
            .map(|bounds| Prediction { must: inside(bounds.must), may: inside(bounds.may) });
        emit(Event::Diffed {
            snap,
            base,
            ranges: answer.ranges,
            pages: answer.pages,
            lbas: answer.set.count(),
            must: bounds.as_ref().map(|bounds| bounds.must.count()),
        });
        for note in &answer.notes {
            emit(Event::Note { text: note.clone() });
        }
        let checks = self.sut.checks;
        let judged = |check: CheckId| checks.has(check);
        let mut found: Vec<Violation> = judge_answered(&asked(snap, base), expected, &answer.set)
            .filter(|_| judged(CheckId::Answered))
            .map(|violation| violation.about(snap, base))
            .into_iter()
            .collect();
        if !found.is_empty() || matches!(expected, Expected::Refusal(_)) {
            return Ok(found);
        }
        if let Some(bounds) = bounds {
            let must = match judged(CheckId::Missed) {
                true => bounds.must,
                false => LbaSet::new(),
            };
            let bounds = Prediction { must, may: bounds.may };
            // A pair that need not be answered may be answered in any sense that loses nothing.
            let policy = match judged(CheckId::Leaked) && *expected == Expected::Answer {
                true => self.policy,
                false => Policy::ReportOnly,
            };
            found.extend(judge_bounds(pair, &bounds, &answer.set, policy));
        }
        if from == Lba::new(0) {
            found.extend(self.judge_among_answers(pair, version, answer, emit));
            if base.is_none() && judged(CheckId::Unreported) {
                found.extend(self.judge_unreported(snap, answer, emit)?);
            }
            if let Some(version) = version {
                self.session.answers.insert(pair, (version, answer.set.clone()));
            }
        } else {
            if let Some((_, whole)) = self.answered(pair, version)
                && judged(CheckId::OffsetWalk)
            {
                found.extend(judge_offset_walk(pair, from, whole, &answer.set));
            }
            if let Some(version) = version {
                self.session.walked.insert(pair, (version, from, answer.set.clone()));
            }
        }
        Ok(found)
    }

    /// The whole answer to the same question in the same state of the volume, if there was one.
    fn answered(&self, pair: Pair, version: Option<u64>) -> Option<&(u64, LbaSet)> {
        self.session.answers.get(&pair).filter(|(at, _)| Some(*at) == version)
    }

    /// Law 5 on a volume with a past: what a diff without base leaves out reads as zeros. Looks at
    /// old data only, which the model cannot know; a sample, spread evenly.
    fn judge_unreported(
        &self,
        snap: Label,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Vec<Violation>, Halt> {
        let Some(snapshot) = self.model.snapshot(snap) else { return Ok(Vec::new()) };
        let (role, old) = (snapshot.role, Values::One(Value::Old(snapshot.role)));
        let whole = Extent::new(Lba::new(0), snapshot.len);
        let Some(whole) = whole.filter(|_| role == Role::Source && !self.model.is_fresh(role))
        else {
            return Ok(Vec::new());
        };
        if self.sut.array.volume(self.volume(role)?.uuid)?.is_clone {
            return Ok(Vec::new());
        }
        let live = self.device(role)?;
        if !live.keeps_contents() {
            return Ok(Vec::new());
        }
        let frozen = match self.capabilities.snapshot_readable {
            true if !snapshot.is_open() && !snapshot.deleted => Some(self.frozen(snap)?),
            _ => None,
        };
        let device = frozen.as_ref().map_or(live, |frozen| frozen);
        // Live data stands for the snapshot only where nobody wrote since.
        let same = |at: Extent| {
            let then = snapshot.contents.over(at).all(|(_, values)| *values == old);
            let now = || self.model.live(role, at).iter().all(|(_, values)| *values == old);
            then && (frozen.is_some() || now())
        };
        let left_out = LbaSet::from(whole).difference(&answer.set);
        let sample: Vec<Extent> = evenly(&left_out, SAMPLED_LBAS).filter(|at| same(*at)).collect();
        let tiles: Vec<Tile> = sample.iter().map(|at| (*at, Values::One(Value::Zero))).collect();
        let found = wrong_in((device, None), &tiles, (self.model.run(), role), self.sut.reading())?;
        let places = sample.iter().copied();
        let place = Place { run: self.model.run(), role, snap: Some(snap), like: None };
        self.sut.tell_blocks(emit, device, place, places)?;
        if !sample.is_empty() {
            let text = format!("{} unreported LBAs of older data sampled", sample.len());
            emit(Event::Note { text });
        }
        let (_, wrong) = found.unwrap_or((old, Vec::new()));
        Ok(unreported(snap, (role, self.model.run()), wrong))
    }

    /// Laws 2 and 4: this answer among the others of the scenario.
    fn judge_among_answers(
        &self,
        pair: Pair,
        version: Option<u64>,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Vec<Violation> {
        let (snap, base) = pair;
        let checks = self.sut.checks;
        let mut found = Vec::new();
        if let Some((_, before)) = self.answered(pair, version)
            && checks.has(CheckId::Repeat)
        {
            found.extend(judge_repeat(pair, before, &answer.set));
        }
        if let Some((at, from, walked)) = self.session.walked.get(&pair)
            && Some(*at) == version
            && checks.has(CheckId::OffsetWalk)
        {
            found.extend(judge_offset_walk(pair, *from, &answer.set, walked));
        }
        if checks.has(CheckId::Triangle) {
            let extra = self.triangles(pair, &answer.set);
            match self.policy {
                Policy::Exact => found.extend(extra),
                _ => extra.into_iter().for_each(|Violation { sentence, .. }| {
                    let text = format!("{sentence} (legal unless answers are exact)");
                    emit(Event::Note { text });
                }),
            }
        }
        // Where contents of snapshots cannot tell on which side of a cut an operation lies, both
        // sides together must have it.
        let in_flight =
            |label: Label| self.model.snapshot(label).is_some_and(|cut| !cut.in_flight.is_empty());
        if checks.has(CheckId::CutLaw)
            && !self.capabilities.snapshot_readable
            && (in_flight(snap) || base.is_some_and(in_flight))
        {
            found.extend(self.judge_cuts(pair, &answer.set));
        }
        found
    }

    /// Law 4 over every three answers of which this is one, in whichever order they were given:
    /// snapshots do not change.
    fn triangles(&self, (snap, base): Pair, set: &LbaSet) -> Vec<Violation> {
        let of = |pair: Pair| self.session.answers.get(&pair).map(|(_, set)| set);
        let end = |middle: Label| {
            let len = self.model.snapshot(middle).map(|snapshot| snapshot.len);
            (middle, len.unwrap_or(LbaCount::ZERO))
        };
        let mut found = Vec::new();
        for (&(other, since), (_, known)) in &self.session.answers {
            // The long one and the second half are asked of one snapshot.
            if let Some(middle) = since.filter(|_| other == snap)
                && let Some(first) = of((middle, base))
            {
                found.extend(judge_triangle((snap, base), end(middle), (set, first, known)));
            }
            // This is the first half, the other the second.
            if since == Some(snap)
                && let Some(long) = of((other, base))
            {
                found.extend(judge_triangle((other, base), end(snap), (long, set, known)));
            }
            // The other is the first half, this the second.
            if base == Some(other)
                && let Some(long) = of((snap, since))
            {
                found.extend(judge_triangle((snap, since), end(other), (long, known, set)));
            }
        }
        found
    }

    /// The cut law without contents: of three snapshots in a row the two short diffs together hold
    /// what certainly changed over both, whatever was in flight at the middle one's cut.
    fn judge_cuts(&self, (snap, base): Pair, set: &LbaSet) -> Option<Violation> {
        let of = |pair: Pair| self.session.answers.get(&pair).map(|(_, set)| set);
        let in_flight = |label: Label| {
            let cut = self.model.snapshot(label);
            cut.map(|cut| &cut.in_flight).filter(|lbas| !lbas.is_empty())
        };
        let judge = |from: Option<Label>, middle: Label, to: Label, sides: (&LbaSet, &LbaSet)| {
            let lbas = in_flight(middle)?;
            let must = self.model.predict(to, from)?.must.intersection(lbas);
            judge_cut((to, from), middle, &must, sides)
        };
        let first = base.and_then(|middle| {
            let mut before = self.session.order.iter().map(|from| Some(*from)).chain([None]);
            before.find_map(|from| judge(from, middle, snap, (of((middle, from))?, set)))
        });
        first.or_else(|| {
            let mut after = self.session.order.iter();
            after.find_map(|to| judge(base, snap, *to, (set, of((*to, Some(snap)))?)))
        })
    }
}

/// What is wrong with blocks that must be as they were before the run, are not reported, and are no
/// zeros: a block of this run is no older data, whatever a diff says of it.
fn unreported(snap: Label, (role, run): (Role, RunId), wrong: WrongBlocks) -> Vec<Violation> {
    let (own, older): (WrongBlocks, WrongBlocks) =
        wrong.into_iter().partition(|(_, found)| found.is_of(run));
    let lbas: LbaSet =
        older.iter().filter_map(|(lba, _)| Extent::new(*lba, LbaCount::new(1))).collect();
    let missed = (!lbas.is_empty()).then(|| {
        let sentence = format!(
            "data from before this run on {lbas} is not reported by diff({snap}) without base"
        );
        Violation::new(Kind::Missed, sentence).at(lbas).of_older_data()
    });
    let when = format!("where nothing was written since {snap}");
    let changed = content_violation(role, &own, &Values::One(Value::Old(role)), &when);
    let found = missed.into_iter().chain(changed);
    found.map(|violation| violation.about(snap, None)).collect()
}

/// LBAs of old data that a full scan left out and that are read to see whether they are zeros.
const SAMPLED_LBAS: u64 = 1024;

/// At most `most` single LBAs of `set`, spread evenly over it.
fn evenly(set: &LbaSet, most: u64) -> impl Iterator<Item = Extent> {
    let step = set.count().get().div_ceil(most).max(1);
    let mut before: u64 = 0;
    set.runs().iter().flat_map(move |run| {
        let skip = before.next_multiple_of(step) - before;
        before += run.len_lbas().get();
        let lbas = run.start().get() + skip..run.end().get();
        lbas.step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .filter_map(|lba| Extent::new(Lba::new(lba), LbaCount::new(1)))
    })
}
