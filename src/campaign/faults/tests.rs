use super::grid::GridConfig;
use super::*;
use crate::array::{ApiError, Array, SnapshotInfo, VolumeInfo};
use crate::block::{Capabilities, Lba, Page, SnapshotName, SnapshotUuid, VolumeUuid};
use crate::sim::hostile::FaultSpec;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What a tool with a bug does with the error of a call.
type Swallow = fn(&Planted<'_>, ApiError) -> Result<Page, ApiError>;

/// An array behind which a bug sits: it sees every error of a diff.
struct Planted<'a> {
    array: &'a dyn Array,
    swallow: Swallow,
    takes_snapshots: bool,
}

impl Array for Planted<'_> {
    fn capabilities(&self) -> Capabilities {
        self.array.capabilities()
    }
    fn volume(&self, volume: VolumeUuid) -> Result<VolumeInfo, ApiError> {
        self.array.volume(volume)
    }
    fn create_snapshot(
        &self,
        volume: VolumeUuid,
        name: SnapshotName,
    ) -> Result<SnapshotInfo, ApiError> {
        if !self.takes_snapshots {
            return Err(ApiError::Failed(format!("snapshot {name} is not to be had")));
        }
        self.array.create_snapshot(volume, name)
    }
    fn snapshot(&self, snapshot: SnapshotUuid) -> Result<SnapshotInfo, ApiError> {
        self.array.snapshot(snapshot)
    }
    fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ApiError> {
        self.array.snapshots()
    }
    fn delete_snapshot(&self, snapshot: SnapshotUuid) -> Result<(), ApiError> {
        self.array.delete_snapshot(snapshot)
    }
    fn diff_page(
        &self,
        snapshot: SnapshotUuid,
        base: Option<SnapshotUuid>,
        from: Lba,
    ) -> Result<Page, ApiError> {
        match self.array.diff_page(snapshot, base, from) {
            // Right as it is: the base is gone.
            Err(refused @ (ApiError::NotFound(_) | ApiError::Refused(_))) => Err(refused),
            Err(error) => (self.swallow)(self, error),
            Ok(page) => Ok(page),
        }
    }
}

/// What becomes of a run with this fault and a tool that has this bug.
fn with_bug(wrapper: Wrapper, spec: &str) -> Judged {
    let rig = |wrapper| Arc::new(FaultRig::new(Duration::from_secs(4), wrapper).expect("a server"));
    let honest = match rig(None).run(&[]).expect("runs") {
        Ran::Ended(ended) => ended.compared,
        other => panic!("{other:?}"),
    };
    let faults: [FaultSpec; 1] = [spec.parse().expect("a fault")];
    let ran = rig(Some(wrapper)).run(&faults).expect("runs");
    judge::judge(&ran, &faults, &honest)
}

fn planted<'a>(array: &'a dyn Array, swallow: Swallow) -> Box<dyn Array + 'a> {
    Box::new(Planted { array, swallow, takes_snapshots: true })
}

#[test]
fn without_a_fault_the_scenario_passes_with_some_forty_calls() {
    let rig = Arc::new(FaultRig::new(Duration::from_secs(30), None).expect("a server"));
    let Ran::Ended(ended) = rig.run(&[]).expect("runs") else { panic!("it did not end") };
    assert_eq!(ended.verdict, crate::oracle::Verdict::Pass);
    assert_eq!((ended.met_in_all, ended.listed, ended.unlisted.len()), (0, 0, 0));
    assert_eq!(ended.compared.steps.len(), canonical().steps.len(), "nothing was skipped");
    assert_eq!(ended.compared.refused.len(), 1);
    // The 36th call of the wire fails, and some of those of the data plane.
    for spec in ["status-503@36", "data:stall@source:12", "data:stall@target:4"] {
        let spec: FaultSpec = spec.parse().expect("a fault");
        let Ran::Ended(ended) = rig.run(&[spec]).expect("runs") else { panic!("it did not end") };
        assert_eq!(ended.met_in_all, 1, "{spec}");
    }
}

