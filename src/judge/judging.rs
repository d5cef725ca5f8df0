//! Goes through a recording, fact by fact. Not covered: what an LBA holds (`super::world`), what one
//! answer is worth (`super::diff`).

use super::diff::{Duty, Pair};
use super::possible::Value;
use super::record::{Block, Record};
use super::verdict::{JudgedKind, Judgement, Remark};
use super::world::{LBAS_MAX, TooLarge, World};
use crate::block::{Extent, Lba, LbaSet, Policy, Role};
use crate::scenario::{Label, Op, SyncSource};
use std::collections::{BTreeMap, BTreeSet};

/// LBAs that a sentence names before it only counts.
const NAMED: usize = 4;

/// Judges a recording.
///
/// # Errors
/// [`TooLarge`].
pub fn judge<'r>(records: impl IntoIterator<Item = &'r Record>) -> Result<Judgement, TooLarge> {
    let mut judging = Judging::default();
    for record in records {
        judging.hear(record)?;
    }
    judging.end_scenario();
    Ok(judging.judgement)
}

/// What a step told of blocks and answers.
#[derive(Default)]
struct Reading {
    /// The diff that it last told an answer of.
    answered: Option<Pair>,
    /// Whether it told blocks.
    blocks: bool,
    /// Whether some of them are only known not to be this run's.
    blind: bool,
}

/// A whole answer that was given.
struct Given {
    version: u64,
    reported: BTreeSet<u64>,
}

#[derive(Default)]
struct Judging {
    world: Option<World>,
    policy: Option<Policy>,
    step: usize,
    /// The LBA that its diff is asked from.
    from: u64,
    /// Whether the step asks an explicit check.
    checks: bool,
    /// Whether the step waits for both ends of its diff before it asks.
    waits: bool,
    reading: Reading,
    /// What was known about a diff when it was asked for: whether to answer it, and the count of
    /// changes of its volume.
    asked: Option<(Pair, Duty, u64)>,
    given: BTreeMap<Pair, Given>,
    /// The last answer of each pair that was asked from the middle on, with the first LBA of its
    /// chunk.
    walked: BTreeMap<Pair, (u64, Given)>,
    /// What the first judge said, and as which kind this one could have seen it.
    recorded: Vec<(Remark<String>, Option<JudgedKind>)>,
    ended: Option<String>,
    /// Where the violations of the current scenario begin.
    own: usize,
    judgement: Judgement,
}

fn lbas(set: &LbaSet) -> BTreeSet<u64> {
    set.runs().iter().flat_map(|run| run.start().get()..run.end().get()).collect()
}

/// Refuses a fact about more LBAs than there is a record for.
fn bounded(lbas: u64) -> Result<(), TooLarge> {
    if lbas > LBAS_MAX as u64 { Err(TooLarge) } else { Ok(()) }
}

fn named(lbas: &[u64]) -> String {
    let first: Vec<String> = lbas.iter().take(NAMED).map(u64::to_string).collect();
    let more = match lbas.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("LBA {}{more}", first.join(", "))
}

fn question((snap, base): Pair) -> String {
    match base {
        Some(base) => format!("diff({snap}, base {base})"),
        None => format!("diff({snap})"),
    }
}

/// Whether what an operation holds is in flight together.
fn together(op: &Op) -> bool {
    match op {
        Op::Concurrent(_) => true,
        Op::Sync { during, .. } => !during.is_empty(),
        Op::On { op, .. } => together(op),
        _ => false,
    }
}

/// The pair that an operation asks for, if it is a diff.
fn asked_by(op: &Op) -> Option<Pair> {
    match op {
        Op::Diff { snap, base, .. } | Op::Sync { snap, base, .. } => Some((*snap, *base)),
        Op::On { op, .. } => asked_by(op),
        _ => None,
    }
}

/// The LBA that a diff is asked from.
fn first_asked(op: &Op) -> u64 {
    match op {
        Op::Diff { from, .. } => from.get(),
        Op::On { op, .. } => first_asked(op),
        _ => 0,
    }
}

/// Whether both ends of the diff are waited for before it is asked: a copy takes only what is there.
fn waits_first(op: &Op) -> bool {
    match op {
        Op::Sync { .. } => true,
        Op::On { op, .. } => waits_first(op),
        _ => false,
    }
}

fn is_check(op: &Op) -> bool {
    match op {
        Op::Check(_) => true,
        Op::On { op, .. } => is_check(op),
        _ => false,
    }
}

