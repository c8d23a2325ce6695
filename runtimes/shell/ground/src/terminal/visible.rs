//! Text from elsewhere on terminals: characters that a terminal obeys, or that turn the order of their neighbours
//! round, are shown as escapes.

use std::borrow::Cow;

/// Returns whether a character acts on a terminal or on its neighbours instead of being seen: a control character, a
/// line or paragraph separator, or a mark of directional formatting (Unicode's `Bidi_Control`).
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control() || turns_text(c)
}

const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the text with escapes such as `\u{202e}` for hidden characters, except line breaks and tabs.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c| is_hidden(c) && !matches!(c, '\n' | '\t');
    escaped(text, hidden, |c, out| out.extend(c.escape_unicode()))
}

/// Returns JSON text with JSON's own escapes for hidden characters; it means the same.
pub(super) fn visible_json(json: &str) -> Cow<'_, str> {
    // all of them lie in the basic plane
    escaped(json, is_hidden, |c, out| out.push_str(&format!("\\u{:04x}", u32::from(c))))
}

/// Returns a line of the log with escapes for what turns text round. Control characters are the formatter's: it has
/// escaped those of the values, and its colours are such characters.
pub(super) fn visible_log(line: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(line).map(|line| escaped(line, turns_text, |c, out| out.extend(c.escape_unicode()))) {
        Ok(Cow::Owned(line)) => Cow::Owned(line.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(line),
    }
}

fn escaped<'a>(text: &'a str, hidden: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'a, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { escape(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown_as_escapes_and_letters_stay() {
        assert_eq!(visible("a\u{202e}gnp.exe"), r"a\u{202e}gnp.exe");
        assert_eq!(visible("\u{1b}[2J\r\u{9b}1m\u{7f}"), r"\u{1b}[2J\u{d}\u{9b}1m\u{7f}");
        for kept in ["two\nlines\tand a tab", "שלום ü 日本 \u{1f469}\u{200d}\u{1f680}", ""] {
            assert_eq!(visible(kept), kept);
        }
    }

    #[test]
    fn escaped_json_and_log_lines_keep_their_meaning() {
        let text = "a\u{202e}b\u{85}\u{2028}c\"\\\u{1b}\u{2066}";
        let json = serde_json::to_string(text).expect("JSON");
        let shown = visible_json(&json);
        assert!(shown.is_ascii() && shown.contains("\\u202e"), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), text);
        assert_eq!(
            &*visible_log("\u{1b}[32mINFO\u{1b}[0m a\u{200f}\n".as_bytes()),
            b"\x1b[32mINFO\x1b[0m a\\u{200f}\n"
        );
        assert_eq!(&*visible_log(b"\xff\n"), b"\xff\n");
    }
}