#[test]
fn a_tool_that_takes_an_error_for_an_empty_page_rings_as_a_false_violation() {
    let swallow: Wrapper = |array| planted(array, |_, _| Ok(Page::default()));
    let judged = with_bug(swallow, "status-401@diff:2");
    assert_eq!(judged.bad, [Bad::FalseViolation], "{judged:?}");
    assert_eq!(judged.end.name(), "missed");
}

#[test]
fn a_tool_that_skips_what_failed_rings_as_a_false_pass() {
    let swallow: Wrapper =
        |array| planted(array, |_, _| Err(ApiError::Unsupported("that any more")));
    let judged = with_bug(swallow, "truncated-json@diff:1");
    assert_eq!((judged.end, judged.bad), (End::Pass, vec![Bad::FalsePass]));
}

#[test]
fn a_tool_that_panics_or_waits_for_ever_rings() {
    let panics: Wrapper = |array| planted(array, |_, error| panic!("cannot handle {error}"));
    let judged = with_bug(panics, "html@diff:1");
    assert_eq!(judged.bad, [Bad::Panic]);
    assert!(judged.words.starts_with("cannot handle GET snapshots/diff/"), "{judged:?}");
    let hangs: Wrapper = |array| {
        planted(array, |_, _| {
            std::thread::sleep(Duration::from_secs(20));
            Ok(Page::default())
        })
    };
    assert_eq!(with_bug(hangs, "html@diff:1").bad, [Bad::Hang]);
}

#[test]
fn a_tool_that_says_nothing_or_doubts_what_is_certain_rings() {
    let mute: Wrapper = |array| planted(array, |_, _| Err(ApiError::Tls(String::new())));
    assert_eq!(with_bug(mute, "html@diff:1").bad, [Bad::Unclear]);
    let strict: Wrapper =
        |array| Box::new(Planted { array, swallow: |_, error| Err(error), takes_snapshots: false });
    assert_eq!(with_bug(strict, "wrong-type@1").bad, [Bad::FalseDoubt]);
}

#[test]
fn a_snapshot_in_no_list_rings_whatever_the_run_came_to() {
    let ended = Ended {
        verdict: crate::oracle::Verdict::Pass,
        at: None,
        compared: Compared::default(),
        met: Vec::new(),
        met_data: Vec::new(),
        met_in_all: 1,
        unlisted: vec!["lost".to_owned()],
        listed: 0,
    };
    let judged = judge::judge(&Ran::Ended(Box::new(ended)), &[], &Compared::default());
    assert_eq!((judged.end, judged.bad), (End::Pass, vec![Bad::Unlisted]));
    assert!(judged.words.contains("in no list: lost"), "{}", judged.words);
}

#[test]
fn one_kind_of_each_sort_at_every_call_leaves_the_bad_columns_empty() {
    let kinds = ["status-503", "truncated-json", "unsorted", "create-reply-lost", "lost-delete"];
    let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
    let config = GridConfig { kinds, quick: true, pairs: 6, ..GridConfig::default() };
    let grid = fail_the_nth(&config, &AtomicBool::new(false), &|_| ()).expect("a server");
    let shown: Vec<_> = grid.rows.iter().flat_map(|row| &row.shown).collect();
    assert!(grid.is_clean(), "{shown:#?}");
    assert_eq!(grid.rows.len(), 6);
    let unsorted = grid.rows.iter().find(|row| row.kind == "unsorted").expect("a row");
    let ends: Vec<&str> = unsorted.ends.keys().map(|end| end.name()).collect();
    assert_eq!(ends, ["pass", "malformed"], "the last run meets no fault any more");
}

#[test]
fn a_kind_that_nobody_knows_is_refused() {
    let config = GridConfig { kinds: vec!["nonsense".to_owned()], ..GridConfig::default() };
    let error = fail_the_nth(&config, &AtomicBool::new(false), &|_| ()).expect_err("unknown");
    assert!(error.to_string().contains("`nonsense`; see `lbaudit list faults`"), "{error}");
}
