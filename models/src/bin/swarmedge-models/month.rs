//! Prints the simulated month: its figures, and whether all of its promises were kept (such as: no honest client is
//! found guilty).

use crate::print::mark;
use std::time::Instant;
use swarmedge_core::accounting::clones::Pattern;
use swarmedge_models::month::{Config, Defect, Outcome, run};

/// Plays a month and prints its result; returns whether every promise was kept.
pub(crate) fn play(cfg: Config, json: bool) -> bool {
    let began = Instant::now();
    let outcome = run(cfg);
    let (took_ms, peak_kib) = (began.elapsed().as_millis(), peak_kib());
    let broken = outcome.broken_promises();
    if json {
        println!("{}", to_json(&cfg, &outcome, took_ms, peak_kib));
    } else {
        print!("{}", text(&cfg, &outcome));
        println!("took        {:.1} s, peak memory {} MiB", took_ms as f64 / 1000.0, peak_kib / 1024);
        for why in &broken {
            println!("NOT KEPT    {why}");
        }
        if broken.is_empty() {
            println!("every promise kept");
        }
    }
    broken.is_empty()
}

/// Returns the seeded defect with this name on the command line; `None` if there is no such defect.
pub(crate) fn defect(name: &str) -> Option<Defect> {
    Defect::ALL.into_iter().find(|d| d.name() == name)
}

/// Plays a small month without a defect, then one with each seeded defect. Returns whether the first kept every
/// promise and each defect broke the promise that it is meant to break.
pub(crate) fn check(json: bool) -> bool {
    let began = Instant::now();
    let cfg = Config::SMALL;
    let outcome = run(cfg);
    let broken = outcome.broken_promises();
    if !json {
        let took = began.elapsed().as_secs_f64();
        println!(
            "month: {} downloads of {} clients, settled and looked at, {took:.1} s",
            outcome.downloads, cfg.clients
        );
        println!("  {} always every promise is kept", mark(broken.is_empty()));
        broken.iter().for_each(|why| println!("         {why}"));
    }
    let mut good = broken.is_empty();
    let mut teeth = Vec::new();
    for defect in Defect::ALL {
        let began = Instant::now();
        let found = run(Config { defect: Some(defect), ..cfg }).broken_promises().contains(&defect.breaks());
        good &= found;
        teeth.push(format!(r#"{{"defect":{:?},"rule":{:?},"found":{found}}}"#, defect.about(), defect.breaks()));
        if !json {
            let (how, took) = (if found { "found" } else { "NOT FOUND" }, began.elapsed().as_secs_f64());
            println!("  {} tooth  {}: {how} as “{}” ({took:.1} s)", mark(found), defect.about(), defect.breaks());
        }
    }
    if json {
        println!(
            r#"{{"model":"month","downloads":{},"good":{good},"broken":{broken:?},"teeth":[{}]}}"#,
            outcome.downloads,
            teeth.join(",")
        );
    }
    good
}

fn text(cfg: &Config, o: &Outcome) -> String {
    let gb = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let honest = |(name, (all, wronged)): (&str, (u64, u64))| format!("{name} {wronged} of {all}");
    let habits = ["plain", "LAN first", "edge last", "fast"].into_iter().zip(o.honest).map(honest);
    let habits = habits.collect::<Vec<_>>().join(", ");
    let forks = o.installs.forked.iter().sum::<u64>().max(1);
    let patterns = [Pattern::FailedUpdate, Pattern::RestoredBackup, Pattern::Reimaged, Pattern::Irregular];
    let share = |(p, n): (Pattern, u64)| format!("{} {:.1} %", p.name(), n as f64 * 100.0 / forks as f64);
    let patterns = patterns.into_iter().zip(o.installs.forked).map(share).collect::<Vec<_>>().join(", ");
    let linear = o.installs.linear as f64 * 100.0 / o.installs.graphs.max(1) as f64;
    format!(
        "month       {} clients, {} downloads settled ({} with a liar), {} offers, seed {}\n\
         bytes       edges {}, peers {} delivered, {} billed of clients' word, {} claimed and not billed\n\
         over-billed {} bytes beyond collusion inside ceilings; under-billed {} bytes of honest pairs\n\
         collusion   {} cliques of 5, {} fakes a member: {} faked, {} bytes of it above ceilings\n\
         \x20           {} more without introduction, {} bytes of it billed\n\
         found       {} of {} members ({:.1} %) in {} groups; {} repeated demands\n\
         wronged     {:.4} % of honest clients: {habits}\n\
         installs    {linear:.1} % of {} linear (paper: 99.4 %); of the others {patterns}; {} misread\n\
         \x20           (paper: 46.2 % failed update, 6.2 % restored backup, 23.5 % re-imaged or cloned)\n",
        cfg.clients,
        o.downloads,
        o.lied,
        o.offers,
        cfg.seed,
        gb(o.edge_bytes),
        gb(o.delivered),
        gb(o.billed - o.faked - o.uninvited_billed),
        gb(o.flagged_bytes),
        o.over_billed,
        o.under_billed,
        cfg.cliques,
        cfg.fakes,
        gb(o.faked),
        o.faked_above_ceiling,
        gb(o.uninvited),
        o.uninvited_billed,
        o.members_found,
        o.members,
        o.found_permille() as f64 / 10.0,
        o.groups,
        o.repeated,
        o.wronged_ppm() as f64 / 1e4,
        o.installs.graphs,
        o.installs.wrong,
    )
}

/// Returns the outcome of a simulated month as JSON.
fn to_json(cfg: &Config, o: &Outcome, took_ms: u128, peak_kib: u64) -> String {
    format!(
        "{{\"clients\":{},\"downloads\":{},\"lied\":{},\"offers\":{},\"over_billed\":{},\"under_billed\":{},\
         \"faked\":{},\"faked_above_ceiling\":{},\"uninvited_billed\":{},\"members\":{},\"members_found\":{},\"wronged_ppm\":{},\
         \"graphs\":{},\"linear\":{},\"forked\":{:?},\"misread\":{},\"took_ms\":{took_ms},\"peak_kib\":{peak_kib},\
         \"broken\":{:?}}}",
        cfg.clients,
        o.downloads,
        o.lied,
        o.offers,
        o.over_billed,
        o.under_billed,
        o.faked,
        o.faked_above_ceiling,
        o.uninvited_billed,
        o.members,
        o.members_found,
        o.wronged_ppm(),
        o.installs.graphs,
        o.installs.linear,
        o.installs.forked,
        o.installs.wrong,
        o.broken_promises(),
    )
}

/// Returns the peak memory of this process in KiB; 0 if the system does not report it.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}
