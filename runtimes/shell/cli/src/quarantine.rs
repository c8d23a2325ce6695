//! `quarantine`: adds, removes and lists clients that edges alone serve and whose peer bytes are not billed.

use super::args::QuarantineCommand;
use super::audit::ledger_of;
use std::collections::BTreeSet;
use swarmedge_core::ids::Guid;
use swarmedge_ground::error::Error;
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{note, print_json, say};
use swarmedge_ledger::quarantine::{self, Quarantined};
use swarmedge_ledger::{Day, Reader, Store};

/// Time within which running servers act on a change, for messages.
const WITHIN: &str = "five seconds";

/// Runs the command `swarmedge quarantine`.
pub(super) fn run<R: Start>(command: &QuarantineCommand, json: bool) -> Result<(), Error> {
    match command {
        QuarantineCommand::Add(args) => {
            let (guids, reason) = (parse(&args.guids)?, args.reason.clone());
            let cfg = ledger_of(&args.config.config)?;
            cfg.database.check_there()?;
            let (done, unnamed) = R::block_on(|_| async move {
                let mut store = Store::open(&cfg.database).await?;
                let done = quarantine::enter(&mut store, &guids, &reason, unix_ms()).await;
                store.close().await;
                Ok::<_, Error>((done?, Reader::open(&cfg.database).await?.unnamed(&guids).await?))
            })?;
            for guid in unnamed {
                note!("no record names {guid}: if it is mistyped, `quarantine remove {guid}` and add the right one");
            }
            if json {
                return print_json(&done);
            }
            say!(
                "{} put into quarantine, {} were in it already{}: no peers within {WITHIN}, the edge as before; what \
                 peers give or get from now on is not billed",
                done.added,
                done.already,
                if done.already == 0 { "" } else { " and keep the reason that was given then" }
            )?;
            done.heirs.iter().try_for_each(|heir| say!("  among them {heir}, which one of them has become"))?;
            if done.left_out > 0 {
                say!("  {} more that they have become are not: there is no room left for such", done.left_out)?;
            }
            Ok(())
        }
        QuarantineCommand::Remove(args) => {
            let (guids, cfg) = (parse(&args.guids)?, ledger_of(&args.config.config)?);
            cfg.database.check_there()?;
            let done = R::block_on(|_| async move {
                let mut store = Store::open(&cfg.database).await?;
                let done = quarantine::release(&mut store, &guids, unix_ms()).await;
                store.close().await;
                done
            })?;
            if json {
                return print_json(&done);
            }
            say!(
                "{} let out: they have peers again within {WITHIN}; what was not billed meanwhile stays so",
                done.removed
            )?;
            done.heirs.iter().try_for_each(|heir| say!("  among them {heir}, which one of them has become"))?;
            done.left.iter().try_for_each(|guid| say!("  {guid}, which has become one of them, is in quarantine still"))
        }
        QuarantineCommand::List(args) => {
            let cfg = ledger_of(&args.config.config)?;
            let all = R::block_on(|_| async move { Reader::open(&cfg.database).await?.quarantined().await })?;
            if json { print_json(&all) } else { say!("{}", text(&all).trim_end()) }
        }
    }
}

fn parse(guids: &[String]) -> Result<BTreeSet<Guid>, Error> {
    let guid = |text: &String| {
        text.parse().map_err(|e| Error::usage(format!("{text:?}: {e}")).next("a GUID has 32 hexadecimal digits"))
    };
    guids.iter().map(guid).collect()
}

fn text(all: &[Quarantined]) -> String {
    if all.is_empty() {
        return "nobody is in quarantine, nor ever was".into();
    }
    let mut text = String::from("client                            since             until             reason\n");
    for q in all {
        let until = q.until_ms.map_or_else(|| "-".to_owned(), minute);
        text += &format!("{}  {}  {until:16}  {}\n", q.guid, minute(q.from_ms), q.reason);
    }
    text
}

/// Formats Unix milliseconds as `2026-11-22 14:05` (UTC).
fn minute(ms: u64) -> String {
    let minutes = ms / 60_000;
    format!("{} {:02}:{:02}", Day::of_ms(ms), minutes / 60 % 24, minutes % 60)
}
