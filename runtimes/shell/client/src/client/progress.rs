//! The display of a download's progress: a bar on a terminal, text lines in a log, JSON lines for programs.

use super::protocol::{Answer, DownloadLine, State};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use swarmedge_ground::terminal::out::{note, print_json, say};
use swarmedge_ground::terminal::units::{bytes, percent, rate};
use swarmedge_ground::terminal::visible::visible;

/// Minimum time between progress lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress display of one download.
pub(super) enum Progress {
    /// A progress bar on a terminal.
    Bar(ProgressBar),
    /// Lines in a log, with the time of the last line.
    Lines(Option<Instant>),
    /// JSON lines for another program.
    Json,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
        let style = ProgressStyle::with_template("{bar:32.cyan/dim} {percent:>3} %  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("asking the edge");
        Self::Bar(bar)
    }

    /// Displays one line of the client's answer to `get`.
    pub(super) fn show(&mut self, answer: &Answer) {
        if let Self::Json = self {
            // the download matters more than the words about it
            let _ = print_json(answer);
            return;
        }
        match answer {
            Answer::Download(line) => self.figures(line),
            Answer::SourceDropped { source, why, .. } => {
                let who = source.get(..12).unwrap_or(source);
                self.remark(&format!("source {who} was dropped: {why}"));
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
                bar.set_message(summary(line));
            }
            Self::Lines(last) => {
                if line.state == State::Running && last.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    let got = line.edge_bytes.saturating_add(line.peer_bytes);
                    note!("{} of {}: {}", percent(got, line.size_bytes), bytes(line.size_bytes), summary(line));
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
            // standard output has the object
            note!("{ended}");
        } else {
            let _ = say!("{}: {ended}", line.output);
        }
    }

    /// Takes the bar away without a word.
    pub(super) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn summary(line: &DownloadLine) -> String {
    let got = line.peer_bytes.saturating_add(line.edge_bytes);
    let eta = line.eta_s.map_or_else(String::new, |s| format!(", {} left", clock(s)));
    let peers = if line.peers == 1 { "1 peer".into() } else { format!("{} peers", line.peers) };
    let rate = format!("{}/s", bytes(line.rate_bytes_per_s));
    format!("{rate}, {} from peers ({peers}){eta}", percent(line.peer_bytes, got))
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
