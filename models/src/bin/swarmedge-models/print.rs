//! Prints reports of models as text and as JSON.

use swarmedge_models::check::Report;
use swarmedge_models::rule::Demand;

/// Formats a report for people to read.
pub(crate) fn text(r: &Report) -> String {
    let mut out = format!(
        "{}: {}\n  {} unique states, {} transitions, depth {}, {:.1} s\n",
        r.name,
        r.about,
        grouped(r.states),
        grouped(r.transitions),
        r.depth,
        r.time.as_secs_f64()
    );
    for rule in &r.rules {
        let (mark, kind) = (mark(rule.failure.is_none()), kind(rule.demand));
        out += &format!("  {mark} {kind} {}\n", rule.name);
        if let Some(how) = &rule.failure {
            how.lines().for_each(|line| out += &format!("         {line}\n"));
        }
    }
    for t in &r.teeth {
        let found = match t.steps {
            Some(n) => format!("found in {n} steps"),
            None => "NOT FOUND".into(),
        };
        let (states, time) = (grouped(t.states), t.time.as_secs_f64());
        out += &format!(
            "  {} tooth  {}: {found} by “{}” ({states} states, {time:.1} s)\n",
            mark(t.steps.is_some()),
            t.defect,
            t.rule
        );
    }
    out
}

/// Formats a report as one line of JSON.
pub(crate) fn json(r: &Report) -> String {
    let rules = r
        .rules
        .iter()
        .map(|x| format!(r#"{{"name":{:?},"kind":{:?},"holds":{}}}"#, x.name, kind(x.demand), x.failure.is_none()));
    let teeth = r.teeth.iter().map(|t| {
        let steps = t.steps.map_or_else(|| "null".into(), |n| n.to_string());
        format!(r#"{{"defect":{:?},"rule":{:?},"steps":{steps},"states":{}}}"#, t.defect, t.rule, t.states)
    });
    format!(
        r#"{{"model":{:?},"states":{},"transitions":{},"depth":{},"seconds":{:.3},"good":{},"rules":[{}],"teeth":[{}]}}"#,
        r.name,
        r.states,
        r.transitions,
        r.depth,
        r.time.as_secs_f64(),
        r.is_good(),
        rules.collect::<Vec<_>>().join(","),
        teeth.collect::<Vec<_>>().join(",")
    )
}

/// Returns the mark before a result: `ok` or `FAIL`.
pub(crate) const fn mark(good: bool) -> &'static str {
    if good { "ok  " } else { "FAIL" }
}

const fn kind(demand: Demand) -> &'static str {
    match demand {
        Demand::Always => "always",
        Demand::Sometimes => "sometimes",
    }
}

fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
