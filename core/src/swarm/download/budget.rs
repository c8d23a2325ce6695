//! The edge's budget: a download is never slower than with the edge alone, and the edge sends no byte that peers could
//! have delivered in the same time.
//!
//!  While peers give less than the edge alone would, edge and peers run side by side, so peers deliver every byte that
//! they can in that time. Once peers give as much, the edge yields: it delivers only pieces that no peer has, and
//! blocks of the endgame. When edge and peers share a bottleneck (the client's downlink), each slows the other down.
//! So the edge yields for a short trial now and then, and if the peers then reach its rate, it keeps yielding. Trials
//! that fail become rarer.

use super::io::Config;
use crate::Time;
use core::time::Duration;

/// Rule for which blocks of a download may be requested from the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The edge may be asked for any missing block.
    #[default]
    Parallel,
    /// A trial: the edge is limited as in `Yield`, to measure whether the peers alone reach its rate.
    Trial {
        /// Time at which the trial began.
        since: Time,
    },
    /// The edge is asked only for pieces that no peer has, and at the end for blocks that slow peers are still to
    /// deliver.
    Yield,
}

/// Rates of a download's sources, measured over one tick of [`Config::tick`], in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Rate at which the edge delivered, in bytes a second.
    pub edge: u64,
    /// Whether the edge had running transfers.
    pub edge_busy: bool,
    /// Rate at which all peers together delivered, in bytes a second.
    pub peers: u64,
    /// Whether a connected peer has at least one piece.
    pub any_peer: bool,
}

/// Scheduler that decides how much of a download the edge delivers beside the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeBudget {
    mode: Mode,
    /// Minimum rate that the provider's policy sets, in bytes a second; 0: the rate of the edge alone.
    rate_min: u64,
    /// Estimated rate of the edge without peers, in bytes a second.
    alone: u64,
    /// Consecutive ticks in which `alone` hardly grew; at [`SETTLED`] the estimate is relied upon.
    settled: u8,
    /// Consecutive ticks in which peers were too slow while the edge yielded.
    short: u8,
    next_trial: Time,
    failed_trials: u8,
}

/// Number of consecutive ticks after which a steady estimate `alone` is relied upon.
const SETTLED: u8 = 2;
/// Number of consecutive ticks with too slow peers after which the edge stops yielding.
const SHORT: u8 = 4;

impl EdgeBudget {
    /// Creates the scheduler. `rate_min` is the policy's minimum rate in bytes a second; 0: the rate of the edge
    /// alone.
    #[must_use]
    pub fn new(rate_min: u64) -> Self {
        Self { rate_min, ..Self::default() }
    }

    /// Changes the policy's minimum rate, in bytes a second; 0: the rate of the edge alone.
    pub const fn set_rate_min(&mut self, rate_min: u64) {
        self.rate_min = rate_min;
    }

    /// Returns which blocks may be fetched from the edge.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns whether the edge is limited to pieces that no peer has.
    #[must_use]
    pub const fn yields(&self) -> bool {
        !matches!(self.mode, Mode::Parallel)
    }

    /// Handles a newly connected peer: allows a trial without the edge at once, since it may succeed with the new
    /// peer.
    pub const fn peer_joined(&mut self) {
        self.next_trial = Time::ZERO;
        self.failed_trials = 0;
    }

    /// Handles a tick's measurements and sets the mode.
    pub fn tick(&mut self, now: Time, s: Sample, cfg: &Config) {
        if !self.yields() {
            self.learn(s);
        }
        let target = if self.rate_min > 0 { self.alone.min(self.rate_min) } else { self.alone };
        // a measured rate fluctuates, so a sixteenth less than the target is enough
        let enough = s.peers >= target - target / 16 && s.peers > 0;
        match self.mode {
            _ if !s.any_peer => self.mode = Mode::Parallel,
            Mode::Parallel if self.settled < SETTLED => {}
            Mode::Parallel if s.peers >= target && enough => self.set_yield(),
            Mode::Parallel if s.peers >= target / 4 && s.peers > 0 && now >= self.next_trial => {
                self.mode = Mode::Trial { since: now };
            }
            Mode::Parallel => {}
            Mode::Trial { .. } if enough => self.set_yield(),
            Mode::Trial { since } if now.since(since) >= cfg.probe => self.trial_failed(now, cfg),
            Mode::Trial { .. } => {}
            Mode::Yield if enough => self.short = 0,
            Mode::Yield => {
                self.short += 1;
                if self.short >= SHORT {
                    self.trial_failed(now, cfg);
                }
            }
        }
    }

    fn learn(&mut self, s: Sample) {
        if !s.edge_busy || s.edge == 0 {
            return;
        }
        if s.edge > self.alone + self.alone / 8 {
            self.settled = 0;
        } else {
            self.settled = (self.settled + 1).min(SETTLED);
        }
        // peers slow the edge down, so the estimate fades faster without them
        let fade = if s.peers == 0 { self.alone / 32 } else { self.alone / 512 };
        self.alone = s.edge.max(self.alone - fade);
    }

    fn set_yield(&mut self) {
        self.mode = Mode::Yield;
        self.short = 0;
    }

