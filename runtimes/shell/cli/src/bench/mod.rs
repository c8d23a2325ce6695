//! `bench transfer`: compares edge-to-client and peer-to-client transfers with curl, aria2c and nginx in the same run.

pub mod crash;
pub mod ledger;
pub mod measure;
mod nginx;
pub mod receipts;

use super::args::BenchTransferArgs;
use super::demo::network::{Client, Network, Server, text};
use super::demo::{WorkDir, file};
use super::{Code, Error};
use measure::{Sample, TransferKind, cpu_of, is_installed, rss_peak_of, warm};
use nginx::Nginx;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swarmedge_client::client::protocol::State;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{Digest, ProviderId};
use swarmedge_edge::{Publish, publish};
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::{note, say};
use swarmedge_ground::terminal::units::{bytes, percent};

/// Provider of the published objects.
const PROVIDER: u32 = 1;
/// The object that only the edge delivers.
const FROM_EDGE: &str = "bench/edge.bin";
/// The object that the peer delivers.
const FROM_PEER: &str = "bench/peer.bin";
/// Rate limit of the edge in bytes per second while the peer is measured.
const SLOW_EDGE_RATE: u64 = 1;
/// Interval at which a client is asked whether the download is complete.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// Time limit for one transfer, after which the bench fails.
const TRANSFER_WITHIN: Duration = Duration::from_secs(600);
/// Names of the transfers that use our client, from the edge and from a peer.
const OUR_KINDS: [&str; 2] = ["edge to client (HTTPS)", "peer to client (QUIC)"];

/// Runs the command `swarmedge bench transfer`.
pub fn transfer(args: &BenchTransferArgs, json: bool) -> Result<(), Error> {
    if !is_installed("curl") {
        return Err(Error::new(Code::NotFound, "curl is not installed").next("install curl: it is the yardstick"));
    }
    let program = std::env::current_exe().map_err(|e| Error::io("find this program's file", &e))?;
    let interrupt = Interrupt::listen()?;
    let dir = WorkDir::make(args.dir.as_deref(), "swarmedge-bench", false)?;
    let mut bench = Bench::prepare(args.size.0, &dir.path, program, interrupt)?;
    let kinds = bench.rounds(args.rounds, json)?;
    let size = args.size.0;
    if json { say!("{}", to_json(&kinds, size)) } else { say!("{}", table(&kinds, size)) }
}

struct Bench {
    network: Network,
    program: PathBuf,
    interrupt: Interrupt,
    seeder: Client,
    nginx: Option<Nginx>,
    sha256: Digest,
    clients: u32,
}

impl Bench {
    /// Starts a deployment (and nginx if installed), publishes the two objects, and lets one client download the
    /// peer's object, which it then serves.
    fn prepare(size: u64, dir: &Path, program: PathBuf, interrupt: Interrupt) -> Result<Self, Error> {
        let mut network = Network::make(dir, &program)?;
        let file = dir.join("file.bin");
        file::generate(&file, size, 1)?;
        let (_, sha256) = file::sha256(&file)?;
        let objects = network.dir.join("edge/objects");
        let put = |path: &str, policy: Policy| {
            let (file, path) = (file.clone(), path.to_owned());
            publish(
                &objects,
                &Publish { file, provider: ProviderId(PROVIDER), path, access: None, policy: Some(policy.into()) },
            )
        };
        put(FROM_EDGE, Policy { peer_download: false, peer_upload: false, ..Policy::default() })?;
        put(FROM_PEER, Policy::default())?;
        for server in Server::ALL {
            network.start(server, &interrupt)?;
        }
        let mut seeder = network.client("seeder", &program, &interrupt)?;
        let kept = network.dir.join("out/seed.bin");
        seeder.get(PROVIDER, FROM_PEER, &kept)?;
        wait_done(&mut seeder, &interrupt)?;
        put(FROM_PEER, Policy { edge_rate_max: SLOW_EDGE_RATE, ..Policy::default() })?;
        let www = dir.join("www");
        let nginx = if is_installed("nginx") {
            Some(Nginx::start(&network.made, &dir.join("nginx"), &www, &interrupt)?)
        } else {
            None
        };
        if nginx.is_some() {
            super::demo::network::make_dir(&www)?;
            fs::hard_link(&file, www.join("file.bin")).map_err(|e| Error::io("link the file for nginx", &e))?;
        }
        Ok(Self { network, program, interrupt, seeder, nginx, sha256, clients: 0 })
    }