impl Judging {
    fn hear(&mut self, record: &Record) -> Result<(), TooLarge> {
        if let Record::Began { volumes, policy, capabilities } = record {
            self.end_scenario();
            self.judgement.scenarios += 1;
            self.policy = Some(*policy);
            match &mut self.world {
                Some(world) => world.begin_again()?,
                none => *none = Some(World::new(volumes, capabilities.as_ref().clone())),
            }
            return Ok(());
        }
        let Some(mut world) = self.world.take() else { return Ok(()) };
        let heard = self.hear_in(&mut world, record);
        self.world = Some(world);
        heard
    }

    fn hear_in(&mut self, world: &mut World, record: &Record) -> Result<(), TooLarge> {
        match record {
            Record::Began { .. } => {}
            Record::Step { index, op } => {
                (self.step, self.checks) = (*index, is_check(op));
                (self.waits, self.from) = (waits_first(op), first_asked(op));
                self.reading = Reading::default();
                world.begin_step(together(op))?;
                self.asked = asked_by(op).map(|pair| asked_now(world, pair));
            }
            Record::Applied { role, op, generation } => world.apply(*role, op, *generation)?,
            Record::Asked { role, label } => world.ask_for(*role, *label),
            Record::Available { label } => {
                world.available(*label);
                if let Some((pair, ..)) = self.asked.filter(|_| self.waits)
                    && self.reading.answered.is_none()
                {
                    self.asked = Some(asked_now(world, pair));
                }
            }
            Record::Failed { role, op, generation, late } => {
                world.fail(*role, op, *generation, *late)?;
            }
            Record::FlushFailed { role } => world.flush_failed(*role)?,
            Record::Forgotten { role, at } => world.forget(*role, *at)?,
            Record::Answered { snap, base, from, reported } => {
                bounded(reported.count().get())?;
                self.answered(world, (*snap, *base), *from, &lbas(reported));
            }
            Record::TurnedDown { snap, base, pages } => {
                self.turned_down(world, (*snap, *base), *pages);
            }
            Record::Copied { snap, base, from, copied, wrote } => {
                bounded(copied.count().get().saturating_add(wrote.count().get()))?;
                self.copied(world, (*snap, *base), *from, [&lbas(copied), &lbas(wrote)])?;
            }
            Record::Seen { role, snap, like, blocks } => {
                let lens = blocks.iter().map(|(at, _)| at.len_lbas().get());
                bounded(lens.fold(0, u64::saturating_add))?;
                self.seen(world, *role, (*snap, *like), blocks)?;
            }
            Record::Violated { kind, snap, base } => {
                let (kind, sentence) = (kind.clone(), String::new());
                let seen = self.could_see(&kind, (*snap, *base));
                self.recorded.push((self.remark(kind, (*snap, *base), sentence), seen));
            }
            Record::Ended { verdict } => self.ended = Some(verdict.clone()),
        }
        Ok(())
    }

    fn remark<K>(
        &self,
        kind: K,
        (snap, base): (Option<Label>, Option<Label>),
        sentence: String,
    ) -> Remark<K> {
        let scenario = self.judgement.scenarios.saturating_sub(1);
        Remark { scenario, step: self.step, kind, snap, base, sentence }
    }

    fn wrong(&mut self, kind: JudgedKind, (snap, base): Pair, sentence: String) {
        let remark = self.remark(kind, (Some(snap), base), sentence);
        self.judgement.violations.push(remark);
    }

    fn unsure(&mut self, (snap, base): Pair, sentence: String) {
        let remark = self.remark((), (Some(snap), base), sentence);
        self.judgement.unsure.push(remark);
    }

    /// Whether the diff is to be answered, as it was when it was asked for; if that changed
    /// meanwhile, either is right.
    fn duty(&self, world: &World, pair: Pair) -> Duty {
        let now = world.duty(pair);
        let past_end = world.snapshots.get(&pair.0).is_some_and(|snap| self.from >= snap.len);
        match self.asked {
            Some((asked, then, _)) if asked == pair && then != now => {
                Duty::Either("that changed while it was asked")
            }
            // Nobody says what an array does with a walk from there.
            _ if now == Duty::Answer && past_end && self.from > 0 => {
                Duty::Either("it starts past the end")
            }
            _ => now,
        }
    }

