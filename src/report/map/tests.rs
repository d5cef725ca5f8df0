//! Both drawings show the cells of the map, and maps show what a finding is about.

use super::*;
use crate::block::{BlockSize, Extent, Geometry, Lba, LbaCount, LbaSet, Policy, Role};
use crate::campaign::case::{CaseOutcome, record_case};
use crate::campaign::record::record;
use crate::campaign::selftest::Planted;
use crate::campaign::witness::witness;
use crate::engine::Event;
use crate::judge::read_records;
use crate::oracle::{Kind, Violation};
use crate::scenario::{Header, Label, Op, Scenario};
use proptest::prelude::*;

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        prop::sample::select(Cell::all()),
        (1u32..60).prop_map(Cell::Holds),
        Just(Cell::Reported),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn both_drawings_show_the_same_cells(
        chunks in prop::collection::btree_set(0u64..1 << 40, 1..=3),
        rows in prop::collection::vec(prop::collection::vec(cell(), 192), 1..6),
    ) {
        let chunks: Vec<u64> = chunks.into_iter().collect();
        let width = chunks.len() * 64;
        let row = |cells: Vec<Cell>| {
            let cells = cells.into_iter().take(width).collect();
            Row { title: "s0 to s1".to_owned(), verdict: false, cells }
        };
        let rows: Vec<Row> = rows.into_iter().map(row).collect();
        let map = LbaMap { chunks, more_chunks: 0, rows };
        let look = |cell: &Cell| (cell.class().name().to_owned(), cell.letter());
        let cells: Vec<Vec<(String, char)>> =
            map.rows.iter().map(|row| row.cells.iter().map(look).collect()).collect();
        for fold in [Fold::Wide, Fold::Narrow] {
            let svg = map_svg(&map, fold, "m").into_string();
            prop_assert_eq!(&svg::tests::looks(&svg, fold, map.rows.len(), width), &cells);
        }
        prop_assert_eq!(&png::tests::looks(&map), &cells);
    }
}

#[test]
fn letters_can_be_read_on_their_ground() {
    let luminance = |colour: [u8; 3]| -> f64 {
        let linear = |value: u8| match f64::from(value) / 255.0 {
            value if value <= 0.04045 => value / 12.92,
            value => ((value + 0.055) / 1.055).powf(2.4),
        };
        let [r, g, b] = colour.map(linear);
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    for class in Class::ALL.into_iter().filter(|class| *class != Class::Empty) {
        let (ground, ink) = class.colours();
        let (a, b) = (luminance(ground), luminance(ink));
        let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
        assert!(contrast >= 4.5, "{class:?} {contrast:.2}");
    }
}

fn in_process(scenario: &Scenario, on_event: &mut dyn FnMut(Event)) -> CaseOutcome {
    record_case(scenario, on_event).expect("sets up")
}

/// The violation and the map of a scenario.
fn mapped(scenario: &Scenario) -> (Violation, Option<LbaMap>) {
    let (outcome, recording) = record(scenario, &in_process).expect("encodes");
    let violation = outcome.verdict.violation().expect("it is wrong").clone();
    let text = String::from_utf8(recording.lines().to_vec()).expect("JSON is UTF-8");
    let records = read_records(&text).expect("reads");
    let map = map_of(&violation, scenario, &records);
    (violation, map)
}

fn discarded() -> Scenario {
    let at = Extent::lbas(64, 8);
    let take = |n| Op::Take { label: Label(n), wait: true };
    let diff =
        Op::Diff { snap: Label(1), base: Some(Label(0)), from: Lba::new(0), between_pages: None };
    let shape = Geometry { block: BlockSize::SMALLEST, len: LbaCount::new(100), fresh: true };
    let volumes = [(Role::Source, shape), (Role::Target, shape)].into();
    let mut header = Header::new(volumes, Policy::Exact, "a test");
    header.planted = vec!["discard-untracked".to_owned()];
    Scenario::new(header, [Op::Write { at }, take(0), Op::Discard { at }, take(1), diff])
}

#[test]
fn a_missed_discard_is_shown_from_its_epoch_to_the_difference() {
    let (_, map) = mapped(&discarded());
    let map = map.expect("it concerns LBAs");
    assert_eq!((map.chunks.as_slice(), map.more_chunks), ([1].as_slice(), 0));
    let words: Vec<(String, String)> =
        map.rows.iter().map(|row| (row.title.clone(), map.words(row))).collect();
    let row = |title: &str, words: &str| (title.to_owned(), words.to_owned());
    assert_eq!(
        words,
        [
            row("before s0", "write 64..71; past the end 100..127"),
            row("s0 to s1 *", "discard 64..71; past the end 100..127"),
            row("expected", "must be reported 64..71; past the end 100..127"),
            row("reported", "past the end 100..127"),
            row("difference", "missed 64..71; past the end 100..127"),
        ]
    );
}

#[test]
fn without_a_recording_the_steps_and_the_violations_picture_are_shown() {
    let scenario = discarded();
    let (violation, whole) = mapped(&scenario);
    let bare = map_of(&violation, &scenario, &[]).expect("it concerns LBAs");
    let titles = |map: &LbaMap| map.rows.iter().map(|row| row.title.clone()).collect::<Vec<_>>();
    assert_eq!(titles(&bare), titles(&whole.expect("it concerns LBAs")));
    assert_eq!(bare.words(bare.rows.last().expect("a row")), "missed 64..71");
}

#[test]
fn the_difference_of_every_planted_bug_shows_what_its_violation_is_about() {
    let mut shown = 0;
    for bug in Planted::all() {
        let Some(mut scenario) = witness(bug.name()) else { continue };
        scenario.header.planted = vec![bug.name().to_owned()];
        let outcome = record_case(&scenario, &mut |_| ()).expect("sets up");
        if let Some(last) = outcome.failed_at {
            scenario.steps.truncate(last + 1);
        }
        if outcome.verdict.violation().is_none() {
            continue;
        }
        let (violation, map) = mapped(&scenario);
        let Some(map) = map else {
            assert!(violation.extents.is_empty(), "{}: {violation}", bug.name());
            continue;
        };
        let last = map.rows.last().expect("a row");
        let sought = match violation.kind {
            Kind::Missed => Cell::Missed,
            Kind::Content => Cell::Wrong,
            _ => Cell::Extra,
        };
        let wrong: LbaSet = last
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| **cell == sought)
            .filter_map(|(column, _)| Some(Extent::lbas(map.lba(column)?, 1)))
            .collect();
        let shown_chunks = |set: &LbaSet| -> LbaSet {
            let chunks = map.chunks.iter().map(|chunk| set.within(Extent::lbas(chunk * 64, 64)));
            chunks.flat_map(|set| set.runs().to_vec()).collect()
        };
        if matches!(violation.kind, Kind::Missed | Kind::Leaked | Kind::Content | Kind::Disturbed) {
            assert_eq!(
                wrong,
                shown_chunks(&violation.extents),
                "{}: {violation} {map:#?}",
                bug.name()
            );
            shown += 1;
        }
    }
    assert!(shown > 25, "only {shown} maps");
}

#[test]
fn many_chunks_are_cut_and_counted() {
    let violation = Violation::new(Kind::Missed, "much").at(LbaSet::from(Extent::lbas(0, 640)));
    let map = map_of(&violation, &discarded(), &[]).expect("it concerns LBAs");
    assert_eq!((map.chunks.len(), map.more_chunks), (4, 6));
    assert_eq!(map.title(), "chunks 0, 1, 2, 3 and 6 more chunks");
}
