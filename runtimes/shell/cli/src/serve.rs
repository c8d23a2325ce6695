//! `serve` and the commands of single roles: any subset of the roles in one process, each on a thread of its own.

use super::Error;
use super::args::Role;
use super::certificates;
use super::objects::no_section;
use super::reload::Reload;
use super::stop::stop_signal;
use crate::config::ServerConfig;
use std::path::Path;
use swarmedge_control::{self, cn, dn};
use swarmedge_ground::health::Health;
use swarmedge_ground::host::Lives;
use swarmedge_ground::host::crew::{self, Member};
use swarmedge_ground::mailbox::mailbox;
use swarmedge_ground::ops;
use swarmedge_ground::rt::{Rt, Start};

/// Runs roles until the process gets a signal to end. The ledger then stops last, so that the others can hand over
/// their records. When one role fails, all stop.
pub(super) fn run<R: Start>(roles: &[Role], path: &Path, exit_with_parent: bool) -> Result<(), Error> {
    let config = ServerConfig::load(path)?;
    let mut roles = roles.to_vec();
    // the ledger starts first, since the others connect to it
    roles.sort_unstable_by_key(|r| (*r != Role::Ledger, *r));
    roles.dedup();
    ops::init_metrics();
    // the process is ready when all of its roles are
    let (health, lives) = (Health::default(), Lives::default());
    let members =
        roles.iter().map(|role| Ok::<_, Error>(member::<R>(*role, &config, path, health.clone())?.reporting(&lives)));
    let members = members.collect::<Result<_, _>>()?;
    let path = path.to_path_buf();
    R::block_on(move |rt| async move {
        let (hangup, asked) = mailbox(1);
        let stop = stop_signal(&rt, exit_with_parent, Some(hangup))?;
        let reload = Reload::new(&path, roles.into_iter().map(name).collect(), config, lives)?;
        rt.spawn(certificates::watch(rt.clone(), reload.expiries(), health));
        rt.spawn(reload.follow(asked));
        crew::run(members, stop).await
    })
}

/// Makes the member of the crew that runs a role, from its section of the configuration.
fn member<R: Rt>(role: Role, config: &ServerConfig, path: &Path, health: Health) -> Result<Member<R>, Error> {
    let missing = || no_section(path.to_path_buf(), name(role));
    let operator = config.operator.clone();
    let named = name(role);
    Ok(match role {
        Role::Ledger => {
            let c = config.ledger.clone().ok_or_else(missing)?;
            let open = async move |rt, stop| swarmedge_ledger::open(&rt, &operator, &c, &stop, &health).await;
            Member::new(named, open).stopping_last()
        }
        Role::Edge => {
            let c = config.edge.clone().ok_or_else(missing)?;
            Member::new(named, async move |rt, stop| swarmedge_edge::open(&rt, &c, &stop, &health))
        }
        Role::Cn => {
            let c = config.cn.clone().ok_or_else(missing)?;
            Member::new(named, async move |rt, stop| cn::open(&rt, &operator, &c, &stop, &health))
        }
        Role::Dn => {
            let c = config.dn.clone().ok_or_else(missing)?;
            Member::new(named, async move |rt, stop| dn::open(&rt, &operator, &c, &stop, &health))
        }
        Role::Stun => {
            let c = config.stun.clone().ok_or_else(missing)?;
            Member::new(named, async move |rt, stop| swarmedge_control::stun::open(&rt, &c, &stop, &health))
        }
    })
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
