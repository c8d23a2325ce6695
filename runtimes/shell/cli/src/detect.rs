//! `detect`: prints clients that may cheat, with the evidence from the ledger.

use super::args::DetectArgs;
use super::audit::ledger_of;
use std::path::Path;
use swarmedge_ground::error::Error;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::terminal::units::bytes;
use swarmedge_ledger::suspects::{RepeatedFound, Suspects};
use swarmedge_ledger::{Day, Reader};

/// Days of the span if `--from` is not given.
const DAYS: u32 = 30;

/// Runs the command `swarmedge detect`.
pub(super) fn run<R: Start>(args: &DetectArgs, json: bool) -> Result<(), Error> {
    let cfg = ledger_of(&args.config.config)?;
    let (from, to) = (args.from, args.to);
    let found = R::block_on(|_| async move {
        let mut reader = Reader::open(&cfg.database).await?;
        let (_, newest) = reader.days_with_records().await?.unwrap_or_default();
        let to = to.unwrap_or(newest);
        let from = from.unwrap_or(Day(to.0.saturating_sub(DAYS - 1)));
        if to < from {
            return Err(Error::usage(format!("{from} to {to} is no span of days")).next("see --from and --to"));
        }
        reader.suspects(from, to).await
    })?;
    if json {
        return print_json(&found);
    }
    let quarantine = quarantine(&found, &args.config.config);
    say!("{}{}", text(&found).trim_end(), quarantine)
}

/// Returns the command that quarantines all suspects, for an operator who is convinced by the evidence.
fn quarantine(s: &Suspects, config: &Path) -> String {
    let all = s.guids();
    if all.is_empty() {
        return String::new();
    }
    let (from, to) = &s.days;
    format!(
        "\n\nif you are convinced: the edges alone serve them, and nothing more of it is billed, with\n  swarmedge \
         quarantine add {} --reason \"detect {from} to {to}\" --config {}",
        all.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
        config.display()
    )
}

/// Appends the installations whose logins leave out some starts of the client.
fn gaps(text: &mut String, s: &Suspects) {
    for g in &s.gaps {
        *text += &format!(
            "\ngap: {} has starts that no login joins (no guilt: what happened in between is not known)\n  {} logins\n",
            g.guid, g.logins
        );
        for p in &g.parts {
            let (oldest, newest) = (p.oldest.join(", "), p.newest.join(", "));
            *text += &format!("  {} starts, the oldest {oldest}, the newest {newest}\n", p.starts);
        }
    }
    let graphs: Vec<_> = s.looked_at.graphs.iter().map(|(pattern, n)| format!("{n} {pattern}")).collect();
    if !graphs.is_empty() {
        *text += &format!("\ngraphs of secondary GUIDs: {}; with gaps {}\n", graphs.join(", "), s.gaps.len());
    }
}

/// Appends the groups of clients that exchange bytes mostly among themselves.
fn cliques(text: &mut String, s: &Suspects) {
    for c in &s.cliques {
        *text += &format!(
            "\nclique of {}: took {} from one another, {}.{} % of all they had from peers\n  offered to one another {} \
             times, used {} times: chance 1 in 2^{}\n",
            c.members.len(),
            bytes(c.bytes),
            c.inside_permille / 10,
            c.inside_permille % 10,
            c.offered,
            c.used,
            c.bits
        );
        c.members.iter().for_each(|m| *text += &format!("  {m}\n"));
    }
}

/// Appends the copies that downloaders say have sent wrong blocks.
fn blamed(text: &mut String, s: &Suspects) {
    for b in &s.blamed {
        *text += &format!(
            "\nblamed: {} is said to have sent wrong blocks of {}, by {} client{} of {} network{} (votes, no proof); it has \
             since proven to an edge {} time{} that it has the right ones\n",
            b.guid,
            b.version,
            b.accusers,
            if b.accusers == 1 { "" } else { "s" },
            b.networks,
            if b.networks == 1 { "" } else { "s" },
            b.rechecked,
            if b.rechecked == 1 { "" } else { "s" }
        );
    }
}

fn is_inconspicuous(s: &Suspects) -> bool {
    let is_nothing_repeated = s.repeated_by_client.is_empty() && s.repeated_by_network.is_empty();
    let is_nothing_claimed = s.cliques.is_empty() && s.not_offered.is_empty() && s.understated.is_empty();
    let is_nothing_impossible = s.failed_possession.is_empty() && s.travel.is_empty() && s.forked.is_empty();
    let is_nobody_blamed = s.blamed.is_empty();
    is_nobody_blamed && is_nothing_repeated && is_nothing_claimed && is_nothing_impossible && s.gaps.is_empty()
}

fn text(s: &Suspects) -> String {
    let l = &s.looked_at;
    let mut text = format!(
        "{} to {} (UTC): {} downloads, {} offers of peers, {} logins of {} clients\n",
        s.days.0, s.days.1, l.downloads, l.offers, l.logins, l.clients
    );
    if l.offers == 0 {
        text += "no offers are logged in this span: nothing can be said of cliques\n";
    }
    cliques(&mut text, s);
    for n in &s.not_offered {
        text += &format!(
            "\nnot offered: {} had {} from {} over {} introductions that no CN logged\n",
            n.downloader,
            bytes(n.bytes),
            n.uploader,
            n.introductions
        );
    }
    let repeated = |text: &mut String, what: &str, all: &[RepeatedFound]| {
        for r in all {
            *text += &format!("\nrepeated: {what} {} completed {} {} times on {}\n", r.who, r.version, r.times, r.day);
        }
    };
    repeated(&mut text, "client", &s.repeated_by_client);
    repeated(&mut text, "network", &s.repeated_by_network);
    for p in &s.failed_possession {
        text += &format!(
            "\nfailed possession: {} answered {} challenges wrongly and {} not at all, passed {} (weak by itself)\n",
            p.guid, p.failed, p.unanswered, p.passed
        );
    }
    blamed(&mut text, s);
    for u in &s.understated {
        text += &format!(
            "\nunderstated: {} signed for {} more than it filed, in {} download{}; the smaller claim was billed\n",
            u.guid,
            bytes(u.bytes),
            u.downloads,
            if u.downloads == 1 { "" } else { "s" }
        );
    }
    for t in &s.travel {
        text += &format!(
            "\nimplausible travel: {} moved {} times faster than anybody travels: {} km in {} s, from {} to {}\n",
            t.guid, t.moves, t.distance_km, t.seconds, t.from, t.to
        );
    }
    for f in &s.forked {
        text += &format!("\n{}: {} (no guilt: it is to get a new key)\n", f.pattern, f.guid);
        text += &format!("  {} logins; lived through more than once: {}\n", f.logins, f.forks.join(", "));
    }
    gaps(&mut text, s);
    if is_inconspicuous(s) {
        text += "nothing conspicuous\n";
    }
    text
}
