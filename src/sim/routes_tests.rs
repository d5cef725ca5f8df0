use super::*;

#[test]
fn paths_lead_to_calls_and_a_trailing_slash_is_an_empty_uuid() {
    let to = |call, project: Option<&str>, uuid: &str| {
        Routed::To(call, Captured { project: project.map(str::to_owned), uuid: uuid.to_owned() })
    };
    let p = "/api/v2/projects/p";
    for (method, path, expected) in [
        ("GET", "/api/v2/version".to_owned(), to(Call::Version, None, "")),
        ("GET", format!("{p}/volumes"), to(Call::ListVolumes, Some("p"), "")),
        ("GET", format!("{p}/volumes/"), to(Call::GetVolume, Some("p"), "")),
        ("GET", format!("{p}/volumes/u"), to(Call::GetVolume, Some("p"), "u")),
        ("GET", "/api/v2/volumes/u".to_owned(), to(Call::GetVolume, None, "u")),
        ("PUT", format!("{p}/volumes/u/rollback"), to(Call::Rollback, Some("p"), "u")),
        ("GET", format!("{p}/snapshots/diff/u"), to(Call::Diff, Some("p"), "u")),
        ("GET", format!("{p}/snapshots/diff/"), to(Call::Diff, Some("p"), "")),
        ("GET", format!("{p}/snapshots/diff"), to(Call::GetSnapshot, Some("p"), "diff")),
        ("POST", format!("{p}/volumes/u"), Routed::OtherMethod),
        ("GET", format!("{p}/volumes/u/"), Routed::Nowhere),
        ("GET", format!("{p}/Volumes"), Routed::Nowhere),
        ("GET", "/api/v2".to_owned(), Routed::Nowhere),
        ("GET", "/api/v1/version".to_owned(), Routed::Nowhere),
    ] {
        assert_eq!(route(method, &path), expected, "{method} {path}");
    }
}

#[test]
fn queries_decode_and_the_first_value_counts() {
    let query = Query::parse("a=1&a=2&b=x+y%2Fz&c&=d&e=").unwrap();
    assert_eq!(query.text("a"), Some("1"));
    assert_eq!(query.text("b"), Some("x y/z"));
    assert_eq!(query.text("c"), None);
    assert_eq!(query.text("A"), None);
    assert_eq!(query.number("a"), Ok(Some(1)));
    assert_eq!(query.number("nosuch"), Ok(None));
    assert!(query.number("e").is_err() && query.number("b").is_err());
    assert_eq!(query.flag("a"), Ok(true));
    assert_eq!(query.flag("nosuch"), Ok(false));
    assert!(query.flag("b").is_err() && query.flag("c").is_err());
    for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", "%=a", "a=%+1"] {
        assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
    }
}

#[test]
fn only_the_usual_spelling_of_a_uuid_is_one() {
    let usual = "123e4567-e89b-12d3-a456-426614174000";
    assert_eq!(parse_uuid::<Uuid>(usual).map(|uuid| uuid.to_string()), Ok(usual.to_owned()));
    assert!(parse_uuid::<Uuid>(&usual.to_uppercase()).is_ok());
    for bad in ["", "x", "123e4567e89b12d3a456426614174000", &format!("{{{usual}}}")] {
        assert_eq!(parse_uuid::<Uuid>(bad).unwrap_err().status, 400, "{bad}");
    }
}

#[test]
fn names_are_1_to_253_of_the_legal_characters() {
    assert!(is_name("a") && is_name("A-b_c.9") && is_name(&"x".repeat(253)));
    for bad in ["", "a b", "a/b", "é", "a\n", &"x".repeat(254)] {
        assert!(!is_name(bad), "{bad:?}");
    }
}

#[test]
fn the_scheme_of_a_token_is_case_insensitive_and_its_newline_is_trimmed() {
    assert_eq!(bearer("Bearer abc"), Some("abc"));
    assert_eq!(bearer("bearer  abc\n"), Some("abc"));
    assert_eq!(bearer("Basic abc"), None);
    assert_eq!(bearer("Bearerabc"), None);
}
