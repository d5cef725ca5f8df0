use super::*;
use crate::sync::testing::ScriptedArray;
use proptest::prelude::*;
use std::collections::BTreeMap;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn request(volume_len: u64) -> WalkRequest<'static> {
    WalkRequest {
        snapshot: SnapshotUuid::from_u128(2),
        base: Some(SnapshotUuid::from_u128(1)),
        from: Lba::new(0),
        volume_len: LbaCount::new(volume_len),
        strict: true,
        bugs: PipelineBugs::NONE,
        stop: &GO_ON,
    }
}

fn lenient(volume_len: u64) -> WalkRequest<'static> {
    WalkRequest { strict: false, ..request(volume_len) }
}

fn page(chunks: &[(u64, u64)], next: Option<u64>) -> Page {
    let chunks: Vec<ChunkBits> = chunks
        .iter()
        .map(|&(start, bits)| ChunkBits {
            start: Lba::new(start),
            bits: ChunkBitmap::from_bits(bits),
        })
        .collect();
    let ranges = u32::try_from(chunks.len()).expect("a small page");
    Page { chunks, ranges, next: next.map(Lba::new), notes: Vec::new() }
}

fn run(
    request: &WalkRequest<'_>,
    pages: impl IntoIterator<Item = (u64, Page)>,
) -> Result<DiffAnswer, WalkError> {
    walk(&ScriptedArray::new(pages), request, &mut |_, _| {})
}

#[track_caller]
fn check_fault(request: &WalkRequest<'_>, pages: Vec<(u64, Page)>, expected: ShapeFault) {
    match run(request, pages) {
        Err(WalkError::Shape(fault)) => {
            assert_eq!(fault, expected);
            let text = fault.to_string();
            assert!(text.starts_with(&format!("page {} ", fault.page + 1)), "{text}");
        }
        other => panic!("expected {expected:?}, got {other:?}"),
    }
}

/// How a legal array may cut its answer into pages.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Chunks this page advances.
    advance: u64,
    /// Repeat the chunk at the next offset on this page.
    repeat_edge: bool,
    /// Ranges of the page in reverse order.
    reverse: bool,
}

fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let cut = (1u64..6, any::<bool>(), any::<bool>());
    let cut = cut.prop_map(|(advance, repeat_edge, reverse)| Cut { advance, repeat_edge, reverse });
    prop::collection::vec(cut, 1..12)
}

/// The pages of `bitmaps` (by chunk), from chunk `from` on, cut as `cuts` say, over and over.
fn cut_pages(bitmaps: &BTreeMap<u64, u64>, from: u64, len: u64, cuts: &[Cut]) -> Vec<(u64, Page)> {
    let last_chunk = len.div_ceil(64);
    let mut pages = Vec::new();
    let mut at = from / 64;
    for cut in cuts.iter().cycle() {
        let end = at + cut.advance;
        let is_last = end >= last_chunk;
        let shown_end = if cut.repeat_edge && !is_last { end + 1 } else { end };
        let mut chunks: Vec<_> =
            bitmaps.range(at..shown_end).map(|(&chunk, &bits)| (chunk * 64, bits)).collect();
        if cut.reverse {
            chunks.reverse();
        }
        let requested = if pages.is_empty() { from } else { at * 64 };
        pages.push((requested, page(&chunks, (!is_last).then_some(end * 64))));
        if is_last {
            return pages;
        }
        at = end;
    }
    pages
}

proptest! {
    #[test]
    fn any_legal_cut_into_pages_gives_exactly_the_set(
        bitmaps in prop::collection::btree_map(0u64..30, any::<u64>(), 0..20),
        cuts in cuts(),
        tail in 1u64..65,
        from in 0u64..1500,
    ) {
        let len = 29 * 64 + tail;
        let mut bitmaps = bitmaps;
        if let Some(last) = bitmaps.get_mut(&29) {
            *last &= ChunkBitmap::run(0, u32::try_from(tail).expect("at most 64")).bits();
        }
        let pages = cut_pages(&bitmaps, from, len, &cuts);
        let request = WalkRequest { from: Lba::new(from), ..lenient(len) };
        let mut seen = Vec::new();
        let answer = walk(&ScriptedArray::new(pages.clone()), &request, &mut |n, page| seen.push((n, page.clone())))
            .expect("a legal answer");
        let mut expected = LbaSet::new();
        for (&chunk, &bits) in bitmaps.range(from / 64..) {
            expected.insert_chunk(Lba::new(chunk * 64), ChunkBitmap::from_bits(bits));
        }
        prop_assert_eq!(&answer.set, &expected);
        let chunks: Vec<_> = answer.chunks.iter().map(|c| (c.start.get() / 64, c.bits.bits())).collect();
        let wanted: Vec<_> = bitmaps.range(from / 64..).map(|(&c, &b)| (c, b)).collect();
        prop_assert_eq!(chunks, wanted);
        prop_assert_eq!(answer.pages as usize, pages.len());
        prop_assert_eq!(answer.ranges, pages.iter().map(|(_, p)| u64::from(p.ranges)).sum::<u64>());
        let numbered: Vec<_> = (0..).zip(pages.iter().map(|(_, p)| p.clone())).collect();
        prop_assert_eq!(seen, numbered);
        let disorder = pages.iter().any(|(_, p)| p.chunks.windows(2).any(|w| w[1].start < w[0].start));
        prop_assert_eq!(answer.notes.is_empty(), !disorder, "{:?}", answer.notes);
        let strict = run(&WalkRequest { strict: true, ..request }, pages);
        prop_assert_eq!(strict.is_ok(), !disorder);
    }
}

