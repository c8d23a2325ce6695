//! Statistics for the tables of the pair matrix.

/// Returns the smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank); `None`
/// without values.
#[must_use]
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = sorted.iter().enumerate().find(|(i, _)| (*i as f64 + 1.0) >= share * sorted.len() as f64);
    rank.map(|(_, v)| *v)
}

/// Returns the lower end of the one-sided 95 % confidence interval of a success rate (exact, by Clopper and Pearson):
/// with a lower rate, this many successes or more would be seen less than once in twenty times.
#[must_use]
pub fn lower_bound_95(successes: u32, tries: u32) -> f64 {
    if successes == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_least(successes, tries, middle) < 0.05 { low = middle } else { high = middle }
    }
    low
}

/// Returns the probability of `successes` or more in `tries` tries, each of which succeeds with probability `rate`.
fn at_least(successes: u32, tries: u32, rate: f64) -> f64 {
    if rate <= 0.0 || rate >= 1.0 {
        return if rate >= 1.0 { 1.0 } else { 0.0 };
    }
    // by logarithms, since factors of a long series underflow
    let mut choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=tries {
        if k >= successes {
            sum += (choose + f64::from(k) * rate.ln() + f64::from(tries - k) * (1.0 - rate).ln()).exp();
        }
        choose += f64::from(tries - k).ln() - f64::from(k + 1).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), Some(10.0));
        assert_eq!(percentile(&values, 0.95), Some(19.0));
        assert_eq!(percentile(&values, 1.0), Some(20.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn bounds_agree_with_the_closed_form_and_with_published_tables() {
        // all n tries succeed: the n-th root of 0.05
        for n in [1_u32, 10, 60, 300] {
            assert!((lower_bound_95(n, n) - 0.05_f64.powf(1.0 / f64::from(n))).abs() < 1e-9, "{n}");
        }
        // 9 successes of 10 tries: 0.6058 (one-sided)
        assert!((lower_bound_95(9, 10) - 0.6058).abs() < 1e-4);
        assert_eq!(lower_bound_95(0, 10), 0.0);
    }
}