    /// Measures each kind of transfer once per round, so that the kinds are interleaved.
    fn rounds(&mut self, rounds: u32, quiet: bool) -> Result<Vec<TransferKind>, Error> {
        let mut kinds: Vec<TransferKind> = Vec::new();
        for round in 1..=rounds {
            warm(&self.network.dir.join("file.bin"))?;
            warm(&self.network.dir.join("out/seed.bin"))?;
            for (name, sample) in self.round()? {
                if !quiet {
                    note!("round {round}: {name}: {} ms", sample.wall.as_millis());
                }
                match kinds.iter_mut().find(|w| w.name == name) {
                    Some(kind) => kind.samples.push(sample),
                    None => kinds.push(TransferKind { name, samples: vec![sample] }),
                }
            }
        }
        Ok(kinds)
    }

    fn round(&mut self) -> Result<Vec<(String, Sample)>, Error> {
        let edge = self.network.id_of(Server::Edge).unwrap_or_default();
        let url = format!("{}/{PROVIDER}/{FROM_EDGE}", self.network.made.edge_url);
        let mut all = vec![("curl from our edge (HTTPS)".to_owned(), self.curl(&url, edge)?)];
        all.push((OUR_KINDS[0].into(), self.client(FROM_EDGE, edge)?));
        all.push((OUR_KINDS[1].into(), self.peer_transfer()?));
        if is_installed("aria2c") {
            all.push(("aria2c -x8 from our edge".into(), self.aria2(&url, edge)?));
        }
        if let Some(nginx) = &self.nginx {
            let url = format!("{}/file.bin", nginx.url);
            all.push(("curl from nginx (HTTPS)".into(), self.curl(&url, nginx.id())?));
        }
        Ok(all)
    }

    fn curl(&self, url: &str, server: u32) -> Result<Sample, Error> {
        let (ca, out) = (text(&self.network.made.ca)?, self.network.dir.join("out/curl.bin"));
        let args = ["-sSf", "--cacert", &ca, "-o", &text(&out)?, url];
        let sample = measure::program("curl", &args, &[server], &self.interrupt)?;
        self.check(&out)?;
        Ok(sample)
    }

    fn aria2(&self, url: &str, server: u32) -> Result<Sample, Error> {
        let (ca, dir) = (text(&self.network.made.ca)?, text(&self.network.dir.join("out"))?);
        let ca = format!("--ca-certificate={ca}");
        let args = ["-q", "-x8", "-s8", "--file-allocation=none", &ca, "-d", &dir, "-o", "aria2.bin", url];
        let sample = measure::program("aria2c", &args, &[server], &self.interrupt)?;
        self.check(&self.network.dir.join("out/aria2.bin"))?;
        Ok(sample)
    }

    fn peer_transfer(&mut self) -> Result<Sample, Error> {
        self.client(FROM_PEER, self.seeder.id())
    }

    /// Measures a download by a new client; `server` is the process id of the sending side.
    fn client(&mut self, path: &str, server: u32) -> Result<Sample, Error> {
        self.clients += 1;
        let name = format!("client-{}", self.clients);
        let mut client = self.network.client(&name, &self.program, &self.interrupt)?;
        let connected = Instant::now() + Duration::from_secs(30);
        while !client.status()?.control_connected {
            if Instant::now() > connected {
                return Err(client.error("has not reached the control plane"));
            }
            self.interrupt.sleep(POLL_EVERY)?;
        }
        let out = self.network.dir.join("out").join(&name);
        let (client_before, server_before) = (cpu_of(client.id()), cpu_of(server));
        let began = Instant::now();
        client.get(PROVIDER, path, &out)?;
        let peer_bytes = wait_done(&mut client, &self.interrupt)?;
        let sample = Sample {
            wall: began.elapsed(),
            client_cpu: cpu_of(client.id()).saturating_sub(client_before),
            server_cpu: cpu_of(server).saturating_sub(server_before),
            client_rss: rss_peak_of(client.id()),
            peer_bytes,
        };
        client.stop();
        self.check(&out)?;
        let state = self.network.dir.join("clients").join(&name);
        fs::remove_dir_all(&state).map_err(|e| Error::io(format_args!("remove {}", state.display()), &e))?;
        Ok(sample)
    }

