//! The line of a progress bar, which fits the terminal: parts that have no room are left out, those of least use first.

use rustix::termios::tcgetwinsize;

/// Columns assumed for a terminal of unknown width.
const COLUMNS: usize = 80;
/// Maximum number of columns of the bar itself.
const BAR_MAX: usize = 32;
/// Minimum number of columns of the bar itself; with less room the bar is left out.
const BAR_MIN: usize = 4;

/// Returns the columns of the terminal at standard error.
#[must_use]
pub fn columns() -> usize {
    let told = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if told == 0 { COLUMNS } else { told }
}

/// A line with a bar: how long the bar is, and the text behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Columns of the bar; 0: there is none.
    pub bar: usize,
    /// The text behind the bar.
    pub text: String,
}

/// Fits a line with a bar and the `parts` of its text, the most useful first, into one column less than `columns`, so
/// that no terminal wraps it. `before` columns are taken already. The last parts are left out first.
#[must_use]
pub fn fit(columns: usize, before: usize, parts: &[String]) -> Fitted {
    let room = columns.saturating_sub(1).saturating_sub(before);
    for n in (1..=parts.len()).rev() {
        let text = parts[..n].join(", ");
        let rest = room.saturating_sub(text.chars().count() + 1);
        if rest >= BAR_MIN {
            return Fitted { bar: rest.min(BAR_MAX), text };
        }
    }
    // not even the first part has room beside a bar
    Fitted { bar: 0, text: parts.first().map_or_else(String::new, |part| part.chars().take(room).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_wraps_and_the_last_parts_go_first() {
        let parts = ["34 %", "184.1 MB/s", "90.0 % from peers", "12 peers", "1:02:03 left"].map(String::from);
        for before in [0, 13] {
            for columns in 0..200 {
                let Fitted { bar, text } = fit(columns, before, &parts);
                let len = before + text.chars().count() + if bar > 0 { bar + 1 } else { 0 };
                assert!(len < columns || text.is_empty(), "{columns}: {bar} {text}");
                let kept = text.split(", ").count();
                assert!(columns < 20 + before || text == parts[..kept].join(", "), "{columns}: {text}");
            }
        }
        let at = |columns| fit(columns, 0, &parts).text;
        assert!(at(100).ends_with("left") && at(80).ends_with("left"), "{}", at(80));
        assert!(at(60).ends_with("12 peers") && at(42).ends_with("from peers"), "{} | {}", at(60), at(42));
        assert_eq!((fit(80, 0, &parts[..1]).bar, fit(8, 0, &parts[..1]).bar), (BAR_MAX, 0));
    }
}