    fn answered(&mut self, world: &World, pair: Pair, from: Lba, reported: &BTreeSet<u64>) {
        let duty = self.duty(world, pair);
        let question = question(pair);
        self.judgement.diffs += 1;
        self.reading.answered = Some(pair);
        if let Duty::Refuse(why) = duty {
            let sentence = format!("{question} is answered, although {why}");
            return self.wrong(JudgedKind::Refusal, pair, sentence);
        }
        let first = from.chunk_start().get();
        let policy = self.policy.unwrap_or(Policy::Exact);
        let Some(weighed) = world.weigh(pair, duty, first, reported, policy) else {
            return self.unsure(pair, format!("{question} has no common chain to be judged by"));
        };
        if !weighed.missed.is_empty() {
            let sentence =
                format!("{} changed, {question} does not report it", named(&weighed.missed));
            self.wrong(JudgedKind::Missed, pair, sentence);
        }
        if !weighed.leaked.is_empty() {
            let sentence =
                format!("{question} reports {}, which nothing touched", named(&weighed.leaked));
            self.wrong(JudgedKind::Leaked, pair, sentence);
        }
        if !weighed.unsure.is_empty() {
            let sentence = format!(
                "{question} leaves out {}, which may have changed or not",
                named(&weighed.unsure)
            );
            self.unsure(pair, sentence);
        }
        self.among_others(world, pair, (first, from.get() == 0), reported);
    }

    /// Equal questions get equal answers, and three answers hang together.
    fn among_others(
        &mut self,
        world: &World,
        pair: Pair,
        (first, whole): (u64, bool),
        reported: &BTreeSet<u64>,
    ) {
        let (snap, base) = pair;
        let now = version(world, pair);
        let then = self.asked.filter(|(asked, ..)| *asked == pair).map_or(now, |(_, _, v)| v);
        let given = self.given.get(&pair);
        let equal = given.filter(|given| given.version == then && then == now);
        let differs =
            equal.is_some_and(|given| given.reported.range(first..).ne(reported.range(first..)));
        if differs && !whole {
            let sentence = format!("{} from there is not the rest of the whole", question(pair));
            self.wrong(JudgedKind::Malformed, pair, sentence);
        } else if differs {
            let sentence = format!("{} has two answers, with nothing in between", question(pair));
            self.wrong(JudgedKind::Nondeterministic, pair, sentence);
        }
        let known = Given { version: then, reported: reported.clone() };
        if !whole {
            if then == now {
                self.walked.insert(pair, (first, known));
            }
            return;
        }
        let earlier = self.walked.get(&pair).filter(|(_, part)| part.version == then);
        if then == now
            && let Some((from, part)) = earlier
            && part.reported.range(*from..).ne(reported.range(*from..))
        {
            let sentence = format!("{} is not what a part of it was", question(pair));
            self.wrong(JudgedKind::Malformed, pair, sentence);
        }
        self.triangles(world, pair, reported);
        let mut wrong = Vec::new();
        let of = |pair: Pair| self.given.get(&pair).map(|given| &given.reported);
        for other in world.order.iter().map(|label| Some(*label)).chain([None]) {
            if let Some(middle) = base
                && let Some(before) = of((middle, other))
            {
                wrong.push(lost(world, (other, middle, snap), before, reported));
            }
            if let Some(to) = other
                && let Some(after) = of((to, Some(snap)))
            {
                wrong.push(lost(world, (base, snap, to), reported, after));
            }
        }
        wrong
            .into_iter()
            .flatten()
            .for_each(|sentence| self.wrong(JudgedKind::Missed, pair, sentence));
        // As long as an operation went on meanwhile, it is nobody's equal.
        if then == now {
            self.given.insert(pair, known);
        }
    }

    /// What changed over two intervals changed in one of them: for this answer as the long one, and
    /// as either part of a long one.
    fn triangles(&mut self, world: &World, pair: Pair, reported: &BTreeSet<u64>) {
        if self.policy != Some(Policy::Exact) {
            return;
        }
        let of = |asked: Pair| match asked == pair {
            true => Some(reported),
            false => self.given.get(&asked).map(|given| &given.reported),
        };
        let (snap, base) = pair;
        let any = || world.order.iter().map(|label| Some(*label)).chain([None]);
        let threes = any()
            .flatten()
            .map(|middle| (base, middle, snap))
            .chain(any().flatten().map(|to| (base, snap, to)))
            .chain(base.into_iter().flat_map(|middle| any().map(move |from| (from, middle, snap))));
        let mut wrong = Vec::new();
        for (from, middle, to) in threes {
            let sides = (of((to, from)), of((middle, from)), of((to, Some(middle))));
            let (Some(long), Some(first), Some(second)) = sides else { continue };
            // What the middle has no room for was shrunk away and may have come back.
            let end = world.snapshots.get(&middle).map_or(0, |snapshot| snapshot.len);
            let short = |lba: &&u64| !first.contains(lba) && !second.contains(lba);
            let extra: Vec<u64> = long.range(..end).filter(short).copied().collect();
            if !extra.is_empty() {
                let (asked, lbas) = (question((to, from)), named(&extra));
                wrong.push(((to, from), format!("{asked} reports {lbas}, as no part of it does")));
            }
        }
        wrong
            .into_iter()
            .for_each(|(pair, sentence)| self.wrong(JudgedKind::Leaked, pair, sentence));
    }

