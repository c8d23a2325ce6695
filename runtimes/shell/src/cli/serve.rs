//! Servers: any subset of the roles in one process, on one runtime.

use super::args::Role;
use super::certificates;
use super::objects::no_section;
use super::stop::stop_signal;
use super::{Code, Error};
use crate::config::ServerConfig;
use crate::edge;
use crate::health::Health;
use crate::host::Server;
use crate::http::Signal;
use crate::ops;
use crate::rt::{Rt, Start};
use crate::server::{self, cn, dn};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

type Running = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// Runs roles until the process is told to end.
pub(super) fn run<R: Start>(roles: &[Role], path: &Path, exit_with_parent: bool) -> Result<(), Error> {
    let config = ServerConfig::load(path)?;
    let mut roles = roles.to_vec();
    // the ledger first: the others find it there
    roles.sort_unstable_by_key(|r| (*r != Role::Ledger, *r));
    roles.dedup();
    let path = path.to_path_buf();
    ops::init_metrics();
    R::block_on(move |rt| async move {
        let told = stop_signal(&rt, exit_with_parent)?;
        let own = certificates::expiries(&config, |role| roles.iter().any(|r| name(*r) == role))?;
        rt.spawn(certificates::watch(rt.clone(), own));
        serve(rt, roles, config, path, told).await
    })
}

/// Opens every role, then runs them all. When `told` is set the ledger stops last, so that the others can hand over
/// what they hold; when one fails, all stop.
async fn serve<R: Rt>(rt: R, roles: Vec<Role>, config: ServerConfig, path: PathBuf, told: Signal) -> Result<(), Error> {
    let (stop, stop_ledger, health) = (Signal::default(), Signal::default(), Health::default());
    let mut ledger = None;
    let mut others: Vec<Running> = Vec::new();
    for role in roles {
        let missing = || no_section(path.clone(), name(role));
        let operator = &config.operator;
        let server: Server = match role {
            Role::Ledger => {
                let c = config.ledger.as_ref().ok_or_else(missing)?;
                ledger = Some(server::ledger::open(&rt, operator, c, &stop_ledger, &health).await?);
                continue;
            }
            Role::Edge => edge::open(&rt, config.edge.as_ref().ok_or_else(missing)?, &stop, &health)?,
            Role::Cn => cn::open(&rt, operator, config.cn.as_ref().ok_or_else(missing)?, &stop, &health)?,
            Role::Dn => dn::open(&rt, operator, config.dn.as_ref().ok_or_else(missing)?, &stop, &health)?,
            Role::Stun => server::stun::open(&rt, config.stun.as_ref().ok_or_else(missing)?, &stop, &health)?,
        };
        others.push(run_role(server, name(role), stop.clone()));
    }
    let own = stop.clone();
    // a ledger by itself ends when it is told to, not because nobody else is there
    let until_told = stop.clone();
    others.push(Box::pin(async move {
        until_told.wait().await;
        Ok(())
    }));
    let all_others = async move { join(others, stop_ledger).await };
    rt.spawn(async move {
        told.wait().await;
        own.set();
    });
    match ledger {
        None => all_others.await,
        Some(ledger) => {
            let (a, b) = futures_lite::future::zip(all_others, run_role(ledger, "ledger", stop)).await;
            a.and(b)
        }
    }
}

/// Runs one role; if it fails, the others are stopped too.
fn run_role(server: Server, role: &'static str, stop: Signal) -> Running {
    Box::pin(async move {
        let result = server.run().await;
        if let Err(error) = &result {
            tracing::error!(role, %error, "failed");
            stop.set();
        }
        result.map_err(|e| Error::new(Code::Failed, format!("{role}: {e}")))
    })
}

/// Runs all to their ends, then sets `done`. The first error counts.
async fn join(all: Vec<Running>, done: Signal) -> Result<(), Error> {
    let mut joined: Running = Box::pin(async { Ok(()) });
    for next in all {
        joined = Box::pin(async move {
            let (a, b) = futures_lite::future::zip(joined, next).await;
            a.and(b)
        });
    }
    let result = joined.await;
    done.set();
    result
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Edge => "edge",
        Role::Cn => "cn",
        Role::Dn => "dn",
        Role::Stun => "stun",
        Role::Ledger => "ledger",
    }
}
