//! Computes how improbable a number of successes among random trials is, in bits (-log2 of the probability), without
//! floating-point numbers.

/// A rate: `hits` among `of` trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Number of successful trials.
    pub hits: u64,
    /// Number of all trials.
    pub of: u64,
}

impl Rate {
    /// Adds the result of one trial.
    pub const fn add(&mut self, hit: bool) {
        self.of = self.of.saturating_add(1);
        self.hits = self.hits.saturating_add(hit as u64);
    }

    /// Returns the rate without the trials of `part`, which is contained in this one.
    #[must_use]
    pub const fn without(self, part: Self) -> Self {
        Self { hits: self.hits.saturating_sub(part.hits), of: self.of.saturating_sub(part.of) }
    }

    /// Returns the rate in units of 1/65,536, as if `weight` more trials with the rate `prior` had been made, so that
    /// few trials do not yield an extreme rate.
    #[must_use]
    pub fn smoothed(self, prior: u64, weight: u64) -> u64 {
        let hits = u128::from(self.hits) * u128::from(ONE) + u128::from(prior) * u128::from(weight);
        let of = u128::from(self.of) + u128::from(weight);
        u64::try_from(hits.checked_div(of).unwrap_or(0)).unwrap_or(ONE).min(ONE)
    }
}

/// The number one in fixed point, in units of 1/65,536, for probabilities and for bits.
pub const ONE: u64 = 1 << 16;

/// Returns log2 of `n` in units of 1/65,536; 0 for 0. Each bit of the fraction takes one squaring.
#[must_use]
pub fn log2(n: u64) -> u64 {
    let Some(whole) = n.checked_ilog2() else { return 0 };
    // the mantissa in [1, 2), with 31 bits after the point
    let mut x = if whole >= 31 { n >> (whole - 31) } else { n << (31 - whole) };
    let mut fraction = 0;
    for bit in (0..16).rev() {
        x = (x * x) >> 31;
        if x >= 1 << 32 {
            x >>= 1;
            fraction |= 1 << bit;
        }
    }
    u64::from(whole) * ONE + fraction
}

/// Returns a lower bound of -log2 of the chance that `n` trials, each successful with chance `p` (in units of
/// 1/65,536), give `k` successes or more, in whole bits (Chernoff's bound). 0 where `k` is no more than the expected
/// number.
#[must_use]
pub fn surprise(k: u64, n: u64, p: u64) -> u64 {
    let (k, p) = (k.min(n), p.clamp(1, ONE));
    let (expected, found) = (u128::from(n) * u128::from(p), u128::from(k) * u128::from(ONE));
    if found <= expected || p == ONE {
        return 0;
    }
    // k log2(k / np) + (n - k) log2((n - k) / n(1 - p))
    let term = |count: u64, chance: u64| {
        if count == 0 {
            return 0;
        }
        let (count_log, n_log, chance_log) = (log2(count), log2(n), log2(chance));
        let ratio = i128::from(count_log) + i128::from(16 * ONE) - i128::from(n_log) - i128::from(chance_log);
        i128::from(count) * ratio
    };
    let bits = term(k, p) + term(n - k, ONE - p);
    u64::try_from(bits / i128::from(ONE)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_a_thousandth() {
        for (n, milli) in [(1, 0), (2, 1_000), (3, 1_585), (10, 3_322), (1_000, 9_966), (1 << 40, 40_000)] {
            assert!((log2(n) * 1_000 / ONE).abs_diff(milli) <= 1, "{n}");
        }
        assert_eq!(log2(0), 0);
        assert_eq!(log2(u64::MAX) >> 16, 63);
    }

    #[test]
    fn surprise_follows_the_binomial_and_is_0_if_expected() {
        // 20 of 20 at a chance of one half: exactly 20 bits
        assert_eq!(surprise(20, 20, ONE / 2), 20);
        // 10 of 20 at 0.1: the tail is 7.2e-6, 17.1 bits; the bound may say less, never more
        let bits = surprise(10, 20, ONE / 10);
        assert!((14..=17).contains(&bits), "{bits}");
        assert_eq!(surprise(10, 20, ONE / 2), 0);
        assert_eq!(surprise(3, 20, ONE / 2), 0);
        assert_eq!(surprise(20, 20, ONE), 0);
        assert_eq!(surprise(0, 0, 1), 0);
    }
}