    fn trial_failed(&mut self, now: Time, cfg: &Config) {
        let (first, longest) = cfg.probe_wait;
        let wait = first.saturating_mul(1 << self.failed_trials.min(8)).min(longest);
        self.failed_trials = self.failed_trials.saturating_add(1);
        self.next_trial = now.after(wait);
        self.mode = Mode::Parallel;
    }

    /// Asserts that the counts of steady and of slow ticks are within their maxima.
    pub fn check(&self) {
        assert!(self.settled <= SETTLED, "no more steady ticks are counted than are needed");
        let yields = matches!(self.mode, Mode::Yield);
        assert!(!yields || self.short < SHORT, "an edge yields for a few slow ticks only");
    }

    /// Moves all times by `by`, as [`crate::Machine::rebase`] requires.
    pub fn rebase(&mut self, by: Duration) {
        self.next_trial = self.next_trial.rebased(by);
        if let Mode::Trial { since } = &mut self.mode {
            *since = since.rebased(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const MB: u64 = 1_000_000;

    /// Simulates a download for `seconds` with these rates in bytes a second: maximum of the edge, maximum of the
    /// peers, and the client's downlink. Returns the bytes from the edge and the bytes from peers.
    fn play(budget: &mut EdgeBudget, from: u64, seconds: u64, rates: [u64; 3]) -> (u64, u64) {
        let [edge, peers, downlink] = rates;
        let cfg = Config::default();
        let (mut from_edge, mut from_peers) = (0, 0);
        for tick in from * 10..(from + seconds) * 10 {
            let wants = if budget.yields() { 0 } else { edge };
            let total = wants + peers;
            let share = |want: u64| if total > downlink { want * (downlink / 1000) / (total / 1000) } else { want };
            let s = Sample { edge: share(wants), edge_busy: wants > 0, peers: share(peers), any_peer: peers > 0 };
            from_edge += s.edge / 10;
            from_peers += s.peers / 10;
            budget.tick(Time(tick * 100_000), s, &cfg);
            budget.check();
        }
        (from_edge, from_peers)
    }

    #[test]
    fn each_clause_about_the_edges_budget_fires() {
        assert_each_clause_fires(
            &EdgeBudget { mode: Mode::Yield, ..EdgeBudget::default() },
            EdgeBudget::check,
            &[
                ("no more steady ticks are counted than are needed", |b| b.settled = SETTLED + 1),
                ("an edge yields for a few slow ticks only", |b| b.short = SHORT),
            ],
        );
    }

    #[test]
    fn the_edge_yields_to_peers_that_are_faster() {
        let mut b = EdgeBudget::default();
        play(&mut b, 0, 1, [10 * MB, 0, 1000 * MB]);
        let (edge, peers) = play(&mut b, 1, 10, [10 * MB, 50 * MB, 1000 * MB]);
        assert!(peers > 40 * edge, "{edge} {peers}");
    }

    #[test]
    fn beside_slower_peers_the_edge_keeps_its_full_speed() {
        let mut b = EdgeBudget::default();
        play(&mut b, 0, 1, [50 * MB, 0, 1000 * MB]);
        let (edge, peers) = play(&mut b, 1, 60, [50 * MB, 20 * MB, 1000 * MB]);
        assert_eq!(peers, 60 * 20 * MB);
        assert!(edge + peers > 60 * 50 * MB, "slower than the edge alone: {edge} {peers}");
        assert!(edge > 55 * 50 * MB, "trials cost too much: {edge}");
    }

    #[test]
    fn on_a_shared_downlink_peers_come_first() {
        let mut b = EdgeBudget::default();
        play(&mut b, 0, 1, [50 * MB, 0, 50 * MB]);
        let (edge, peers) = play(&mut b, 1, 10, [50 * MB, 50 * MB, 50 * MB]);
        assert!(peers > 20 * edge, "{edge} {peers}");
        assert!(edge + peers > 490 * MB);
    }

    #[test]
    fn when_peers_leave_the_edge_takes_over_at_once() {
        let mut b = EdgeBudget::default();
        play(&mut b, 0, 1, [50 * MB, 0, 500 * MB]);
        play(&mut b, 1, 5, [50 * MB, 60 * MB, 500 * MB]);
        assert!(b.yields());
        let (edge, _) = play(&mut b, 6, 1, [50 * MB, 0, 500 * MB]);
        assert!(edge >= 45 * MB, "{edge}");
        play(&mut b, 7, 1, [50 * MB, 0, 500 * MB]);
        play(&mut b, 8, 3, [50 * MB, 60 * MB, 500 * MB]);
        assert!(b.yields());
        let (edge, peers) = play(&mut b, 11, 2, [50 * MB, 10 * MB, 500 * MB]);
        assert!(edge + peers > 90 * MB, "{edge} {peers}");
    }

    #[test]
    fn a_provider_with_a_lower_minimum_rate_pays_for_fewer_bytes() {
        let mut b = EdgeBudget::new(5 * MB);
        play(&mut b, 0, 1, [50 * MB, 0, 500 * MB]);
        let (edge, peers) = play(&mut b, 1, 10, [50 * MB, 6 * MB, 500 * MB]);
        assert!(peers > 10 * edge, "{edge} {peers}");
    }
}
