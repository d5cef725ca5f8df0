use super::*;

const PAGE: &str = r#"{"nextOffsetLBA":"192","lbaRanges":[{"lbaEnd":"63","dataBitMap":"AAAAAP////8="},{"lbaStart":"128","lbaEnd":"191","dataBitMap":"//////////8="}]}"#;
const SNAPSHOT: &str =
    r#"{"state":"Available","UUID":"u","size":"4096","replicaCount":1,"sectorSize":4096}"#;

fn answer(status: u16, body: &str) -> Answer {
    let (content_type, headers) = ("application/json", Vec::new());
    let body = body.as_bytes().to_vec();
    Answer { status, content_type, headers, body, delivery: Delivery::Whole }
}

fn asked(offset_lba: u64) -> Asked {
    Asked { offset_lba, len_lbas: 300, previous: Some(b"{\"lbaRanges\":[]}".to_vec()) }
}

fn of_page(fault: ApiFault, offset: u64) -> Option<String> {
    let twisted = twist(fault, &answer(200, PAGE), &asked(offset))?;
    Some(String::from_utf8_lossy(&twisted.body).into_owned())
}

/// The starts of the ranges, and the next offset, as somebody reads them who believes everything.
fn read(fault: ApiFault, offset: u64) -> (Vec<u64>, u64) {
    let page = of_page(fault, offset).expect("it applies");
    let page: Value = serde_json::from_str(&page).expect("still JSON");
    let page = page.as_object().expect("still an object");
    let ranges = page.get("lbaRanges").and_then(Value::as_array).expect("still ranges");
    let start = |range: &Value| wide(range.as_object().expect("a range"), "lbaStart");
    (ranges.iter().map(start).collect(), wide(page, "nextOffsetLBA"))
}

#[test]
fn pages_are_bent_one_way_for_each_kind() {
    for (fault, offset, expected) in [
        (ApiFault::OffsetRepeated, 64, (vec![0, 128], 64)),
        (ApiFault::OffsetCycle, 0, (vec![0, 128], 192)),
        (ApiFault::OffsetCycle, 192, (vec![0, 128], 64)),
        (ApiFault::PageLost, 0, (vec![], 192)),
        (ApiFault::Unsorted, 0, (vec![128, 0], 192)),
        (ApiFault::Overlapping, 0, (vec![0, 0, 128], 192)),
        (ApiFault::Misaligned, 0, (vec![1, 128], 192)),
        (ApiFault::PastEnd, 0, (vec![0, 128, 384], 192)),
        (ApiFault::NextRenamed, 0, (vec![0, 128], 0)),
    ] {
        assert_eq!(read(fault, offset), expected, "{fault:?} from {offset}");
    }
    assert_eq!(of_page(ApiFault::OffsetRepeated, 0), None, "0 is the end, not a repetition");
    assert_eq!(of_page(ApiFault::EmptyPage, 0), None, "it would hide the range at LBA 0");
    assert_eq!(of_page(ApiFault::EndlessPages, 0), None, "it goes on by itself");
    let renamed = of_page(ApiFault::NextRenamed, 0).expect("it applies");
    assert!(renamed.contains(r#""nextPageOffset":"192""#), "{renamed}");
    let other = of_page(ApiFault::Overlapping, 0).expect("it applies");
    assert!(other.contains("/wAAAP////8="), "{other}");
}

#[test]
fn an_empty_page_loses_nothing_and_a_page_repeated_is_the_one_before() {
    let later = r#"{"lbaRanges":[{"lbaStart":"128","lbaEnd":"191","dataBitMap":"/////w8AAAA="}]}"#;
    let of = |fault| twist(fault, &answer(200, later), &asked(0)).expect("it applies").body;
    let empty: Value = serde_json::from_slice(&of(ApiFault::EmptyPage)).expect("JSON");
    assert_eq!(empty, json!({"nextOffsetLBA": "128", "lbaRanges": []}));
    let endless: Value = serde_json::from_slice(&of(ApiFault::EndlessPages)).expect("JSON");
    assert_eq!(endless.get("nextOffsetLBA"), Some(&json!("192")));
    let repeated = |offset| twist(ApiFault::PageRepeated, &answer(200, later), &asked(offset));
    assert_eq!(repeated(64).expect("it applies").body, b"{\"lbaRanges\":[]}");
    assert!(repeated(0).is_none(), "there is no page before the first");
}

#[test]
fn members_change_their_form_and_bad_numbers_take_the_place_of_good_ones() {
    let of = |fault| {
        let twisted = twist(fault, &answer(200, SNAPSHOT), &Asked::default()).expect("it applies");
        String::from_utf8(twisted.body).expect("text")
    };
    assert!(of(ApiFault::NumbersBare).contains(r#""size":4096"#));
    assert!(of(ApiFault::NumbersQuoted).contains(r#""replicaCount":"1","sectorSize":"4096""#));
    assert!(of(ApiFault::Negative).contains(r#""size":"-1""#));
    assert!(of(ApiFault::TooBig).contains(r#""size":"18446744073709551616""#));
    assert!(of(ApiFault::Fraction).contains(r#""size":64.5"#));
    let page = of_page(ApiFault::Negative, 0).expect("it applies");
    assert!(page.contains(r#""lbaStart":"-1""#), "{page}");
    assert_eq!(of_page(ApiFault::ZerosAbsent, 0), None, "they are absent already");
    let with = r#"{"nextOffsetLBA":"0","lbaRanges":[{"lbaStart":"0","lbaEnd":"63"}]}"#;
    let without = twist(ApiFault::ZerosAbsent, &answer(200, with), &asked(0)).expect("applies");
    assert_eq!(without.body, br#"{"lbaRanges":[{"lbaEnd":"63"}]}"#);
}

#[test]
fn bytes_that_are_no_json_any_more() {
    let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    for fault in [ApiFault::Truncated, ApiFault::Invalid, ApiFault::Trailing, ApiFault::EmptyBody] {
        let text = of_page(fault, 0).expect("it applies");
        assert!(!is_json(&text), "{fault:?}: {text}");
    }
    let twisted = twist(ApiFault::NotUtf8, &answer(200, PAGE), &asked(0)).expect("it applies");
    assert!(String::from_utf8(twisted.body).is_err());
    let doubled = of_page(ApiFault::DuplicateKeys, 0).expect("it applies");
    assert_eq!(doubled.matches("nextOffsetLBA").count(), 2);
    let gone = twist(ApiFault::NoContent, &answer(200, PAGE), &asked(0)).expect("it applies");
    assert_eq!((gone.status, gone.body.len()), (204, 0));
}

#[test]
fn an_empty_object_and_the_words_of_an_error_have_nothing_to_bend() {
    for &fault in ApiFault::ALL {
        assert!(twist(fault, &answer(200, "{}"), &asked(64)).is_none(), "{fault:?}");
        assert!(twist(fault, &answer(404, "Not Found\n"), &asked(64)).is_none(), "{fault:?}");
    }
    let refused = answer(404, r#"{"error":"not found","code":5}"#);
    assert!(twist(ApiFault::DuplicateKeys, &refused, &asked(0)).is_none());
    let cut = twist(ApiFault::Truncated, &refused, &asked(0)).expect("half an error is none");
    assert_eq!(cut.body, br#"{"error":"not f"#);
}
