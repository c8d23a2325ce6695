//! The display of a download's progress: a bar on a terminal, text lines in a log, JSON lines for programs.

use super::protocol::{Answer, DownloadLine, State};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use swarmedge_ground::terminal::bar::{Fitted, columns, fit};
use swarmedge_ground::terminal::out::{note, print_json, say};
use swarmedge_ground::terminal::units::{bytes, percent, rate};
use swarmedge_ground::terminal::visible::visible;

/// Minimum time between progress lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Columns of the name before a bar.
const NAME_LEN: usize = 12;

/// The progress display of one download.
pub(super) enum Progress {
    /// A progress bar on a terminal.
    Bar(ProgressBar),
    /// Lines in a log, with the time of the last line or of the beginning.
    Lines(Instant),
    /// JSON lines for another program.
    Json,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(Instant::now());
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
        draw(&bar, "", &["asking the edge".to_owned()]);
        Self::Bar(bar)
    }

    /// Displays one line of the client's answer to `get`.
    pub(super) fn show(&mut self, answer: &Answer) {
        if let Self::Json = self {
            // a failure to print must not end the download
            let _ = print_json(answer);
            return;
        }
        match answer {
            Answer::Download(line) => self.figures(line),
            Answer::SourceDropped { source, why, .. } => {
                let who = if source == "edge" {
                    "the edge".into()
                } else {
                    format!("peer {}", source.get(..12).unwrap_or(source))
                };
                self.remark(&format!("{who} is asked no more: {why}"));
            }
            Answer::Waiting { reason } => self.remark(reason),
            Answer::Trouble(why) => {
                let next = if why.next_step.is_empty() { "" } else { " (" };
                let close = if next.is_empty() { "" } else { ")" };
                self.remark(&format!("{}; trying again{next}{}{close}", why.reason, why.next_step));
            }
            Answer::Accepted { .. }
            | Answer::Status(_)
            | Answer::Again
            | Answer::Over { .. }
            | Answer::Left
            | Answer::Why { .. }
            | Answer::Nat { .. }
            | Answer::Cache { .. }
            | Answer::Error(_) => {}
        }
    }

    fn figures(&mut self, line: &DownloadLine) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(line.size_bytes.max(1));
                bar.set_position(line.edge_bytes.saturating_add(line.peer_bytes).min(line.size_bytes));
                draw(bar, "", &parts(line));
            }
            Self::Lines(last) => {
                if line.state == State::Running && last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let got = line.edge_bytes.saturating_add(line.peer_bytes);
                    let rest = parts(line)[1..].join(", ");
                    note!("{} of {}: {rest}", percent(got, line.size_bytes), bytes(line.size_bytes));
                }
            }
            Self::Json => {}
        }
    }

    /// Prints a message to the user beside the progress figures.
    pub(super) fn remark(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(visible(text)),
            Self::Lines(_) => note!("{text}"),
            Self::Json => {}
        }
    }

    /// Removes the bar and prints the outcome. `before` is the number of bytes that earlier `get`s had fetched,
    /// `took` the duration of this one.
    pub(super) fn finish(self, line: &DownloadLine, before: u64, took: Duration) {
        self.clear();
        if let Self::Json = self {
            return;
        }
        let all = line.peer_bytes.saturating_add(line.edge_bytes);
        let fetched = all.saturating_sub(before);
        let (size, seconds) = (bytes(line.size_bytes), took.as_secs_f64());
        let how = if fetched == 0 {
            "was all here already".to_owned()
        } else {
            let resumed = if before > 0 { format!("the last {} ", bytes(fetched)) } else { String::new() };
            let peers = percent(line.peer_bytes, all);
            format!("{resumed}in {seconds:.1} s, {}, {peers} from peers", rate(fetched, took))
        };
        let ended = format!("{size}, {how}, every piece verified");
        if line.output.is_empty() {
            // standard output is for the object's bytes
            note!("{ended}");
        } else {
            let _ = say!("{}: {ended}", line.output);
        }
    }

    /// Removes the bar and prints nothing.
    pub(super) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Sets style and text of a bar so that its line fits the terminal. `name` stands before the bar, padded to
/// [`NAME_LEN`] columns, if it is not empty. The last parts of the text are left out first.
pub fn draw(bar: &ProgressBar, name: &str, parts: &[String]) {
    let before = if name.is_empty() { 0 } else { NAME_LEN + 1 };
    let Fitted { bar: len, text } = fit(columns(), before, parts);
    let prefix = if name.is_empty() { String::new() } else { format!("{{prefix:{NAME_LEN}}} ") };
    let template =
        if len == 0 { format!("{prefix}{{msg}}") } else { format!("{prefix}{{bar:{len}.cyan/dim}} {{msg}}") };
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(text);
}

/// Returns the figures of a running download, the most useful first.
#[must_use]
pub fn parts(line: &DownloadLine) -> Vec<String> {
    let got = line.peer_bytes.saturating_add(line.edge_bytes);
    let peers = if line.peers == 1 { "1 peer".into() } else { format!("{} peers", line.peers) };
    let rate = format!("{}/s", bytes(line.rate_bytes_per_s));
    let mut parts = vec![percent(got, line.size_bytes), rate];
    if got > 0 {
        parts.push(format!("{} from peers", percent(line.peer_bytes, got)));
    }
    parts.push(peers);
    parts.extend(line.eta_s.map(|s| format!("{} left", clock(s))));
    parts
}

/// Formats seconds as `m:ss`, from one hour on as `h:mm:ss`.
pub(super) fn clock(s: u64) -> String {
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn a_clock_shows_hours_only_where_there_are_any() {
        assert_eq!([clock(7), clock(75), clock(3_675)], ["0:07", "1:15", "1:01:15"]);
    }
}
