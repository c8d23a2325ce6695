//! `bench crash`: kills processes of a small deployment with SIGKILL at random times, and compares the ledger with the
//! delivered bytes after each download.

mod books;
pub mod compare;
mod round;

use super::ledger::Random;
use crate::args::BenchCrashArgs;
use crate::demo::network::{Client, Network, Server};
use crate::demo::{WorkDir, file};
use crate::{Code, Error};
use books::{Books, Tally};
use round::Round;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swarmedge_client::client::protocol::State;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{Digest, ProviderId};
use swarmedge_edge::{Publish, publish};
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::{note, print_json, say};
use swarmedge_ground::terminal::units::bytes;
use swarmedge_ledger::Database;

/// Provider and path of the published object.
const PROVIDER: u32 = 1;
const OBJECT: &str = "crash/object.bin";
/// Rate limits in bytes per second: of the edge for one download, and of one uploader over all its uploads. They are
/// low, so that most kills happen during downloads.
const EDGE_RATE: u64 = 1_500_000;
const UPLOAD_RATE: u64 = 3_000_000;
/// Interval at which clients are asked for their progress.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Time limit for any step, generous for a busy machine.
const STEP_WITHIN: Duration = Duration::from_secs(120);
/// Wait after the last round until all records have reached the ledger.
const LAST_REPORTS: Duration = Duration::from_secs(8);

/// The process that a kill hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Server(Role),
    Uploader(usize),
    Downloader,
}

/// Role of a server, in the order of the result table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Edge,
    Ledger,
    Cn,
    Dn,
    Stun,
}

impl Role {
    const ALL: [Self; 5] = [Self::Edge, Self::Ledger, Self::Cn, Self::Dn, Self::Stun];

    /// Returns the server process that is killed.
    const fn server(self) -> Server {
        match self {
            Self::Edge => Server::EdgeAlone,
            Self::Ledger => Server::Ledger,
            Self::Cn => Server::Cn,
            Self::Dn => Server::Dn,
            Self::Stun => Server::Stun,
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(role) => role.server().name(),
            Self::Uploader(_) => "uploader",
            Self::Downloader => "downloader",
        })
    }
}

/// Runs the command `swarmedge bench crash`.
pub(crate) fn run<R: Start>(args: &BenchCrashArgs, json: bool) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(|e| Error::io("find this program's file", &e))?;
    let interrupt = Interrupt::listen()?;
    let dir = WorkDir::make(args.dir.as_deref(), "swarmedge-bench-crash", args.keep)?;
    let seed = args.seed.unwrap_or_else(swarmedge_ground::host::unix_ms);
    let mut crash = Crash::<R>::prepare(args, &dir.path, program, interrupt, seed)?;
    let began = Instant::now();
    let mut tally = Tally::default();
    while tally.kills() < u64::from(args.kills) {
        let round = crash.round(&mut tally)?;
        if !json {
            note!("{round}");
        }
        tally.add(round);
    }
    crash.interrupt.sleep(LAST_REPORTS)?;
    tally.read_again(&crash.books)?;
    let unclean = crash.end();
    if json {
        print_json(&tally.to_json(R::NAME, seed, &unclean))?;
    } else {
        let seconds = began.elapsed().as_secs();
        say!("kill -9 on {}, seed {seed}: {} kills in {seconds} s\n\n{}", R::NAME, tally.kills(), tally.table())?;
        say!(
            "downloads of {} each; gap: delivered, not billed; bound: open credit that the kills cut",
            bytes(args.size.0)
        )?;
    }
    let wrong: Vec<String> = tally.wrong().chain(unclean).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::new(Code::Failed, wrong.join("; "))) }
}

/// The running deployment with its clients and published file.
struct Crash<R> {
    network: Network,
    program: PathBuf,
    interrupt: Interrupt,
    uploaders: Vec<Client>,
    random: Random,
    books: Books<R>,
    size: u64,
    sha256: Digest,
    rounds: u32,
}

impl<R: Start> Crash<R> {
    /// Makes a deployment, starts its servers and publishes the object that the clients will download.
    fn prepare(
        args: &BenchCrashArgs,
        dir: &Path,
        program: PathBuf,
        interrupt: Interrupt,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut network = Network::make(dir, &program)?;
        let source = dir.join("file.bin");
        file::generate(&source, args.size.0, 1)?;
        let (size, sha256) = file::sha256(&source)?;
        let put = |policy: Policy| {
            let what = Publish {
                file: source.clone(),
                provider: ProviderId(PROVIDER),
                path: OBJECT.into(),
                access: None,
                policy: Some(policy.into()),
            };
            publish(&dir.join("edge/objects"), &what)
        };
        put(Policy::default())?;
        for server in Server::SPLIT {
            network.start(server, &interrupt)?;
        }
        let mut uploaders = Vec::new();
        for n in 1..=args.uploaders {
            let mut client = network.client(&format!("uploader-{n}"), &program, &interrupt)?;
            client.get(PROVIDER, OBJECT, &dir.join("out").join(&client.name))?;
            let until = Instant::now() + STEP_WITHIN;
            while client.download()?.state != State::Completed {
                if Instant::now() > until {
                    return Err(client.error("is too slow"));
                }
                interrupt.sleep(POLL_EVERY)?;
            }
            uploaders.push(client);
        }
        put(Policy { edge_rate_max: EDGE_RATE, upload_rate_max: UPLOAD_RATE, ..Policy::default() })?;
        let database: Database = dir.join("ledger/ledger.sqlite").into();
        let books = Books { database, runtime: PhantomData };
        let random = Random(seed);
        Ok(Self { network, program, interrupt, uploaders, random, books, size, sha256, rounds: 0 })
    }

    /// Draws a random number below `n`; 0 if `n` is 0.
    fn below(&mut self, n: u64) -> u64 {
        self.random.next() % n.max(1)
    }

    /// Draws a victim; each kind of process is equally likely.
    fn victim(&mut self) -> Victim {
        match usize::try_from(self.below(7)).unwrap_or(0) {
            0 => Victim::Downloader,
            1 => {
                let n = self.below(self.uploaders.len() as u64);
                Victim::Uploader(usize::try_from(n).unwrap_or(0))
            }
            n => Victim::Server(Role::ALL[n - 2]),
        }
    }

    fn round(&mut self, tally: &mut Tally) -> Result<books::Outcome, Error> {
        self.rounds += 1;
        Round::begin(self)?.run(self, tally)
    }

    /// Ends every process cleanly; returns a sentence for each server that failed to end so.
    fn end(&mut self) -> Vec<String> {
        self.uploaders.iter_mut().for_each(Client::stop);
        self.network.stop()
    }
}
