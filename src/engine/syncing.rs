//! Copies: a diff is asked for, planned, copied to the target and read back.
//!
//! Not covered: the copy itself (`crate::sync`), and judging the diff (`super::answer`).

use super::event::Event;
use super::interp::{Done, Interp, content};
use super::recording::Place;
use super::session::{Emit, Halt, LastDiff, Pair, SyncRecord};
use super::together::Flights;
use super::verify::{Tile, knowable, wrong_in};
use crate::array::BlockDevice;
use crate::block::{CHUNK_LBAS, Extent, Lba, LbaCount, LbaSet, Role};
use crate::judge::Record;
use crate::oracle::{CheckId, Kind, Reason, Violation, content_violation};
use crate::scenario::{Label, Op, SyncSource};
use crate::sync::{CopyError, PipelineBug, WriteLogged, chain_order, copy, plan};
use std::collections::BTreeMap;

/// A volume in memory that is larger has no more than a few blocks: reading all the others back would
/// take longer than all the rest of its case.
const WHOLE_TARGET: LbaCount = LbaCount::new(1 << 16);

impl Interp<'_, '_> {
    pub(super) fn sync(
        &mut self,
        pair: Pair,
        from: SyncSource,
        during: &[Op],
        emit: Emit<'_>,
    ) -> Done {
        let (snap, base) = pair;
        // A pipeline that asks too early is answered with a part, or not at all.
        if !self.sut.pipeline.copy.bugs.has(PipelineBug::ReadsBeforeAvailable) {
            for label in [Some(snap), base].into_iter().flatten() {
                self.close_cut(label, emit)?;
            }
        }
        let start = self.sut.clock.now();
        let Some(answer) = self.ask(pair, Lba::new(0), None, emit)? else {
            self.session.last_diff = LastDiff::Refused;
            return Ok(());
        };
        let limit = self.sut.pipeline.limit_to.clone();
        let copied = limit
            .as_ref()
            .map_or_else(|| answer.set.clone(), |limit| answer.set.intersection(limit));
        if let Some(max) =
            self.sut.pipeline.max_full_sync.filter(|max| base.is_none() && copied.count() > *max)
        {
            let (has, may) = (copied.count().nominal_bytes(), max.nominal_bytes());
            let why = format!(
                "a full sync would copy {has} bytes, more than --max-full-sync {may}; use an emptier volume or --limit-to-footprint"
            );
            return Err(Halt::Unknown(Reason::Budget(why)));
        }
        let live_end = self.model.len(Role::Source).map_or(0, LbaCount::get);
        let end = copied.runs().last().map_or(0, |run| run.end().get());
        if from == SyncSource::Live && end > live_end {
            return Err(Halt::Skip(format!(
                "the source has shrunk to {live_end} LBAs since {snap}"
            )));
        }
        let runs = plan(&answer.chunks, limit.as_ref(), self.sut.pipeline.copy.bugs);
        let (flights, held) = self.launch(during, emit);
        let (wrote, result) = self.copy(snap, from, &runs, &flights)?;
        let took = self.sut.clock.now().saturating_sub(start);
        match from {
            SyncSource::Live => self.model.synced(held.as_ref(), &copied),
            SyncSource::Snapshot => self.model.synced_from(snap, &copied),
        }
        self.land(flights, emit)?;
        if let Err(error) = result {
            for at in copied.runs().iter().copied() {
                self.model.forget(Role::Target, at);
                self.sut.tell(emit, || Record::Forgotten { role: Role::Target, at });
            }
            return Err(error.into());
        }
        emit(Event::Synced {
            ranges: answer.ranges,
            pages: answer.pages,
            lbas: copied.count(),
            took,
        });
        self.sut.tell(emit, || {
            let (copied, wrote) = (copied.clone(), wrote.clone());
            Record::Copied { snap, base, from, copied, wrote }
        });
        let stray = wrote.difference(&copied);
        let record = SyncRecord { pair, ranges: answer.ranges, copied, wrote, took };
        let mut found: Vec<Violation> = Vec::new();
        let checks = self.sut.checks;
        if !stray.is_empty() && checks.has(CheckId::Disturbed) {
            let sentence = format!(
                "the sync of {snap} wrote {stray} of the target, which its diff does not name"
            );
            found.push(Violation::new(Kind::Disturbed, sentence).about(snap, base).at(stray));
        }
        if checks.has(CheckId::Copied) {
            let wrong = self.verify_copied(&record, emit)?;
            found.extend(wrong.map(|violation| violation.about(snap, base)));
        }
        // What is known to be wrong is said once; later scenarios must not stumble over it again.
        for run in found.iter().flat_map(|violation| violation.extents.runs()) {
            self.model.forget(Role::Target, *run);
            self.sut.tell(emit, || Record::Forgotten { role: Role::Target, at: *run });
        }
        self.session.last_diff = LastDiff::Answered { pair, answer };
        self.session.digests_before = self.session.digests.clone();
        self.session.syncs.push(record);
        if found.is_empty() { Ok(()) } else { Err(Halt::Violations(found)) }
    }

