//! The last bootstrap (addresses of edges, CNs and STUN servers), kept in the state directory. With it a client that
//! starts while no edge answers reaches CNs, and through these its peers. The kept bootstrap came from an edge over
//! TLS; CNs and edges are authenticated as after any bootstrap.

use super::EdgeClient;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::limits::SERVERS_MAX;
use swarmedge_core::role::client::KeptServers;
use swarmedge_ground::edge_api::Bootstrap;
use swarmedge_ground::files;
use swarmedge_ground::http::Origin;
use swarmedge_ground::reach::{host_and_port, interleave, resolve};
use swarmedge_ground::rt::Rt;

/// Name of the file in the state directory.
const FILE: &str = "bootstrap.json";
/// Time to wait for the STUN servers of a new bootstrap before those of the kept one are used.
const FRESH_WITHIN: Duration = Duration::from_secs(5);

/// Reads the kept bootstrap; `None` if there is none, or it is damaged.
pub(super) fn read(state: &Path) -> Option<Bootstrap> {
    let file = state.join(FILE);
    let text = std::fs::read_to_string(&file).ok()?;
    let read = serde_json::from_str(&text);
    read.inspect_err(|error| tracing::warn!(file = %file.display(), %error, "the kept bootstrap does not parse")).ok()
}

/// Returns the system's Unix time in milliseconds.
pub(super) fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Resolves `host:port` to its addresses, IPv4 and IPv6 alternating; empty if the name is unknown.
pub(super) async fn addresses<R: Rt>(edges: &EdgeClient<R>, server: &str) -> Vec<SocketAddr> {
    let Some((host, port)) = host_and_port(server) else { return Vec::new() };
    resolve(&edges.0.rt, host, port).await.map(interleave).unwrap_or_default()
}

/// Returns the edges that a bootstrap names.
pub(super) fn edges_of(bootstrap: &Bootstrap) -> Vec<Origin> {
    bootstrap.edges.iter().filter_map(|url| Origin::parse(url)).collect()
}

/// Returns the addresses of CNs that a bootstrap names.
pub(super) fn cns_of(bootstrap: &Bootstrap) -> Vec<String> {
    bootstrap.cns.iter().map(|cn| cn.addr.clone()).collect()
}

impl<R: Rt> EdgeClient<R> {
    /// Uses the bootstrap that an earlier start has kept in `state`, and keeps later ones there. Returns the numbers of
    /// its servers; `None` if none is kept.
    pub fn keep_bootstrap(&self, state: &Path) -> Option<KeptServers> {
        self.0.kept_in.replace(Some(state.to_owned()));
        let kept = read(state)?;
        let mut directory = self.0.directory.borrow_mut();
        directory.recall(edges_of(&kept), cns_of(&kept), &kept.client_version_min);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let servers =
            KeptServers { cns: count(directory.cns.len()), edges: count(directory.edges.len()), now_ms: system_ms() };
        drop(directory);
        self.resolve_kept(kept.stun.clone());
        self.0.kept.replace(Some(kept));
        Some(servers)
    }

    /// Resolves the STUN servers of the kept bootstrap, for use until a new bootstrap names others.
    fn resolve_kept(&self, servers: Vec<String>) {
        let edges = self.clone();
        self.0.rt.spawn(async move {
            let mut stun = Vec::new();
            for server in servers.iter().take(SERVERS_MAX) {
                stun.extend(addresses(&edges, server).await);
            }
            edges.0.rt.sleep_until(edges.0.rt.now() + FRESH_WITHIN).await;
            edges.0.directory.borrow_mut().recall_stun(stun);
            edges.0.located.set();
        });
    }

    /// Waits until STUN servers are known, from an edge's bootstrap or the kept one.
    pub async fn located(&self) {
        futures_lite::future::or(self.0.known.wait(), self.0.located.wait()).await;
    }

    /// Keeps a bootstrap that an edge has sent, if it differs from the one that is kept.
    pub(super) async fn keep(&self, mut bootstrap: Bootstrap) {
        bootstrap.now_ms = 0;
        let Some(state) = self.0.kept_in.borrow().clone() else { return };
        if self.0.kept.borrow().as_ref() == Some(&bootstrap) {
            return;
        }
        self.0.kept.replace(Some(bootstrap.clone()));
        let written = self.0.rt.blocking(move || write(&state.join(FILE), &bootstrap)).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the bootstrap cannot be kept for a start without edges");
        }
    }
}

fn write(file: &Path, bootstrap: &Bootstrap) -> std::io::Result<()> {
    files::replace_secret(file, &serde_json::to_vec_pretty(bootstrap)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_bootstrap_reads_back_and_a_damaged_one_counts_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()), None);
        let kept = Bootstrap {
            name: "e".into(),
            now_ms: 0,
            region: "r".into(),
            client_version_min: "0.1.0".into(),
            cns: Vec::new(),
            edges: vec!["https://e:1".into()],
            stun: vec!["s:1".into()],
        };
        write(&dir.path().join(FILE), &kept).expect("written");
        assert_eq!(read(dir.path()), Some(kept));
        std::fs::write(dir.path().join(FILE), "{").expect("written");
        assert_eq!(read(dir.path()), None);
    }
}
