use super::*;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

fn jwt(claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT","kid":"system:root"}"#);
    format!("{header}.{}.c2lnbmF0dXJlLWNhbmFyeQ", URL_SAFE_NO_PAD.encode(claims))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn claims_are_read_and_anything_else_is_no_claim() {
    let read = |text: &str| peek_claims(text.as_bytes());
    assert_eq!(
        read(&jwt(r#"{"sub":"admin","exp":1700000000,"roles":["default:admin"]}"#)),
        Some(Claims { sub: Some("admin".to_owned()), exp: Some(1_700_000_000) })
    );
    assert_eq!(read(&jwt("{}")), Some(Claims::default()));
    let exp = |json: &str| read(&jwt(json)).and_then(|claims| claims.exp);
    assert_eq!(exp(r#"{"exp":1700000000.75}"#), Some(1_700_000_000));
    assert_eq!(exp(r#"{"exp":-5}"#), Some(0));
    assert_eq!(exp(r#"{"exp":1e300}"#), Some(u64::MAX));
    assert_eq!(exp(r#"{"exp":null}"#), None);
    assert_eq!(exp(r#"{"exp":"soon"}"#), None);
    for foreign in ["", ".", "..", "...", "a.b.c", "opaque-token", "e30.e30.e30.e30", "x.=.y"] {
        assert_eq!(read(foreign), None, "{foreign}");
    }
    let huge = format!("a.{}.c", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(read(&huge), None);
}

#[test]
fn an_expired_token_is_refused_with_the_time_and_one_without_expiry_is_taken() {
    let token = Token::from_text(&jwt(r#"{"exp":1000}"#)).unwrap();
    assert_eq!(token.expiry(), Some(at(1000)));
    assert!(token.check_expiry(at(999)).is_ok());
    let error = token.check_expiry(at(1060)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the token expired at Thu, 01 Jan 1970 00:16:40 GMT (60 s ago); get a new one, nothing was sent"
    );
    let opaque = Token::from_text("opaque-token").unwrap();
    assert_eq!(opaque.expiry(), None);
    assert!(opaque.check_expiry(at(1 << 40)).is_ok());
}

#[test]
fn debug_shows_subject_and_expiry_only() {
    let text = jwt(r#"{"sub":"adm\u001bin","exp":1000}"#);
    let shown = format!("{:?}", Token::from_text(&text).unwrap());
    assert_eq!(shown, "jwt(sub=adm\\u{1b}in, exp=Thu, 01 Jan 1970 00:16:40 GMT)");
    let never = Token::from_text(&jwt(r#"{"exp":18446744073709551615}"#)).unwrap();
    assert!(text.split('.').all(|part| !shown.contains(part)));
    assert!(format!("{never:?}").starts_with("jwt(sub=?"), "a far expiry does not panic");
}

#[test]
fn the_token_and_each_of_its_three_parts_are_removed_from_texts() {
    let text = jwt(r#"{"sub":"admin"}"#);
    let redactor = Token::from_text(&text).unwrap().redactor();
    let parts: Vec<&str> = text.split('.').collect();
    let leak = format!("whole {text} head {} body {} tail {}.", parts[0], parts[1], parts[2]);
    let clean = redactor.redact(&leak);
    assert_eq!(clean, "whole [token] head [token] body [token] tail [token].");
    assert_eq!(redactor.redact("nothing to hide"), "nothing to hide");
    assert_eq!(format!("{redactor:?}"), "Redactor");
    let short = Token::from_text("a.b.c").unwrap().redactor();
    assert_eq!(short.redact("abacus a.b.c"), "abacus [token]");
}

#[test]
fn a_token_text_is_trimmed_and_checked() {
    assert_eq!(Token::from_text(" \n abc \r\n").unwrap().header_text(), "Bearer abc");
    assert!(matches!(Token::from_text(" \n"), Err(TokenError::Empty)));
    assert!(matches!(Token::from_text("a b"), Err(TokenError::BadCharacter)));
    assert!(matches!(Token::from_text("a\r\nHost: x"), Err(TokenError::BadCharacter)));
    assert!(matches!(Token::from_text("\u{e4}"), Err(TokenError::BadCharacter)));
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    assert!(matches!(Token::from_text(&long), Err(TokenError::TooLong)));
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "secret-token").unwrap();
    let set =
        |mode| std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o620] {
        set(mode);
        let error = Token::from_file(file.path()).unwrap_err();
        assert!(matches!(error, TokenError::Exposed { .. }), "{mode:o}");
        assert!(error.to_string().contains("chmod 600"));
    }
    set(0o600);
    assert_eq!(Token::from_file(file.path()).unwrap().header_text(), "Bearer secret-token");
    let missing = Token::from_file(Path::new("/nonexistent/token")).unwrap_err();
    assert!(matches!(missing, TokenError::File { .. }));
}

#[test]
fn a_token_command_runs_without_a_shell() {
    let token = Token::from_command("printf secret-%s token").unwrap();
    assert_eq!(token.header_text(), "Bearer secret-token");
    let literal = Token::from_command("printf %s $HOME;id").unwrap();
    assert_eq!(literal.header_text(), "Bearer $HOME;id");
    for failing in ["", "false", "/nonexistent/command x"] {
        let error = Token::from_command(failing).unwrap_err();
        assert!(matches!(error, TokenError::Command { .. }), "{failing}");
    }
    assert!(matches!(Token::from_command("true"), Err(TokenError::Empty)));
}

#[test]
fn a_piece_of_the_token_that_a_cut_left_is_removed_too() {
    let text = jwt(r#"{"sub":"administrator of everything"}"#);
    let redactor = Token::from_text(&text).unwrap().redactor();
    for start in 0..text.len() - 16 {
        for end in [start + 16, (start + 17).min(text.len()), text.len()] {
            let leak = format!("\u{e4}{}\u{e4}", &text[start..end]);
            let clean = redactor.redact(&leak);
            assert!(redactor.is_in(&leak), "{leak}");
            assert!(!redactor.is_in(&clean), "{clean}");
            assert!(clean.starts_with('\u{e4}') && clean.ends_with('\u{e4}'), "{clean}");
        }
    }
    assert_eq!(redactor.redact(&text[..7]), &text[..7], "too short to tell from words");
}