#[test]
fn an_empty_page_with_a_next_offset_is_not_the_end() {
    let pages = vec![(0, page(&[], Some(64))), (64, page(&[(64, 1)], None))];
    let answer = run(&request(128), pages.clone()).expect("legal");
    assert_eq!((answer.set.count(), answer.pages), (LbaCount::new(1), 2));
    let planted = WalkRequest { bugs: PipelineBug::EmptyPageEndsWalk.into(), ..request(128) };
    let answer = run(&planted, pages).expect("the bug believes it");
    assert_eq!((answer.set.count(), answer.pages), (LbaCount::ZERO, 1));
}

#[test]
fn a_next_offset_that_stays_goes_back_or_is_off_the_grid_is_malformed() {
    let forward = |requested, next| ShapeRule::NextGoesForward {
        requested: Lba::new(requested),
        next: Lba::new(next),
    };
    let first = || (0, page(&[(0, 1)], Some(64)));
    for next in [0, 64] {
        let again = (64, page(&[(64, 1)], Some(next)));
        let fault = ShapeFault { page: 1, rule: forward(64, next) };
        check_fault(&lenient(640), vec![first(), again], fault);
    }
    let rule = ShapeRule::NextAligned { next: Lba::new(65) };
    check_fault(&lenient(640), vec![(0, page(&[], Some(65)))], ShapeFault { page: 0, rule });
    let next = Lba::new(768);
    let rule = ShapeRule::NextInVolume { next, volume_len: LbaCount::new(641) };
    check_fault(&lenient(641), vec![(0, page(&[], Some(768)))], ShapeFault { page: 0, rule });
}

#[test]
fn a_next_offset_at_the_volumes_end_is_the_end_with_a_note() {
    for len in [640, 600] {
        let answer = run(&request(len), [(0, page(&[(0, 1)], Some(640)))]).expect("legal");
        assert_eq!((answer.pages, answer.notes.len()), (1, 1));
    }
}

#[test]
fn a_range_outside_its_page_is_malformed() {
    let rule = ShapeRule::RangeAligned { start: Lba::new(3) };
    check_fault(&lenient(640), vec![(0, page(&[(3, 1)], None))], ShapeFault { page: 0, rule });

    let (start, requested) = (Lba::new(0), Lba::new(64));
    let rule = ShapeRule::RangeAfterRequest { start, requested };
    let pages = vec![(0, page(&[(0, 1)], Some(64))), (64, page(&[(0, 1)], None))];
    check_fault(&lenient(640), pages, ShapeFault { page: 1, rule });

    let (start, next) = (Lba::new(192), Lba::new(128));
    let rule = ShapeRule::RangeBeforeNext { start, next };
    let pages = vec![(0, page(&[(0, 1), (192, 1)], Some(128)))];
    check_fault(&lenient(640), pages, ShapeFault { page: 0, rule });

    let (start, volume_len) = (Lba::new(640), LbaCount::new(640));
    let fault = ShapeFault { page: 0, rule: ShapeRule::RangeInVolume { start, volume_len } };
    check_fault(&lenient(640), vec![(0, page(&[(640, 0)], None))], fault);
    assert_eq!(fault.extent(), Some(Extent::lbas(640, 64)));
}

#[test]
fn a_repeated_chunk_must_carry_the_same_bitmap() {
    let edge = |again| vec![(0, page(&[(64, 6)], Some(64))), (64, page(&[(64, again)], None))];
    let answer = run(&request(128), edge(6)).expect("a legal repetition");
    assert_eq!((answer.set.count().get(), answer.ranges, answer.chunks.len()), (2, 2, 1));
    let (first, again) = (ChunkBitmap::from_bits(6), ChunkBitmap::from_bits(12));
    let rule = ShapeRule::SameBitmap { start: Lba::new(64), first, again };
    check_fault(&lenient(128), edge(12), ShapeFault { page: 1, rule });
    let in_page = vec![(0, page(&[(64, 6), (64, 12)], None))];
    check_fault(&lenient(128), in_page, ShapeFault { page: 0, rule });
}