    /// Checks that the file equals the published one, then deletes it.
    fn check(&self, out: &Path) -> Result<(), Error> {
        if file::sha256(out)?.1 != self.sha256 {
            return Err(Error::failed(format!("{} is not what was published", out.display())));
        }
        fs::remove_file(out).map_err(|e| Error::io(format_args!("remove {}", out.display()), &e))
    }
}

/// Waits until a client's download is complete; returns the bytes that came from peers.
fn wait_done(client: &mut Client, interrupt: &Interrupt) -> Result<u64, Error> {
    let until = Instant::now() + TRANSFER_WITHIN;
    loop {
        let line = client.download()?;
        if line.state == State::Completed {
            return Ok(line.peer_bytes);
        }
        if Instant::now() > until {
            return Err(client.error("is too slow"));
        }
        interrupt.sleep(POLL_EVERY)?;
    }
}

/// Returns curl's rate from our edge, by which all ratios are computed.
fn curl_rate(kinds: &[TransferKind], size: u64) -> u64 {
    kinds.first().map_or(1, |w| w.rate(size)).max(1)
}

fn table(kinds: &[TransferKind], size: u64) -> String {
    let head = "way                          MB/s   x curl   CPU s/GB: client + server = sum   client RSS   from peers";
    let mut text = format!("{} per transfer, medians of {} rounds\n\n{head}\n", bytes(size), rounds_of(kinds));
    for kind in kinds {
        let (rate, (client, server)) = (kind.rate(size), kind.cpu_ms_per_gb(size));
        let peers = kind.median(|s| s.peer_bytes);
        let seconds = |ms: u64| format!("{}.{:02}", ms / 1000, ms % 1000 / 10);
        let ratio = rate.saturating_mul(100) / curl_rate(kinds, size);
        text += &format!(
            "{:27} {:>5} {:>5}.{:02} {:>19} + {:>6} = {:>5} {:>9} {:>12}\n",
            kind.name,
            rate / 1_000_000,
            ratio / 100,
            ratio % 100,
            seconds(client),
            seconds(server),
            seconds(client.saturating_add(server)),
            bytes(kind.median(|s| s.client_rss)),
            if peers == 0 { "-".to_owned() } else { percent(peers, size) },
        );
    }
    text
}

fn rounds_of(kinds: &[TransferKind]) -> usize {
    kinds.first().map_or(0, |w| w.samples.len())
}

fn to_json(kinds: &[TransferKind], size: u64) -> serde_json::Value {
    let one = |kind: &TransferKind| {
        let (client, server) = kind.cpu_ms_per_gb(size);
        let wall = |w: Duration| u64::try_from(w.as_millis()).unwrap_or(u64::MAX);
        serde_json::json!({
            "way": kind.name, "bytes_per_s": kind.rate(size),
            "times_curl_permille": kind.rate(size).saturating_mul(1000) / curl_rate(kinds, size),
            "client_cpu_ms_per_gb": client, "server_cpu_ms_per_gb": server,
            "client_rss_bytes": kind.median(|s| s.client_rss), "peer_bytes": kind.median(|s| s.peer_bytes),
            "wall_ms": kind.samples.iter().map(|s| wall(s.wall)).collect::<Vec<_>>(),
        })
    };
    let all: Vec<_> = kinds.iter().map(one).collect();
    serde_json::json!({"size_bytes": size, "rounds": rounds_of(kinds), "ways": all})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_relative_to_curl_from_the_same_edge() {
        let kind = |name: &str, ms: u64| TransferKind {
            name: name.into(),
            samples: vec![Sample { wall: Duration::from_millis(ms), ..Sample::default() }],
        };
        let kinds = [kind("curl from our edge (HTTPS)", 1000), kind(OUR_KINDS[0], 1250)];
        let text = table(&kinds, 1_000_000_000);
        assert!(text.contains("800     0.80"), "{text}");
        assert_eq!(to_json(&kinds, 1_000_000_000)["ways"][1]["times_curl_permille"], 800);
    }
}
