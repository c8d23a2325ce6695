//! The text of `server.toml`, written for those who will edit it.

use super::{Deployment, Plan, Ports};
use swarmedge_ground::reach::authority;

/// Listen address of servers to which only other servers connect.
const INNER: &str = "127.0.0.1";

/// Returns the whole text of `server.toml`.
pub(super) fn server_toml(plan: &Plan, made: &Deployment) -> String {
    edge(plan, made) + &cn(plan, made) + &inner_servers(made.ports, &plan.listen(), INNER)
}

/// Returns the sections of operator and edge.
fn edge(plan: &Plan, made: &Deployment) -> String {
    let Plan { host, region, .. } = plan;
    let p = made.ports;
    let (stun, cn_addr) = (authority(host, p.stun), authority(host, p.cn));
    let Deployment { root, edge_url: url, .. } = made;
    let (listen, inner) = (plan.listen(), INNER);
    let [.., ops_edge] = p.ops;
    format!(
        r#"# A Swarmedge deployment. Each server reads [operator] and the sections of its own roles; relative paths start from
# this file's directory. An unknown key is an error. DIR/root.key signs for everything: keep it off line.

[operator]
root = "{root}"
ca = "ca.pem"

# HTTPS: content, manifests, grants, bootstrap. `ops` is plain HTTP for the operator (/metrics, /healthz, /livez): keep
# it private. /healthz and /livez are on the content port too, where they tell nothing private.
[edge]
name = "edge-1"
listen = "{listen}:{edge}"
url = "{url}"
region = "{region}"
objects = "edge/objects"
spool = "edge/spool.redb"
tls_cert = "edge/tls.pem"
tls_key = "edge/tls.key.pem"
signing_key = "edge/signing.key"
certificate = "edge/server.cert"
seal_key = "seal.key"
ledger = "{inner}:{ledger}"
stun = ["{stun}"]
# the most that is sent to all clients together, as in "20MB/s" or in bytes a second; 0: no limit
rate_limit = 0
# stored content is read again from the disk at this rate, to find what has rotted; 0: never
scrub_rate = "4MB/s"
ops = "{inner}:{ops_edge}"
# client_versions_blocked = ["0.0.9"] # versions that do harm: they get no grants, and are told to update

# what the bootstrap tells clients, nearest first
[[edge.cns]]
name = "cn-1"
addr = "{cn_addr}"

"#,
        edge = p.edge,
        ledger = p.ledger,
    )
}

/// Returns the section of the CN.
fn cn(plan: &Plan, made: &Deployment) -> String {
    let p = made.ports;
    let url = &made.edge_url;
    let (listen, inner) = (plan.listen(), INNER);
    let [ops_cn, ..] = p.ops;
    format!(
        r#"# The clients' control connections (TLS).
[cn]
name = "cn-1"
listen = "{listen}:{cn}"
tls_cert = "cn/tls.pem"
tls_key = "cn/tls.key.pem"
signing_key = "cn/signing.key"
certificate = "cn/server.cert"
seal_key = "seal.key"
dns = ["{inner}:{dn}"]
ledger = "{inner}:{ledger}"
spool = "cn/spool.redb"
# asked every few seconds what was unpublished, so that nobody goes on sharing it
edges = ["{url}"]
# older clients find no peers and upload nothing, and are told to update (so set it in [edge] too); the edges serve them
# client_version_min = "0.2.0"
# where clients are, for choosing peers and for reports: databases in the MaxMind format (.mmdb)
# geo_countries = "countries.mmdb"
# geo_networks = "asn.mmdb"
ops = "{inner}:{ops_cn}"

"#,
        cn = p.cn,
        dn = p.dn,
        ledger = p.ledger,
    )
}

/// Returns the sections of DN, STUN server and ledger.
fn inner_servers(p: Ports, listen: &str, inner: &str) -> String {
    let [_, ops_dn, ops_stun, ops_ledger, _] = p.ops;
    format!(
        r#"# The directory of who holds what (TLS, from CNs only).
[dn]
name = "dn-1"
listen = "{inner}:{dn}"
tls_cert = "dn/tls.pem"
tls_key = "dn/tls.key.pem"
certificate = "dn/server.cert"
ops = "{inner}:{ops_dn}"

# Tells clients which address they come from (UDP and TCP). With `alternate`, another address of this machine and
# another port, clients also see how their NATs filter; `also = ["ADDRESS:443"]` answers those whose UDP is blocked.
[stun]
listen = "{listen}:{stun}"
# vouches to CNs for addresses of clients that they do not see, as IPv6 beside IPv4
seal_key = "seal.key"
ops = "{inner}:{ops_stun}"

# The books (TLS, from CNs and edges only).
[ledger]
listen = "{inner}:{ledger}"
tls_cert = "ledger/tls.pem"
tls_key = "ledger/tls.key.pem"
# a file for SQLite, or "postgres://user:password@host/name" for PostgreSQL; on another machine with
# "?sslmode=verify-full&sslrootcert=/path/of/ca.pem". `swarmedge ledger backup FILE` copies it while it is served
database = "ledger/ledger.sqlite"
# closes each day so long after its end, and signs what was settled: what comes later is not billed
signing_key = "ledger/signing.key"
certificate = "ledger/server.cert"
settle_days = 2
ops = "{inner}:{ops_ledger}"
"#,
        dn = p.dn,
        stun = p.stun,
        ledger = p.ledger,
    )
}
