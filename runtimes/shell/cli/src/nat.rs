//! `swarmedge nat`: describes in words the NATs and firewalls between this machine and the Internet.

use super::args::NatArgs;
use super::client::state_of;
use super::{Code, Error};
use crate::config::{Bundle, File};
use hyper::Request;
use std::net::SocketAddr;
use swarmedge_client::client::{ClientConfig, commands};
use swarmedge_ground::edge_api::Bootstrap;
use swarmedge_ground::http::{Body, Client, Origin};
use swarmedge_ground::nat::{self, NatLine};
use swarmedge_ground::reach::{Reach, Way, host_and_port, interleave, resolve};
use swarmedge_ground::rt::{Rt, Start};
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::tls;

/// Most bytes of an edge's bootstrap response.
const BOOTSTRAP_LEN_MAX: usize = 64 * 1024;

/// Runs the command `swarmedge nat`.
pub(super) fn run<R: Start>(args: NatArgs, json: bool) -> Result<(), Error> {
    let line = match ask_running_client(&args)? {
        Some(line) => line,
        None => R::block_on(move |rt| async move {
            let servers = servers(&rt, &args).await?;
            let report =
                nat::once(rt, servers, !args.no_port_mapping).await.map_err(|e| Error::io("use a UDP socket", &e))?;
            Ok::<_, Error>(NatLine::from(&report))
        })?,
    };
    if !line.udp && !line.tcp {
        let next = "check the network and the server's address; where UDP is blocked, a server must answer on TCP 443";
        return Err(Error::new(Code::Unreachable, "no STUN server answers, neither over UDP nor over TCP").next(next));
    }
    if json { print_json(&line) } else { line.words().iter().try_for_each(|line| say!("{line}")) }
}

/// Asks the running client for its report; `None` if none runs, or if the arguments name servers.
fn ask_running_client(args: &NatArgs) -> Result<Option<NatLine>, Error> {
    if !args.stun.is_empty() || args.bundle.is_some() {
        return Ok(None);
    }
    commands::nat(&state_of(&args.client)?)
}

async fn servers<R: Rt>(rt: &R, args: &NatArgs) -> Result<Vec<SocketAddr>, Error> {
    let names = if args.stun.is_empty() { servers_of_deployment(rt, args).await? } else { args.stun.clone() };
    let mut servers = Vec::new();
    for name in &names {
        let Some((host, port)) = host_and_port(name) else {
            return Err(Error::usage(format!("{name:?} is no STUN server")).next("use HOST:PORT, as in 192.0.2.1:3478"));
        };
        match resolve(rt, host, port).await {
            Ok(found) => servers.extend(interleave(found)),
            Err(e) => tracing::warn!(server = %name, error = %e, "name not found"),
        }
    }
    if servers.is_empty() {
        let next = "name one with --stun HOST:PORT";
        return Err(Error::new(Code::Unreachable, "no STUN server is known").next(next));
    }
    Ok(servers)
}

/// Asks the bundle's edges for the STUN servers of the deployment, as `host:port`.
async fn servers_of_deployment<R: Rt>(rt: &R, args: &NatArgs) -> Result<Vec<String>, Error> {
    let bundle = match &args.bundle {
        Some(path) => Bundle::from_file(&File::read(path)?)?,
        None => {
            ClientConfig::load(&state_of(&args.client)?, None)
                .map_err(|e| e.next("name the operator's bundle with --bundle FILE, or a server with --stun"))?
                .bundle
        }
    };
    let way = Way { tls: tls::client_config(&bundle.ca, None)?, reach: Reach::chosen(None)? };
    let http = Client::new(rt.clone(), way);
    let mut last = Error::new(Code::Unreachable, "the bundle names no edge");
    for edge in bundle.bootstrap.iter().filter_map(|url| Origin::parse(url)) {
        let request = || Request::get("/v1/bootstrap").body(Body::empty()).unwrap_or_default();
        let failed = |e: &dyn std::fmt::Display| {
            let next = "check the network, or name a STUN server with --stun HOST:PORT";
            Error::new(Code::Unreachable, format!("edge {}: {e}", edge.authority())).next(next)
        };
        let body = match http.send(&edge, request).await {
            Ok(answer) => answer.collect(BOOTSTRAP_LEN_MAX).await,
            Err(e) => Err(e),
        };
        match body.map(|body| serde_json::from_slice::<Bootstrap>(&body)) {
            Ok(Ok(bootstrap)) => return Ok(bootstrap.stun),
            Ok(Err(e)) => last = failed(&e),
            Err(e) => last = failed(&e),
        }
    }
    Err(last)
}
