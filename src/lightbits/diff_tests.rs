use super::*;
use proptest::prelude::*;

const LEN: Option<LbaCount> = Some(LbaCount::new(1 << 20));

fn page(body: &str) -> Result<Page, String> {
    decode_diff_page(body.as_bytes(), BitmapOrder::Little, LEN)
}

/// The start and bits of every chunk of a page.
fn chunks(page: Result<Page, String>) -> Vec<(u64, u64)> {
    page.unwrap().chunks.iter().map(|c| (c.start.get(), c.bits.bits())).collect()
}

/// One range with this bitmap, as JSON.
fn with_bitmap(bitmap: &str) -> String {
    format!(r#"{{"lbaRanges":[{{"lbaStart":"64","lbaEnd":"127","dataBitMap":{bitmap}}}]}}"#)
}

#[test]
fn the_golden_answer_reads_as_the_golden_write() {
    let body = r#"{"nextOffsetLBA":"0","lbaRanges":[
        {"lbaStart":"250880","lbaEnd":"250943","dataBitMap":"AAAAAP////8="},
        {"lbaStart":"250944","lbaEnd":"251007","dataBitMap":"//////////8="},
        {"lbaStart":"251008","lbaEnd":"251071","dataBitMap":"//////////8="},
        {"lbaStart":"251072","lbaEnd":"251135","dataBitMap":"//////////8="},
        {"lbaStart":"251136","lbaEnd":"251199","dataBitMap":"/////wAAAAA="}]}"#;
    let page = page(body).unwrap();
    assert_eq!((page.ranges, page.next, page.notes.len()), (5, None, 0));
    let lbas: Vec<(u64, u64)> = page
        .chunks
        .iter()
        .flat_map(|c| c.bits.extents(c.start))
        .map(|extent| (extent.start().get(), extent.len_lbas().get()))
        .collect();
    assert_eq!(lbas, [(250_912, 32), (250_944, 64), (251_008, 64), (251_072, 64), (251_136, 32)]);
}

