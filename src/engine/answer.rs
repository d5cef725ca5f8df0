//! Asking for a diff and judging the answer: the bounds, the laws, refusals.
//!
//! Not covered: explicit checks (`super::checks`), contents after a sync (`super::verify`).

use super::event::Event;
use super::interp::{Done, Interp};
use super::session::{Emit, Halt, LastDiff, Pair};
use super::verify::{Tile, wrong_in};
use crate::array::{ApiError, SnapshotState};
use crate::block::{Extent, Lba, LbaCount, LbaSet, Policy, Role};
use crate::model::{Expected, Prediction, Value, Values};
use crate::oracle::{
    CheckId, Kind, Reason, Violation, judge_answered, judge_bounds, judge_refused, judge_repeat,
    judge_triangle,
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
        let expected = self.model.expected(snap, base);
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
        inner?;
        // An operation between two pages may have taken an end of the diff away.
        let expected = match self.model.expected(snap, base) {
            after if after == expected => expected,
            _ => Expected::Either("an operation between two pages changed what is to be answered"),
        };
        match walked {
            Ok(answer) => {
                self.session.compared += 1;
                let found = self.judge(pair, from, &expected, version, &answer, emit)?;
                if found.is_empty() {
                    Ok(Some(answer))
                } else {
                    // The checks that follow may still speak of this answer.
                    self.session.last_diff = LastDiff::Answered { pair, answer };
                    Err(Halt::Violations(found))
                }
            }
            Err(WalkError::Api(error @ (ApiError::NotFound(_) | ApiError::Refused(_)))) => {
                self.refused(pair, &expected, pages, error, emit).map(|()| None)
            }
            Err(other) => Err(match Halt::from(other) {
                Halt::Violations(found) => {
                    Halt::Violations(found.into_iter().map(|v| v.about(snap, base)).collect())
                }
                other => other,
            }),
        }
    }

    /// A diff was refused after `pages` pages: rightly, wrongly, or because somebody took an end of
    /// it away meanwhile.
    fn refused(
        &mut self,
        pair: Pair,
        expected: &Expected,
        pages: u32,
        error: ApiError,
        emit: Emit<'_>,
    ) -> Done {
        let (snap, base) = pair;
        let (ApiError::NotFound(reply) | ApiError::Refused(reply)) = error else {
            return Err(error.into());
        };
        if let (Expected::Refusal(why), true) = (expected, pages > 0) {
            let sentence = format!(
                "the diff of {snap} was answered with {pages} pages and then refused, although {why}"
            );
            self.session.compared += 1;
            return Err(Violation::new(Kind::Refusal, sentence).about(snap, base).into());
        }
        if let Some(violation) = judge_refused(pair, expected, &reply.to_string()) {
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
        self.session.compared += 1;
        emit(Event::Refused { snap, base, status: reply.status, text: reply.text });
        Ok(())
    }

    /// Everything the oracle has to say about an answer.
    fn judge(
        &mut self,
        pair: Pair,
        from: Lba,
        expected: &Expected,
        version: u64,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Vec<Violation>, Halt> {
        let (snap, base) = pair;
        emit(Event::Diffed {
            snap,
            base,
            ranges: answer.ranges,
            pages: answer.pages,
            lbas: answer.set.count(),
        });
        for note in &answer.notes {
            emit(Event::Note { text: note.clone() });
        }
        let mut found: Vec<Violation> =
            judge_answered(pair, expected, &answer.set).into_iter().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        if let Some(bounds) = self.model.predict(snap, base) {
            let asked = Extent::between(from.chunk_start(), Lba::new(u64::MAX));
            let inside = |set: &LbaSet| asked.map(|asked| set.within(asked)).unwrap_or_default();
            let must = match self.sut.checks.has(CheckId::Missed) {
                true => inside(&bounds.must),
                false => LbaSet::new(),
            };
            let bounds = Prediction { must, may: inside(&bounds.may) };
            // A reversed pair may be answered in any sense that loses nothing.
            let policy =
                if *expected == Expected::Answer { self.policy } else { Policy::ReportOnly };
            found.extend(judge_bounds(pair, &bounds, &answer.set, policy));
        }
        if from == Lba::new(0) {
            found.extend(self.judge_among_answers(pair, version, answer));
            self.session.answers.insert(pair, (version, answer.set.clone()));
            if base.is_none() {
                found.extend(self.judge_unreported(snap, answer, emit)?);
            }
        }
        Ok(found)
    }

    /// Law 5 on a volume with a past: what a diff without base leaves out reads as zeros. Looks at
    /// old data only, which the model cannot know; a sample, spread evenly.
    fn judge_unreported(
        &self,
        snap: Label,
        answer: &DiffAnswer,
        emit: Emit<'_>,
    ) -> Result<Option<Violation>, Halt> {
        let Some(snapshot) = self.model.snapshot(snap) else { return Ok(None) };
        let (role, old) = (snapshot.role, Values::One(Value::Old(snapshot.role)));
        let whole = Extent::new(Lba::new(0), snapshot.len);
        let Some(whole) = whole.filter(|_| role == Role::Source && !self.model.is_fresh(role))
        else {
            return Ok(None);
        };
        if self.sut.array.volume(self.volume(role)?.uuid)?.is_clone {
            return Ok(None);
        }
        let device = self.device(role)?;
        // Live data stands for the snapshot only where nobody wrote since.
        let same = |at: Extent| {
            let then = snapshot.contents.over(at).iter().all(|(_, values)| **values == old);
            then && self.model.live(role, at).iter().all(|(_, values)| *values == old)
        };
        let left_out = LbaSet::from(whole).difference(&answer.set);
        let sample: Vec<Extent> = evenly(&left_out, SAMPLED_LBAS).filter(|at| same(*at)).collect();
        let tiles: Vec<Tile> = sample.iter().map(|at| (*at, Values::One(Value::Zero))).collect();
        let found =
            wrong_in((device, None), &tiles, (self.model.run(), role), self.sut.waiting.stop)?;
        if !sample.is_empty() {
            let text = format!("{} unreported LBAs of older data sampled", sample.len());
            emit(Event::Note { text });
        }
        Ok(found.map(|(_, wrong)| {
            let lbas: LbaSet = wrong.iter().filter_map(|(lba, _)| Extent::new(*lba, LbaCount::new(1))).collect();
            let sentence = format!("{lbas} hold data from before this run, diff({snap}) without base does not report them");
            Violation::new(Kind::Missed, sentence).about(snap, None).at(lbas)
        }))
    }

    /// Laws 2 and 4: this answer among the others of the scenario.
    fn judge_among_answers(&self, pair: Pair, version: u64, answer: &DiffAnswer) -> Vec<Violation> {
        let (snap, base) = pair;
        let mut found = Vec::new();
        let of = |pair: Pair| self.session.answers.get(&pair);
        if let Some((_, before)) = of(pair).filter(|(at, _)| *at == version) {
            found.extend(judge_repeat(pair, before, &answer.set));
        }
        for middle in self.session.order.iter().copied() {
            if let (Some((_, first)), Some((_, second))) =
                (of((middle, base)), of((snap, Some(middle))))
            {
                found.extend(judge_triangle(
                    pair,
                    middle,
                    (&answer.set, first, second),
                    self.policy,
                ));
            }
        }
        found
    }
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
