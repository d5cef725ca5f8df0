use super::*;
use proptest::prelude::*;

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

fn api() -> Api {
    let clock = std::sync::Arc::new(crate::array::VirtualClock::new());
    let array = SimArray::new(crate::sim::SimConfig::default(), clock);
    let volume = array.create_volume("v", crate::block::LbaCount::new(640), None).unwrap();
    array.create_snapshot(volume, "s").unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    Api::new(array, Arc::new(TokenKey::generate().unwrap()), "p".to_owned(), Profile::A, addr, &[])
}

/// Paths near the real ones, so that what is behind the routes is reached.
fn any_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("p".to_owned()),
        Just("volumes".to_owned()),
        Just("snapshots".to_owned()),
        Just("diff".to_owned()),
        Just(String::new()),
        "\\PC{0,8}",
    ];
    let below = proptest::collection::vec(segment, 0..5)
        .prop_map(|segments| format!("/api/v2/projects/{}", segments.join("/")));
    prop_oneof![3 => below, 1 => "\\PC{0,40}"]
}

proptest! {
    #[test]
    fn whatever_is_asked_is_answered_in_a_documented_form(
        method in prop_oneof![Just("GET"), Just("PUT"), Just("POST"), Just("DELETE"), Just("X")],
        path in any_path(),
        query in "((name|Name|limit|offsetLBA|UUID|showAll|x)=[0-9a-z%+]{0,6}&?){0,3}",
        body in prop_oneof![Just("{}".to_owned()), "\\PC{0,30}", "\\{\"name\":(1|null|\"a\"|\\[\\])\\}"],
        with_token: bool,
    ) {
        let api = api();
        let token = api.key().mint(&crate::sim::jwt::Claims::admin("p", 60)).unwrap();
        let bearer = format!("Bearer {token}");
        let reply = api.answer(&Request {
            method,
            path: &path,
            query: &query,
            authorization: with_token.then_some(bearer.as_str()),
            if_match: None,
            body: body.as_bytes(),
        });
        if reply.content_type == "application/json" {
            let json: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            prop_assert!(json.is_object());
            prop_assert_eq!(reply.status == 200, json.get("error").is_none());
            prop_assert!(with_token || reply.status == 401, "{} without a token", reply.status);
        } else {
            prop_assert!(matches!(reply.status, 400 | 404 | 405), "{}", reply.status);
        }
    }

    #[test]
    fn percent_encoding_every_byte_is_undone(text in "\\PC{0,20}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(percent_decode(&encoded), Some(text));
    }

    #[test]
    fn no_text_is_a_token(text in "\\PC{0,60}") {
        let key = TokenKey::generate().unwrap();
        prop_assert!(key.verify(&text, 0).is_err());
    }
}

/// Asks `GET volumes` often; the statuses and bodies.
fn many_answers(freedoms: crate::block::Freedoms) -> Vec<Reply> {
    use crate::array::VirtualClock;
    use crate::sim::SimConfig;
    use crate::sim::jwt::{Claims, LIFETIME_S};
    use std::sync::Arc;

    let config = SimConfig { freedoms, ..SimConfig::default() };
    let array = SimArray::new(config, Arc::new(VirtualClock::new()));
    array.create_volume("v", crate::block::LbaCount::mib(1), None).unwrap();
    let key = TokenKey::generate().unwrap();
    let token = key.mint(&Claims::admin("p", LIFETIME_S)).unwrap();
    let addr = ([127, 0, 0, 1], 1).into();
    let api = Api::new(array, Arc::new(key), "p".to_owned(), Profile::A, addr, &[]);
    let authorization = format!("Bearer {token}");
    let request = Request {
        method: "GET",
        path: "/api/v2/projects/p/volumes",
        query: "",
        authorization: Some(&authorization),
        if_match: None,
        body: b"",
    };
    (0..100).map(|_| api.answer(&request)).collect()
}

#[test]
fn an_array_with_leave_refuses_some_calls_once_and_leaves_some_zeros_out() {
    use crate::block::Freedoms;
    let honest = many_answers(Freedoms::NONE);
    assert!(honest.iter().all(|reply| *reply == honest[0] && reply.status == 200));

    let refusing = many_answers(Freedoms { seed: 1, transient_errors: true, ..Freedoms::NONE });
    let statuses: Vec<u16> = refusing.iter().map(|reply| reply.status).collect();
    for status in [200, 429, 503] {
        assert!(statuses.contains(&status), "never {status}");
    }
    assert!(!statuses.contains(&409), "nothing collides with reading");
    let again = |pair: &[u16]| pair.iter().all(|&status| status != 200);
    assert!(!statuses.windows(2).any(again), "asking again must succeed");

    let sparing = many_answers(Freedoms { seed: 1, omitted_zeros: true, ..Freedoms::NONE });
    let has_zero = |reply: &Reply| reply.body.contains(r#""labels":[]"#);
    assert!(sparing.iter().any(has_zero) && !sparing.iter().all(has_zero));
}
