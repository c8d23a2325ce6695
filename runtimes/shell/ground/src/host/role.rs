//! The steps that the servers of several roles share: certificate, and the loop of a machine to which others connect.

use super::{send_clock, unix_ms};
use crate::drive::{Port, drive};
use crate::error::Error;
use crate::http::Signal;
use crate::keys::load_cert;
use crate::link::{Accept, Inlet, accept};
use crate::mailbox::Receiver;
use crate::rt::Rt;
use futures_lite::future::{or, zip};
use std::fmt;
use std::future::{Future, pending};
use std::path::Path;
use swarmedge_core::accounting::Trust;
use swarmedge_core::ids::PublicKey;
use swarmedge_core::machine::Machine;
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{ServerCert, ServerRole};

/// Loads a server's certificate; fails unless it is valid now for this role, and for `key` if that is given with its
/// file.
pub fn certificate(
    trust: &Trust,
    role: ServerRole,
    path: &Path,
    key: Option<(&Path, PublicKey)>,
) -> Result<ServerCert, Error> {
    let cert = load_cert(path)?;
    if trust.check_cert(&cert, role, unix_ms()).is_ok() && key.is_none_or(|(_, key)| cert.body.key == key) {
        return Ok(cert);
    }
    let server = match role {
        ServerRole::Edge => "an edge",
        ServerRole::Cn => "a CN",
        ServerRole::Dn => "a DN",
        ServerRole::Ledger => "a ledger",
    };
    let with = key.map_or_else(String::new, |(file, _)| format!(" with {}", file.display()));
    Err(Error::usage(format!("{} is no valid certificate of the operator for {server}{with}", path.display()))
        .next("certificates expire: `swarmedge certificates renew` makes new ones"))
}

/// A machine to which others connect over links, with all that it needs to run.
pub struct Role<R: Rt, M: Machine, P, Out, In> {
    /// The machine.
    pub machine: M,
    /// Configuration of the machine.
    pub config: M::Config,
    /// The port that performs the machine's outputs.
    pub port: P,
    /// The receiving end of the machine's mailbox.
    pub inputs: Receiver<M::Input>,
    /// Listener for the links.
    pub acceptor: Accept<R>,
    /// The mailbox and table of the links.
    pub inlet: Inlet<Out, In, M::Input>,
    /// Makes the input that tells the machine the Unix time in milliseconds.
    pub clock: fn(u64) -> M::Input,
    /// The input that asks the machine to end; without one it ends at once.
    pub shutdown: Option<M::Input>,
}

impl<R: Rt, M: Machine, P, Out, In> fmt::Debug for Role<R, M, P, Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Role")
    }
}

impl<R, M, P, Out, In> Role<R, M, P, Out, In>
where
    R: Rt,
    M: Machine,
    M::Input: Send + 'static,
    P: Port<M>,
    Out: Wire + Clone + 'static,
    In: Wire + 'static,
{
    /// Serves until the machine and `beside` have ended, then closes all links. When `stop` is set the machine is asked
    /// to end.
    pub async fn serve(self, rt: R, stop: Signal, beside: impl Future<Output = ()>) {
        let Self { machine, config, port, inputs, acceptor, inlet, clock, shutdown } = self;
        rt.spawn(send_clock(rt.clone(), inlet.inbox.clone(), clock));
        let inbox = inlet.inbox.clone();
        let stopping = async {
            stop.wait().await;
            if let Some(input) = shutdown {
                let _ = inbox.send(input).await;
                pending().await
            }
        };
        let accepting = accept(rt.clone(), acceptor, inlet.clone());
        let working = async {
            zip(drive(rt, machine, config, inputs, port), beside).await;
        };
        or(working, or(accepting, stopping)).await;
        inlet.links.close_all();
    }
}
