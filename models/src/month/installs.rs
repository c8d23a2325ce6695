//! Installations over a simulated month: starts, logins, and the events that set an installation back to an earlier
//! state (figure 12 of the paper).

use super::{Config, Defect};
use crate::rng::Seeded;
use swarmedge_core::Rng as _;
use swarmedge_core::accounting::clones::{self, Pattern, Starts};
use swarmedge_core::ids::SecondaryGuid;

/// Results of analysing the installations' logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Installs {
    /// Number of installations analysed, each with at least three starts.
    pub graphs: u64,
    /// Number of installations whose starts form a chain, without a fork.
    pub linear: u64,
    /// Number of forked installations by the pattern that the analysis found: failed update, restored backup,
    /// re-imaged or cloned, irregular.
    pub forked: [u64; 4],
    /// Number of installations whose pattern the analysis got wrong.
    pub wrong: u64,
}

/// Installation: the secondary GUIDs of its last starts, newest first.
#[derive(Clone, Default)]
struct Install(Vec<SecondaryGuid>);

impl Install {
    fn start(&mut self, starts: &mut Starts, rng: &mut Seeded) {
        let mut id = [0; 20];
        id[..16].copy_from_slice(&rng.nonce());
        self.0 = clones::begun(SecondaryGuid(id), self.0.drain(..));
        starts.login(&self.0);
    }
}

/// Plays the month of every installation. Of a thousand installations six are set back or irregular, in the
/// proportions of the paper's figure 12.
pub(super) fn month(cfg: &Config, rng: &mut Seeded) -> Installs {
    let mut told = Installs::default();
    for _ in 0..cfg.clients {
        let happened = match rng.below(1_000) {
            0..=5 => match rng.below(1_000) {
                0..=461 => Pattern::FailedUpdate,
                462..=523 => Pattern::RestoredBackup,
                524..=758 => Pattern::Reimaged,
                _ => Pattern::Irregular,
            },
            _ => Pattern::Linear,
        };
        let starts = live(happened, rng);
        let found = match cfg.defect {
            Some(Defect::NoPatterns) => Pattern::Linear,
            _ => starts.history().pattern(),
        };
        told.graphs += 1;
        told.wrong += u64::from(found != happened);
        match found {
            Pattern::Short | Pattern::Linear => told.linear += 1,
            Pattern::FailedUpdate => told.forked[0] += 1,
            Pattern::RestoredBackup => told.forked[1] += 1,
            Pattern::Reimaged => told.forked[2] += 1,
            Pattern::Irregular => told.forked[3] += 1,
        }
    }
    told
}

/// Returns the recorded starts of one installation whose history has this pattern.
fn live(happens: Pattern, rng: &mut Seeded) -> Starts {
    let (mut starts, mut install) = (Starts::default(), Install::default());
    let mut go = |install: &mut Install, n: u32, rng: &mut Seeded| {
        for _ in 0..n {
            install.start(&mut starts, rng);
        }
    };
    let before = 3 + rng.below(6);
    go(&mut install, before, rng);
    let image = install.clone();
    match happens {
        Pattern::Short | Pattern::Linear => {}
        Pattern::FailedUpdate => {
            go(&mut install, 1, rng);
            install = image;
            let after = 2 + rng.below(4);
            go(&mut install, after, rng);
        }
        Pattern::RestoredBackup => {
            let lost = 2 + rng.below(3);
            go(&mut install, lost, rng);
            install = image;
            let after = 2 + rng.below(4);
            go(&mut install, after, rng);
        }
        Pattern::Reimaged => {
            for _ in 0..3 + rng.below(6) {
                install = image.clone();
                let one = 1 + rng.below(3);
                go(&mut install, one, rng);
            }
        }
        Pattern::Irregular => {
            // shuffled secondary GUIDs
            go(&mut install, 2, rng);
            install.0.reverse();
            go(&mut install, 2, rng);
        }
    }
    starts
}