    fn turned_down(&mut self, world: &World, pair: Pair, pages: u32) {
        let question = question(pair);
        self.judgement.refusals += 1;
        match self.duty(world, pair) {
            Duty::Answer => {
                let sentence = format!("{question} is refused, although both ends are there");
                self.wrong(JudgedKind::Refusal, pair, sentence);
            }
            Duty::Refuse(why) if pages > 0 => {
                let sentence = format!("{pages} pages of {question} are answered, although {why}");
                self.wrong(JudgedKind::Refusal, pair, sentence);
            }
            Duty::Refuse(_) | Duty::Either(_) => {}
        }
    }

    fn copied(
        &mut self,
        world: &mut World,
        pair: Pair,
        from: SyncSource,
        [copied, wrote]: [&BTreeSet<u64>; 2],
    ) -> Result<(), TooLarge> {
        self.judgement.syncs += 1;
        let strays: Vec<u64> = wrote.difference(copied).copied().collect();
        let copied: Vec<u64> = copied.iter().copied().collect();
        let source = (from == SyncSource::Snapshot).then_some(pair.0);
        world.copied(source, &copied, &strays)?;
        if !strays.is_empty() {
            let sentence =
                format!("the sync of {} wrote {}, which no answer names", pair.0, named(&strays));
            self.wrong(JudgedKind::Disturbed, pair, sentence);
        }
        Ok(())
    }