#[test]
fn disorder_is_a_fault_on_the_simulator_and_a_note_elsewhere() {
    let pages = vec![(0, page(&[(64, 1), (0, 1)], None))];
    let rule = ShapeRule::Ascending { start: Lba::new(0), after: Lba::new(64) };
    check_fault(&request(128), pages.clone(), ShapeFault { page: 0, rule });
    let answer = run(&lenient(128), pages).expect("legal on a live array");
    assert_eq!((answer.set.count().get(), answer.notes.len()), (2, 1));
}

#[test]
fn bits_past_the_end_are_a_fault_on_the_simulator_and_cut_off_elsewhere() {
    let pages = vec![(0, page(&[(64, 0b1111)], None))];
    let rule = ShapeRule::NoPadBits { start: Lba::new(64), pad: ChunkBitmap::from_bits(0b1100) };
    check_fault(&request(66), pages.clone(), ShapeFault { page: 0, rule });
    let answer = run(&lenient(66), pages).expect("legal on a live array");
    assert_eq!(answer.set, LbaSet::from(Extent::lbas(64, 2)));
    assert_eq!(answer.chunks.first().map(|chunk| chunk.bits.bits()), Some(0b11));
    assert_eq!(answer.notes.len(), 1);
}

#[test]
fn a_full_page_without_a_next_offset_is_not_believed() {
    let full: Vec<_> = (0..u64::from(PAGE_RANGES_MAX)).map(|chunk| (chunk * 64, 1)).collect();
    let after = u64::from(PAGE_RANGES_MAX) * 64;
    let ends = |rest: Page| vec![(0, page(&full, None)), (after, rest)];
    let answer = run(&request(after * 2), ends(page(&[], None))).expect("nothing follows");
    assert_eq!(answer.pages, 1);
    let rule = ShapeRule::FullPageIsLast { more: Lba::new(after) };
    let cut_off = ends(page(&[(after, 1)], None));
    check_fault(&request(after * 2), cut_off, ShapeFault { page: 0, rule });
    let (empty, rest) = ((after, page(&[], Some(after + 64))), after + 64);
    let behind_empty =
        vec![(0, page(&full, None)), empty.clone(), (rest, page(&[(rest, 1)], None))];
    let fault = ShapeFault { page: 0, rule: ShapeRule::FullPageIsLast { more: Lba::new(rest) } };
    check_fault(&request(after * 2), behind_empty, fault);
    let stays = vec![(0, page(&full, None)), (after, page(&[], Some(after)))];
    let (requested, next) = (Lba::new(after), Lba::new(after));
    let rule = ShapeRule::NextGoesForward { requested, next };
    check_fault(&request(after * 2), stays, ShapeFault { page: 0, rule });
    let all_empty = [(0, page(&full, None)), empty, (rest, page(&[], None))];
    assert!(run(&request(after * 2), all_empty).is_ok(), "empty pages up to the end");
    let whole_volume = run(&request(after), [(0, page(&full, None))]).expect("nothing can follow");
    assert_eq!(whole_volume.ranges, u64::from(PAGE_RANGES_MAX));
}

#[test]
fn a_page_with_a_field_that_nobody_knows_is_the_last_one_only_if_nothing_follows() {
    let odd = |chunks: &[(u64, u64)]| Page {
        notes: vec!["unknown field `resumeAt` in the page".to_owned()],
        ..page(chunks, None)
    };
    let cut_off = vec![(0, odd(&[(64, 1)])), (128, page(&[(192, 1)], None))];
    let rule = ShapeRule::OddPageIsLast { more: Lba::new(192) };
    check_fault(&request(640), cut_off, ShapeFault { page: 0, rule });
    // Without a range, what follows the chunk that was asked for.
    let nothing = vec![(0, odd(&[])), (64, page(&[(192, 1)], None))];
    check_fault(&request(640), nothing, ShapeFault { page: 0, rule });
    let whole = vec![(0, odd(&[(64, 1)])), (128, page(&[], None))];
    let answer = run(&request(640), whole).expect("nothing follows");
    assert_eq!((answer.pages, answer.set.count().get()), (1, 1));
    assert!(run(&request(128), [(0, odd(&[(64, 1)]))]).is_ok(), "nothing can follow");
}

#[test]
fn a_refusal_is_handed_on_and_the_stop_flag_ends_the_walk() {
    let refused = run(&request(640), [(0, page(&[], Some(64)))]);
    assert!(matches!(refused, Err(WalkError::Api(ApiError::Refused(_)))), "{refused:?}");
    let stop = AtomicBool::new(true);
    let stopped = run(&WalkRequest { stop: &stop, ..request(640) }, [(0, page(&[], None))]);
    assert!(matches!(stopped, Err(WalkError::Api(ApiError::Interrupted))), "{stopped:?}");
}

#[test]
fn one_oddity_on_many_pages_is_one_note() {
    let odd = |next| Page { notes: vec!["lbaEnd is exclusive".into()], ..page(&[], next) };
    let answer = run(&request(128), [(0, odd(Some(64))), (64, odd(None))]).expect("legal");
    assert_eq!(answer.notes, ["lbaEnd is exclusive"]);
}
