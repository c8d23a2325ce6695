//! `accept-loss`: removes the mark of a ledger or spool that is lost for good, so that the server starts without it.

use super::Error;
use super::args::{AcceptLossArgs, Keeper};
use super::audit::ledger_of;
use super::objects::no_section;
use crate::config::ServerConfig;
use std::path::PathBuf;
use swarmedge_ground::files::mark::Mark;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ledger::Database;

/// Runs the command `swarmedge accept-loss`.
pub(super) fn run<R: Start>(args: &AcceptLossArgs, json: bool) -> Result<(), Error> {
    let path = &args.config.config;
    let (file, loss) = match args.keeper {
        Keeper::Ledger => {
            let database = ledger_of(path)?.database;
            let Database::Sqlite(file) = database.clone() else {
                return Err(Error::usage(format!(
                    "the ledger is in PostgreSQL ({database}), which keeps no mark here"
                )));
            };
            (file, R::block_on(move |_| async move { database.loss().await })?)
        }
        Keeper::Edge | Keeper::Cn => {
            let file = spool_of(args.keeper, path)?;
            let loss = Mark::of(&file).loss();
            (file, loss)
        }
    };
    if loss.is_some() {
        Mark::of(&file).forget()?;
    }
    if json {
        return print_json(&serde_json::json!({"file": file, "lost": loss}));
    }
    match loss {
        Some(what) => say!("{what}\naccepted: the next start goes on without it"),
        None => say!("nothing is lost of {}, and nothing was changed", file.display()),
    }
}

fn spool_of(keeper: Keeper, path: &std::path::Path) -> Result<PathBuf, Error> {
    let config = ServerConfig::load(path)?;
    if keeper == Keeper::Edge {
        return config.edge.map(|c| c.spool).ok_or_else(|| no_section(path.to_path_buf(), "edge"));
    }
    let cn = config.cn.ok_or_else(|| no_section(path.to_path_buf(), "cn"))?;
    cn.spool.ok_or_else(|| Error::usage("[cn] has no spool"))
}
