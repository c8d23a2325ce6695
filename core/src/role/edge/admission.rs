//! Admission of requests for grants, by allowances that limit their rate. A first grant is charged to the key that
//! signs the request and to the network it comes from, a renewal to its download alone: a flood of first grants
//! prevents no renewal, and no download of another network. Nonces are remembered only of admitted requests, so the
//! limits bound these too.

use crate::accounting::grants::{Denial, GrantAsked, Nonce};
use crate::ids::{DownloadId, PublicKey};
use crate::machine::Time;
use crate::selection::locality::prefix;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

/// Largest difference between a request's time and the edge's, in milliseconds.
pub const TIME_WINDOW_MS: u64 = 5 * 60 * 1000;
const MINUTE_MS: u64 = 60_000;
/// Minimum interval between two searches of a full table for allowances that are unused again.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Limit of a rate: `burst` requests at once, and then one for each interval `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests that are admitted at once.
    pub burst: u32,
    /// Interval between two requests in the long run.
    pub every: Duration,
}

/// Limits of requests for grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Rate of first grants of one key.
    pub key: Rate,
    /// Rate of first grants of one /24 (IPv6: /48), which may be thousands of clients behind one address.
    pub prefix: Rate,
    /// Rate of renewals of one download.
    pub download: Rate,
    /// Maximum number of keys, networks and downloads whose allowances are remembered; about 100 bytes each.
    pub payers_max: u32,
    /// Maximum number of requests whose nonces are remembered; about 25 bytes each.
    pub nonces_max: u32,
}

impl Limits {
    /// Limits in production. First grants of one network: 8,192 at once, then 125 a second; of one key: 512 at once,
    /// then eight a second. Renewals of one download: 16 at once, then one in ten seconds.
    pub const PRODUCTION: Self = Self {
        key: Rate { burst: 512, every: Duration::from_millis(125) },
        prefix: Rate { burst: 8_192, every: Duration::from_millis(8) },
        download: Rate { burst: 16, every: Duration::from_secs(10) },
        payers_max: 131_072,
        nonces_max: 1 << 20,
    };
}

/// Holder of an allowance, to which a request is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Payer {
    Key(PublicKey),
    Prefix(IpAddr),
    Download(DownloadId),
    /// Shared allowance of all holders that do not fit into the table.
    Rest,
}

/// Allowances that are partly used, and nonces of admitted requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Admission {
    /// Time at which each allowance is unused again; one that is not listed is unused.
    whole_at: BTreeMap<Payer, Time>,
    swept: Option<Time>,
    /// Nonces of admitted requests, by the minute of the request's time.
    seen: BTreeMap<u64, BTreeSet<Nonce>>,
    nonces: usize,
}

impl Admission {
    /// Admits a request, or returns the reason for refusing it. The caller has checked the request's signature; of a
    /// renewal also that the old grant is genuine and belongs to the key.
    pub(super) fn admit(&mut self, limits: &Limits, now: Time, now_ms: u64, asked: &GrantAsked) -> Result<(), Denial> {
        if now_ms.abs_diff(asked.time_ms) > TIME_WINDOW_MS {
            return Err(Denial::Clock);
        }
        self.forget(now_ms);
        let minute = asked.time_ms / MINUTE_MS;
        if self.seen.get(&minute).is_some_and(|seen| seen.contains(&asked.nonce)) {
            return Err(Denial::Replayed);
        }
        self.charge(limits, now, payers(limits, asked))?;
        if self.nonces >= limits.nonces_max as usize {
            // a repeated request gets a grant for keys that the repeater does not have: no harm but the work
            self.forget_oldest();
        }
        if limits.nonces_max > 0 && self.seen.entry(minute).or_default().insert(asked.nonce) {
            self.nonces += 1;
        }
        debug_assert!(self.nonces <= limits.nonces_max as usize, "remembered requests are bounded");
        Ok(())
    }

    /// Asserts that the number of remembered nonces is right.
    pub(super) fn check(&self) {
        assert!(self.nonces == self.seen.values().map(BTreeSet::len).sum::<usize>(), "nonces are counted right");
        assert!(!self.seen.values().any(BTreeSet::is_empty), "a remembered minute has nonces");
    }

    /// Charges one request to each of these allowances, or to none of them if one is exhausted.
    fn charge(&mut self, limits: &Limits, now: Time, payers: Vec<(Payer, Rate)>) -> Result<(), Denial> {
        let payers: Vec<_> = payers.into_iter().map(|(p, rate)| (self.payer_or_rest(limits, now, p), rate)).collect();
        let mut after = Vec::new();
        for (payer, rate) in payers {
            let whole_at = self.whole_at.get(&payer).map_or(now, |at| (*at).max(now)).after(rate.every);
            let over = whole_at.since(now).saturating_sub(rate.every * rate.burst);
            if !over.is_zero() {
                let retry_after_ms = u32::try_from(over.as_millis()).unwrap_or(u32::MAX).saturating_add(1);
                return Err(Denial::TooMany { retry_after_ms });
            }
            after.push((payer, whole_at));
        }
        self.whole_at.extend(after);
        debug_assert!(self.whole_at.len() <= (limits.payers_max as usize).max(1), "remembered payers are bounded");
        Ok(())
    }

    /// Returns the payer, or the shared one if the table has no entry left for it.
    fn payer_or_rest(&mut self, limits: &Limits, now: Time, payer: Payer) -> Payer {
        let full = |all: &Self| all.whole_at.len() + 3 > limits.payers_max as usize;
        if !self.whole_at.contains_key(&payer) && full(self) {
            if self.swept.is_none_or(|at| now.since(at) >= SWEEP_EVERY) {
                self.swept = Some(now);
                self.whole_at.retain(|_, at| *at > now);
            }
            if full(self) {
                return Payer::Rest;
            }
        }
        payer
    }

    /// Forgets the nonces of requests so old that their time would be refused.
    fn forget(&mut self, now_ms: u64) {
        let oldest = now_ms.saturating_sub(TIME_WINDOW_MS) / MINUTE_MS;
        while self.seen.first_key_value().is_some_and(|(minute, _)| *minute < oldest) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, seen)) = self.seen.pop_first() {
            debug_assert!(self.nonces >= seen.len(), "nonces are counted right");
            self.nonces = self.nonces.saturating_sub(seen.len());
        }
    }

    /// Shifts all times, see [`crate::machine::Machine::rebase`].
    pub(super) fn rebase(&mut self, by: Duration) {
        self.whole_at.values_mut().for_each(|at| *at = at.rebased(by));
        self.whole_at.retain(|_, at| *at > Time::ZERO);
        self.swept = self.swept.map(|at| at.rebased(by));
    }
}

fn payers(limits: &Limits, asked: &GrantAsked) -> Vec<(Payer, Rate)> {
    let renewed = asked.renew.as_ref().filter(|r| r.proven).and_then(|r| r.grant.as_ref());
    match renewed.filter(|signed| signed.grant.guid == asked.guid) {
        Some(signed) => vec![(Payer::Download(signed.grant.download), limits.download)],
        None => vec![(Payer::Key(asked.key), limits.key), (Payer::Prefix(prefix(asked.from)), limits.prefix)],
    }
}

#[cfg(test)]
mod tests;