    /// Blocks that were read hold what they may hold; those of a snapshot are known from now on.
    fn seen(
        &mut self,
        world: &mut World,
        role: Role,
        (snap, like): (Option<Label>, Option<Label>),
        blocks: &[(Extent, Block)],
    ) -> Result<(), TooLarge> {
        let mut wrong = Vec::new();
        self.reading.blocks = true;
        world.begin_reading();
        for (at, block) in blocks {
            for lba in at.start().get()..at.end().get() {
                let expected = match snap.or(like).and_then(|label| world.snapshots.get(&label)) {
                    Some(snapshot) => world.contents(snapshot, lba),
                    None => world.live(role, lba),
                };
                self.judgement.blocks += 1;
                let value = match block {
                    Block::Zero => expected.if_zero(),
                    Block::Stamp { generation, .. } => expected.if_it_is(Value::Write(*generation)),
                    Block::Old => expected.if_old(),
                    Block::Misplaced => expected.if_misplaced(),
                    Block::Other => expected.if_other(),
                };
                self.reading.blind |= *block == Block::Other && value.is_some();
                match (value, snap) {
                    (None, _) => wrong.push(lba),
                    (Some(Some(value)), Some(label)) => world.seen_in(label, lba, value),
                    (Some(Some(value)), None) => world.seen_live(role, lba, value)?,
                    (Some(None), _) => {}
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let place = snap.map_or_else(|| format!("the {role} volume"), |snap| snap.to_string());
        let sentence = format!("{} of {place} holds what it cannot hold", named(&wrong));
        let remark = self.remark(JudgedKind::Content, (snap, None), sentence);
        self.judgement.violations.push(remark);
        Ok(())
    }

    /// Whether this judge has found something of that kind in this step.
    fn sees(&self, kind: JudgedKind) -> bool {
        let here = self.judgement.violations.iter().skip(self.own);
        here.into_iter().any(|found| found.kind == kind && found.step == self.step)
    }

    /// The kind as which this judge could have seen what the first one says now; none if the
    /// recording does not hold enough.
    fn could_see(
        &self,
        kind: &str,
        (snap, base): (Option<Label>, Option<Label>),
    ) -> Option<JudgedKind> {
        let kind = JudgedKind::from_name(kind).filter(|_| !self.checks)?;
        let could = match kind {
            JudgedKind::Content => self.reading.blocks && (!self.reading.blind || self.sees(kind)),
            // Otherwise it is about a page, of an answer that was never whole.
            JudgedKind::Malformed => snap.is_some_and(|s| self.reading.answered == Some((s, base))),
            _ => true,
        };
        could.then_some(kind)
    }

    /// Holds the two judges against each other, step by step: the gravest kind names what is wrong.
    fn end_scenario(&mut self) {
        self.forgive_expiry();
        let own = self.judgement.violations.get(self.own..).unwrap_or_default();
        let mut gravest: BTreeMap<usize, JudgedKind> = BTreeMap::new();
        for violation in own {
            let kind = gravest.entry(violation.step).or_insert(violation.kind);
            *kind = violation.kind.min(*kind);
        }
        let mut theirs: BTreeMap<usize, Option<JudgedKind>> = BTreeMap::new();
        let mut not_rejudged = Vec::new();
        for (violation, kind) in std::mem::take(&mut self.recorded) {
            let entry = theirs.entry(violation.step).or_insert(kind);
            *entry = [*entry, kind].into_iter().flatten().min();
            if kind.is_none() {
                not_rejudged.push(violation);
            }
        }
        let scenario = self.judgement.scenarios.saturating_sub(1);
        let steps: BTreeSet<usize> = gravest.keys().chain(theirs.keys()).copied().collect();
        for step in steps {
            let (mine, theirs) = (gravest.get(&step).copied(), theirs.get(&step).copied());
            // Whoever was cut short had not said everything about the last step.
            let cut_short = self.ended.is_none() && step == self.step && theirs.is_none();
            if mine != theirs.flatten() && !cut_short {
                let name =
                    |kind: Option<JudgedKind>| kind.map_or("nothing wrong", JudgedKind::name);
                let (mine, theirs) = (name(mine), name(theirs.flatten()));
                let sentence = format!("this judge says {mine}, the recording says {theirs}");
                let (kind, snap, base) = ((), None, None);
                self.judgement.disagreements.push(Remark {
                    scenario,
                    step,
                    kind,
                    snap,
                    base,
                    sentence,
                });
            }
        }
        self.judgement.not_rejudged.extend(not_rejudged);
        self.own = self.judgement.violations.len();
        self.given.clear();
        self.walked.clear();
        (self.asked, self.ended) = (None, None);
    }
}

impl Judging {
    /// A run that ends without a verdict after a refusal found a snapshot gone that nobody here had
    /// deleted: it expired, or somebody else deleted it, and no recording holds that.
    fn forgive_expiry(&mut self) {
        let unknown = self.ended.as_deref() == Some("unknown");
        let last = self.judgement.violations.len() > self.own;
        let silent = self.recorded.iter().all(|(violation, _)| violation.step != self.step);
        let expired =
            |last: &Remark<JudgedKind>| last.kind == JudgedKind::Refusal && last.step == self.step;
        if unknown && last && silent && self.judgement.violations.last().is_some_and(expired) {
            let Some(refusal) = self.judgement.violations.pop() else { return };
            let Remark { scenario, step, snap, base, sentence, .. } = refusal;
            self.judgement.unsure.push(Remark { scenario, step, kind: (), snap, base, sentence });
        }
    }
}

/// What two answers side by side lost together, in a sentence.
fn lost(
    world: &World,
    (first, middle, last): (Option<Label>, Label, Label),
    before: &BTreeSet<u64>,
    after: &BTreeSet<u64>,
) -> Option<String> {
    let both: BTreeSet<u64> = before.union(after).copied().collect();
    let lost = world.lost_between((first, middle, last), &both);
    let since = first.map_or_else(|| "creation".to_owned(), |first| first.to_string());
    (!lost.is_empty()).then(|| {
        format!(
            "{} changed between {since} and {last}, and neither the diff up to {middle} nor the one from there has it",
            named(&lost)
        )
    })
}

/// A diff that is asked for now.
fn asked_now(world: &World, pair: Pair) -> (Pair, Duty, u64) {
    (pair, world.duty(pair), version(world, pair))
}

/// Counts what could change the answer to a question.
fn version(world: &World, (snap, _): Pair) -> u64 {
    let volume = world.snapshots.get(&snap).and_then(|snap| world.volumes.get(snap.volume));
    volume.map_or(0, |volume| volume.version)
}
