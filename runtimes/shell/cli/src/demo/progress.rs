//! Live progress of several downloads: bars on a terminal, a line every two seconds elsewhere.

use indicatif::{MultiProgress, ProgressBar};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use swarmedge_client::client::progress::{draw, parts};
use swarmedge_client::client::protocol::{DownloadLine, State};
use swarmedge_ground::terminal::out::note;
use swarmedge_ground::terminal::units::{bytes, percent, rate};

/// Interval between plain progress lines.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Form in which progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Progress bars, on a terminal.
    Bars,
    /// Plain lines on standard error.
    Lines,
    /// No output, with `--json`.
    Nothing,
}

impl Show {
    /// Chooses the form that suits standard error; nothing with `json`.
    #[must_use]
    pub fn for_terminal(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// Prints a remark as a line on standard error.
    pub fn say(self, text: &str) {
        if self != Self::Nothing {
            note!("{text}");
        }
    }
}

/// Progress display of simultaneous downloads.
pub struct Progress {
    show: Show,
    multi: MultiProgress,
    /// The bars with their names.
    bars: Vec<(String, ProgressBar)>,
    began: Instant,
    printed: Instant,
}

impl Progress {
    /// Makes a display with a bar per name, each for `size` bytes.
    #[must_use]
    pub fn new(show: Show, names: &[String], size: u64) -> Self {
        let multi = MultiProgress::new();
        let bar = |name: &String| {
            let bar = multi.add(ProgressBar::new(size).with_prefix(name.clone()));
            draw(&bar, name, &["asking the edge".to_owned()]);
            bar.tick();
            (name.clone(), bar)
        };
        let bars = if show == Show::Bars { names.iter().map(bar).collect() } else { Vec::new() };
        let now = Instant::now();
        Self { show, multi, bars, began: now, printed: now }
    }

    /// Shows the present state of the downloads, given in the order of the bars.
    pub fn update(&mut self, lines: &[DownloadLine]) {
        for ((name, bar), line) in self.bars.iter().zip(lines) {
            bar.set_position(line.edge_bytes.saturating_add(line.peer_bytes));
            draw(bar, name, &if line.state == State::Completed { done(line) } else { parts(line) });
        }
        if self.show == Show::Lines && self.printed.elapsed() >= LINE_EVERY {
            self.printed = Instant::now();
            note!("{}", summary(lines, self.began.elapsed()));
        }
    }

    /// Prints a remark, above the bars if there are any.
    pub fn say(&self, text: &str) {
        if self.show == Show::Bars {
            // this fails only if the terminal has gone
            let _ = self.multi.println(text);
        } else {
            self.show.say(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bars.iter().for_each(|(_, bar)| bar.abandon());
    }
}

/// Returns the figures of a download that is over.
fn done(line: &DownloadLine) -> Vec<String> {
    let share = percent(line.peer_bytes, line.edge_bytes.saturating_add(line.peer_bytes));
    vec!["done".into(), format!("{share} from peers"), bytes(line.size_bytes)]
}

fn summary(lines: &[DownloadLine], time: Duration) -> String {
    let sum = |f: fn(&DownloadLine) -> u64| lines.iter().map(f).fold(0u64, u64::saturating_add);
    let (edge, peers, size) = (sum(|l| l.edge_bytes), sum(|l| l.peer_bytes), sum(|l| l.size_bytes));
    let done = edge.saturating_add(peers);
    format!(
        "  {:>4} s  {} of {}  {}  {} from peers",
        time.as_secs(),
        bytes(done),
        bytes(size),
        rate(done, time),
        percent(peers, done)
    )
}
