//! Foreign text made safe to show on one line of a terminal, in a log or in a report.
//!
//! Covers control characters (escape sequences, line breaks), characters that reorder or hide text
//! (bidi marks, zero-width characters) and length. Not covered: HTML, XML and shell quoting, which
//! their writers do, and secrets, which are removed before.

/// `text` with every character that could steer a terminal, break a line or hide its neighbours
/// written out as `\n`, `\t` or `\u{..}`, cut after `max_chars` shown characters (then it ends in
/// `...`).
pub fn escape_text(text: &str, max_chars: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for c in text.chars() {
        let piece = match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if is_unsafe(c) => format!("\\u{{{:x}}}", u32::from(c)),
            c => c.to_string(),
        };
        count += piece.chars().count();
        if count > max_chars {
            shown.push_str("...");
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// Controls, bidi controls, zero-width and other invisible format characters, line separators,
/// private use and non-characters.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_of_any_script_stays_as_it_is() {
        for text in ["", "no such snapshot", "größe 北京 \"x\" \\ <b>"] {
            assert_eq!(escape_text(text, 200), text);
        }
    }

    #[test]
    fn what_steers_a_terminal_or_hides_text_is_written_out() {
        assert_eq!(escape_text("\x1b[2Jgone\r\n\t\0", 200), "\\u{1b}[2Jgone\\r\\n\\t\\u{0}");
        assert_eq!(
            escape_text("a\u{202e}b\u{2066}c\u{200b}d\u{feff}\u{85}", 200),
            "a\\u{202e}b\\u{2066}c\\u{200b}d\\u{feff}\\u{85}"
        );
    }

    #[test]
    fn long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(escape_text("abcdef", 6), "abcdef");
        assert_eq!(escape_text("abcdefg", 6), "abcdef...");
        assert_eq!(escape_text("ab\x1bcd", 4), "ab...", "an escape is never cut in half");
    }
}