#[test]
fn every_form_of_a_bitmap_reads_as_its_literal_bits() {
    let upper = 0xffff_ffff_0000_0000;
    for (form, order, bits) in [
        (r#""AAAAAP////8=""#, BitmapOrder::Little, upper),
        (r#""/////wAAAAA=""#, BitmapOrder::Big, upper),
        (r#""AgAAAAAAAAA=""#, BitmapOrder::Little, 2),
        (r#""AAAAAAAAAAI=""#, BitmapOrder::Big, 2),
        (r#""AAAAAAAAAAI=""#, BitmapOrder::Little, 2 << 56),
        (r#""//////////8=""#, BitmapOrder::Little, u64::MAX),
        (r#""0xffffffff00000000""#, BitmapOrder::Little, upper),
        (r#""0xFFFFFFFF00000000""#, BitmapOrder::Big, upper),
        (r#""0x2""#, BitmapOrder::Big, 2),
        ("18446744069414584320", BitmapOrder::Little, upper),
        ("18446744069414584320", BitmapOrder::Big, upper),
        (r#""18446744069414584320""#, BitmapOrder::Little, upper),
        (r#""18446744073709551615""#, BitmapOrder::Little, u64::MAX),
        ("0", BitmapOrder::Little, 0),
        ("[0,0,0,0,255,255,255,255]", BitmapOrder::Little, upper),
        ("[255,255,255,255,0,0,0,0]", BitmapOrder::Big, upper),
    ] {
        let page = decode_diff_page(with_bitmap(form).as_bytes(), order, LEN);
        assert_eq!(chunks(page), [(64, bits)], "{form} {order:?}");
    }
}

#[test]
fn anything_else_is_no_bitmap() {
    for form in [
        r#""AAAAAP////8""#,  // no padding
        r#""AAAAAP////9=""#, // bits behind the last byte
        r#""AAAAAP///w==""#, // 7 bytes
        r#""AAAA====AAA=""#,
        r#""AAAAAP__-_8=""#, // URL alphabet
        r#"" AAAAP////8=""#,
        r#""0x""#,
        r#""0x+2""#,
        r#""0x10000000000000000""#,
        r#""18446744073709551616""#,
        r#""007""#,
        r#""-1""#,
        r#""1.0""#,
        r#""AAAA""#,                     // 3 bytes
        r#""AAAAAP////8AAAAAAAAAAA==""#, // 16 bytes for 64 LBAs
        "-1",
        "1.0",
        "1e3",
        "18446744073709551616",
        "true",
        "{}",
        "[]",
        "[0,0,0,0,0,0,0]",
        "[0,0,0,0,0,0,0,0,0]",
        "[0,0,0,0,0,0,0,256]",
        "[0,0,0,0,0,0,0,-1]",
        r#"["0",0,0,0,0,0,0,0]"#,
    ] {
        assert!(page(&with_bitmap(form)).is_err(), "{form}");
    }
}

#[test]
fn absent_null_and_zero_are_the_same() {
    for body in [
        "{}",
        r#"{"lbaRanges":[]}"#,
        r#"{"lbaRanges":null,"nextOffsetLBA":null}"#,
        r#"{"nextOffsetLBA":"0","lbaRanges":[]}"#,
        r#"{"nextOffsetLBA":0}"#,
        " {\n} ",
    ] {
        assert_eq!(page(body), Ok(Page::default()), "{body}");
    }
    let first = r#"{"lbaRanges":[{"lbaEnd":"63","dataBitMap":"AQAAAAAAAAA="}]}"#;
    assert_eq!(chunks(page(first)), [(0, 1)]);
    let bare = r#"{"lbaRanges":[{"dataBitMap":"AQAAAAAAAAA="}]}"#;
    assert_eq!(chunks(page(bare)), [(0, 1)]);
}

#[test]
fn every_spelling_of_the_fields_is_taken() {
    for next in ["nextOffsetLBA", "nextLBAOffset", "nextOffsetLba"] {
        for value in ["640", r#""640""#] {
            let body = format!(r#"{{"{next}":{value}}}"#);
            assert_eq!(page(&body).unwrap().next, Some(Lba::new(640)), "{body}");
        }
    }
    let body = r#"{"lbaRanges":[{"startLBA":128,"endLBA":191,"dataBitMap":3}]}"#;
    assert_eq!(chunks(page(body)), [(128, 3)]);
}

#[test]
fn the_end_of_a_range_may_be_inclusive_exclusive_or_cut_at_the_end_of_the_volume() {
    let read = |start: u64, end: u64, len: Option<u64>| {
        let body =
            format!(r#"{{"lbaRanges":[{{"lbaStart":{start},"lbaEnd":{end},"dataBitMap":1}}]}}"#);
        decode_diff_page(body.as_bytes(), BitmapOrder::Little, len.map(LbaCount::new)).is_ok()
    };
    for (start, end, len, fits) in [
        (64, 127, None, true),
        (64, 128, None, true),
        (64, 126, None, false),
        (64, 129, None, false),
        (64, 63, None, false),
        (64, 0, None, false),
        (64, 99, Some(100), true),
        (64, 100, Some(100), true),
        (64, 98, Some(100), false),
        (64, 101, Some(100), false),
        (64, 127, Some(100), true), // reaches past the end: legible, the oracle judges
        (64, 99, None, false),
        (0, 999, Some(1000), false),
        (u64::MAX - 63, u64::MAX, None, true),
        (u64::MAX, u64::MAX, None, false),
        (u64::MAX, 0, None, false),
    ] {
        assert_eq!(read(start, end, len), fits, "{start}..{end} of {len:?}");
    }
}

#[test]
fn a_range_without_bitmap_has_changed_as_a_whole_if_its_end_is_certain() {
    let read = |start: u64, end: &str, len: Option<u64>| {
        let body = format!(r#"{{"lbaRanges":[{{"lbaStart":{start}{end}}}]}}"#);
        decode_diff_page(body.as_bytes(), BitmapOrder::Little, len.map(LbaCount::new))
            .map(|page| page.chunks.iter().map(|c| c.bits.count().get()).sum::<u64>())
    };
    for (start, end, len, lbas) in [
        (64, r#","lbaEnd":127"#, None, Some(64)),
        (64, r#","lbaEnd":128"#, None, Some(64)),
        (64, r#","lbaEnd":128,"dataBitMap":"""#, None, Some(64)),
        (64, r#","lbaEnd":128,"dataBitMap":null"#, None, Some(64)),
        (0, r#","lbaEnd":255"#, None, Some(256)),
        (64, r#","lbaEnd":99"#, Some(100), Some(36)),
        (64, r#","lbaEnd":100"#, Some(100), Some(36)),
        (0, r#","lbaEnd":64"#, Some(65), Some(65)), // both readings fit: the wider one
        (0, r#","lbaEnd":63"#, Some(63), Some(63)), // not past the end
        (64, r#","lbaEnd":99"#, None, None),
        (64, r#","lbaEnd":64"#, None, None),
        (64, r#","lbaEnd":63"#, None, None),
        (64, "", None, None),
        (0, r#","lbaEnd":18446744073709551615"#, None, None),
        (0, r#","lbaEnd":18446744073709551552"#, None, None),
        (u64::MAX - 1, r#","lbaEnd":18446744073709551615"#, None, None),
    ] {
        assert_eq!(read(start, end, len).ok(), lbas, "{start} {end} of {len:?}");
    }
}

#[test]
fn a_wide_bitmap_needs_a_range_as_wide_and_little_endian() {
    let wide = |end: u64, order| {
        let bitmap = "AQAAAAAAAAACAAAAAAAAAA=="; // 16 bytes: bits 0 and 65
        let body = format!(
            r#"{{"lbaRanges":[{{"lbaStart":"128","lbaEnd":"{end}","dataBitMap":"{bitmap}"}}]}}"#
        );
        decode_diff_page(body.as_bytes(), order, LEN)
    };
    for end in [255, 256] {
        let page = wide(end, BitmapOrder::Little).unwrap();
        assert_eq!(page.ranges, 1, "one range on the wire, two chunks here");
        assert_eq!(chunks(Ok(page)), [(128, 1), (192, 2)]);
        assert!(wide(end, BitmapOrder::Big).is_err());
    }
    for end in [127, 191, 192, 254, 257] {
        assert!(wide(end, BitmapOrder::Little).is_err(), "{end}");
    }
    let odd = r#"{"lbaRanges":[{"lbaEnd":71,"dataBitMap":"AAAAAAAAAAD/"}]}"#; // 9 bytes
    assert_eq!(chunks(page(odd)), [(0, 0), (64, 255)]);
}

#[test]
fn a_full_page_without_continuation_is_refused() {
    let ranges: Vec<String> =
        (0..10_000).map(|i| format!(r#"{{"lbaStart":{},"dataBitMap":1}}"#, i * 64)).collect();
    let body =
        |ranges: &[String], next: &str| format!(r#"{{{next}"lbaRanges":[{}]}}"#, ranges.join(","));
    let refused = page(&body(&ranges, "")).unwrap_err();
    assert!(refused.contains("10000 ranges without continuation"), "{refused}");
    assert!(page(&body(&ranges, r#""nextOffsetLBA":"0","#)).is_err());
    assert_eq!(page(&body(&ranges, r#""nextOffsetLBA":"640000","#)).unwrap().ranges, 10_000);
    assert_eq!(page(&body(&ranges[..9_999], "")).unwrap().ranges, 9_999);
}

#[test]
fn what_could_end_the_walk_or_empty_a_page_in_silence_is_refused() {
    for (body, says) in [
        (r#"{"lbaRanges":[],"NextOffset":"64"}"#, "NextOffset"),
        (r#"{"lbaRanges":[],"nextoffsetlba":"64"}"#, "nextoffsetlba"),
        (r#"{"lbaRanges":[],"pageNext":null}"#, "pageNext"),
        (r#"{"lbaRanges":[],"cursor":"x"}"#, "cursor"),
        (r#"{"lbaRanges":[],"hasMore":true}"#, "hasMore"),
        (r#"{"LbaRanges":[]}"#, "LbaRanges"),
        (r#"{"changedRanges":[]}"#, "changedRanges"),
        (r#"{"snapshots":[]}"#, "snapshots"),
        (r#"{"error":"no","message":"no","code":13,"details":[]}"#, "error"),
        (r#"{"lbaRanges":[],"code":13}"#, "code"),
        (r#"{"lbaRanges":[{"lba_start":64,"dataBitMap":1}]}"#, "lba_start"),
        (r#"{"lbaRanges":[{"lbaStart":64,"lbaEnd":127,"dataBitmap":1}]}"#, "dataBitmap"),
        (r#"{"lbaRanges":[{}]}"#, "neither a bitmap nor an lbaEnd"),
    ] {
        let error = page(body).unwrap_err();
        assert!(error.contains(says), "{body}: {error}");
    }
}

#[test]
fn harmless_unknown_fields_are_noted_and_escaped() {
    let page = page(r#"{"lbaRanges":[],"took\u001b":{"ms":[1,2]}}"#).unwrap();
    assert_eq!(page.notes, ["unknown field `took\\u{1b}` in the page"]);
    let range = r#"{"lbaRanges":[{"lbaStart":0,"lbaEnd":63,"dataBitMap":1,"weight":7}]}"#;
    assert_eq!(chunks(self::page(range)), [(0, 1)]);
}

#[test]
fn malformed_pages_are_refused() {
    for body in [
        "",
        " ",
        "null",
        "[]",
        "[\"5\",[]]",
        "0",
        "\"\"",
        "true",
        "{",
        r#"{"lbaRanges":[{"lbaStart":"0","#,
        r#"{"lbaRanges":[]}x"#,
        r#"{"lbaRanges":[]}{}"#,
        "\u{feff}{}",
        "<html>login</html>",
        "NaN",
        r#"{"lbaRanges":{}}"#,
        r#"{"lbaRanges":"x"}"#,
        r#"{"lbaRanges":[[]]}"#,
        r#"{"lbaRanges":[["0","63","AQAAAAAAAAA="]]}"#,
        r#"{"lbaRanges":[null]}"#,
        r#"{"lbaRanges":[],"lbaRanges":[]}"#,
        r#"{"nextOffsetLBA":"0","nextOffsetLBA":"64"}"#,
        r#"{"nextOffsetLBA":"0","nextLBAOffset":"64"}"#,
        r#"{"lbaRanges":[{"lbaStart":0,"lbaStart":64,"dataBitMap":1}]}"#,
        r#"{"lbaRanges":[{"lbaStart":0,"startLBA":64,"dataBitMap":1}]}"#,
        r#"{"lbaRanges":[{"lbaEnd":63,"endLBA":63,"dataBitMap":1}]}"#,
        r#"{"lbaRanges":[{"dataBitMap":1,"dataBitMap":2}]}"#,
        r#"{"lbaRanges":[],"took":1,"took":2}"#,
        r#"{"nextOffsetLBA":-64}"#,
        r#"{"nextOffsetLBA":64.0}"#,
        r#"{"nextOffsetLBA":6.4e1}"#,
        r#"{"nextOffsetLBA":-0}"#,
        r#"{"nextOffsetLBA":18446744073709551616}"#,
        r#"{"nextOffsetLBA":"18446744073709551616"}"#,
        r#"{"nextOffsetLBA":""}"#,
        r#"{"nextOffsetLBA":"064"}"#,
        r#"{"nextOffsetLBA":"+64"}"#,
        r#"{"nextOffsetLBA":" 64"}"#,
        r#"{"nextOffsetLBA":"0x40"}"#,
        r#"{"nextOffsetLBA":"abc"}"#,
        r#"{"nextOffsetLBA":true}"#,
        r#"{"nextOffsetLBA":[64]}"#,
        r#"{"nextOffsetLBA":{}}"#,
    ] {
        assert!(page(body).is_err(), "{body}");
    }
    assert!(decode_diff_page(b"{\"lbaRanges\":\xff}", BitmapOrder::Little, LEN).is_err());
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(page(&deep).is_err(), "deep nesting neither passes nor overflows the stack");
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused_without_panic(
        bytes: Vec<u8>, start: u64, end: u64, next: u64, len: Option<u64>,
        bitmap in "([A-Za-z0-9+/]{0,24}={0,2}|0x[0-9a-f]{0,17}|[0-9]{0,21})",
    ) {
        let len = len.map(LbaCount::new);
        let shaped = format!(
            r#"{{"nextOffsetLBA":{next},"lbaRanges":[{{"lbaStart":{start},"lbaEnd":"{end}","dataBitMap":"{bitmap}"}}]}}"#
        );
        for body in [&bytes[..], shaped.as_bytes()] {
            for order in [BitmapOrder::Little, BitmapOrder::Big] {
                if let Ok(page) = decode_diff_page(body, order, len) {
                    prop_assert!(page.chunks.len() <= PAGE_MAX);
                    prop_assert!(page.next.is_none_or(|next| next > Lba::new(0)));
                }
            }
        }
    }

    #[test]
    fn all_forms_of_one_bitmap_agree(bits: u64) {
        let le = ChunkBitmap::from_bits(bits).to_wire(BitmapOrder::Little);
        let list = format!("{le:?}");
        for form in [
            format!("\"{}\"", STANDARD.encode(le)), format!("\"{bits:#x}\""),
            bits.to_string(), format!("\"{bits}\""), list,
        ] {
            prop_assert_eq!(chunks(page(&with_bitmap(&form))), [(64, bits)], "{}", form);
        }
    }
}