    /// Copies `runs`, while `flights` are under way, and answers which LBAs of the target were
    /// written.
    fn copy(
        &self,
        snap: Label,
        from: SyncSource,
        runs: &[Extent],
        flights: &Flights<'_>,
    ) -> Result<(LbaSet, Result<(), CopyError>), Halt> {
        let target = WriteLogged::new(self.device(Role::Target)?);
        let live = self.device(Role::Source)?;
        let torn = self.sut.pipeline.copy.bugs.has(PipelineBug::LiveSourceTorn);
        let frozen = match from {
            SyncSource::Snapshot if !torn => Some(self.frozen(snap)?),
            SyncSource::Snapshot | SyncSource::Live => None,
        };
        let source: &dyn BlockDevice = frozen.as_ref().map_or(live, |frozen| frozen);
        let (config, stop) = (&self.sut.pipeline.copy, self.sut.waiting.stop);
        let result = self.meanwhile(flights, || copy(runs, source, &target, config, None, stop))?;
        Ok((target.take_log(), result.map(|_| ())))
    }

    /// Reads the target back: all of it in memory, the copied LBAs and the chunks beside them from a
    /// device and where the volume is huge and almost empty.
    fn verify_copied(
        &self,
        record: &SyncRecord,
        emit: Emit<'_>,
    ) -> Result<Option<Violation>, Halt> {
        let Some(whole) =
            self.model.len(Role::Target).and_then(|len| Extent::new(Lba::new(0), len))
        else {
            return Ok(None);
        };
        let chunk = LbaCount::new(CHUNK_LBAS);
        let beside = |run: &Extent| {
            let out = run.rounded_out(chunk);
            let start = Lba::new(out.start().get().saturating_sub(CHUNK_LBAS));
            Extent::between(start, out.end() + chunk)?.intersect(whole)
        };
        let around: LbaSet = match self.sut.in_memory && whole.len_lbas() <= WHOLE_TARGET {
            true => LbaSet::from(whole),
            false => record.copied.runs().iter().filter_map(beside).collect(),
        };
        let tiles: Vec<Tile> =
            around.runs().iter().flat_map(|run| knowable(self.model, *run)).collect();
        let devices = (self.device(Role::Target)?, Some(self.device(Role::Source)?));
        let found =
            wrong_in(devices, &tiles, (self.model.run(), Role::Target), self.sut.reading())?;
        let read = tiles.iter().map(|(at, _)| *at);
        let (run, role) = (self.model.run(), Role::Target);
        let place = Place { run, role, snap: None, like: None };
        self.sut.tell_blocks(emit, devices.0, place, read)?;
        let when = format!("after the sync of {}", record.pair.0);
        Ok(found
            .and_then(|(values, wrong)| content_violation(Role::Target, &wrong, &values, &when)))
    }

    pub(super) fn sync_chain(&mut self, to: Label, emit: Emit<'_>) -> Done {
        let alive = |label: &Label| {
            self.model.same_volume(*label, to)
                && self.model.snapshot(*label).is_some_and(|snap| !snap.deleted)
        };
        let upto = self.session.order.iter().position(|label| *label == to).map_or(0, |at| at + 1);
        let taken: Vec<Label> = self.session.order[..upto].iter().copied().filter(alive).collect();
        let bases: BTreeMap<Label, Label> = taken.windows(2).map(|w| (w[1], w[0])).collect();
        let mut copied = LbaSet::new();
        for snap in chain_order(taken, self.sut.pipeline.copy.bugs) {
            self.sync((snap, bases.get(&snap).copied()), SyncSource::Snapshot, &[], emit)?;
            if matches!(self.session.last_diff, LastDiff::Refused) {
                // Rightly: the chain is broken here, and what would follow builds on nothing.
                return Ok(());
            }
            copied =
                self.session.syncs.last().map_or(copied.clone(), |sync| copied.union(&sync.copied));
        }
        match self.sut.checks.has(CheckId::Copied) {
            true => self.verify_chain(to, &copied, emit),
            false => Ok(()),
        }
    }

    /// After a chain the target holds the last snapshot wherever something was copied.
    fn verify_chain(&self, to: Label, copied: &LbaSet, emit: Emit<'_>) -> Done {
        let Some(snapshot) = self.model.snapshot(to) else { return Ok(()) };
        let whole = Extent::new(Lba::new(0), snapshot.len);
        let inside = whole.map(|whole| copied.within(whole)).unwrap_or_default();
        let tiles: Vec<Tile> = inside
            .runs()
            .iter()
            .flat_map(|run| snapshot.contents.over(*run))
            .map(|(e, v)| (e, v.clone()))
            .collect();
        let (target, run) = (self.device(Role::Target)?, self.model.run());
        let found = wrong_in((target, None), &tiles, (run, Role::Target), self.sut.reading())?;
        let place = Place { run, role: Role::Target, snap: None, like: Some(to) };
        self.sut.tell_blocks(emit, target, place, tiles.iter().map(|(at, _)| *at))?;
        content(Role::Target, found, &format!("after the chain to {to}"))
    }
}
