//! Scenarios, each written once and run on every [`Rig`]: the simulator, and real processes or runtimes over
//! loopback. Scenarios check the final state of each node, never the order of events on different nodes or the speed.

mod edges;
mod policies;
mod wrong_bytes;

use std::fmt;
use std::time::Duration;

/// Role of a node in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Edge: serves content and grants.
    Edge,
    /// CN: terminates the clients' control connections.
    Cn,
    /// DN: holds the directory of copies.
    Dn,
    /// Ledger: stores the usage records.
    Ledger,
    /// Client: downloads and uploads objects.
    Client,
}

/// A node: its role and number, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Role, pub u8);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.0 {
            Role::Edge => "edge",
            Role::Cn => "cn",
            Role::Dn => "dn",
            Role::Ledger => "ledger",
            Role::Client => "client",
        };
        write!(f, "{role}{}", self.1)
    }
}

/// Number of nodes of each role. All servers are started before the scenario begins, clients by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of edges; all have the same objects.
    pub edges: u8,
    /// Number of CNs in the deployment.
    pub cns: u8,
    /// Number of DNs in the deployment.
    pub dns: u8,
    /// Number of ledgers: 0 or 1.
    pub ledgers: u8,
    /// Maximum number of clients in the deployment.
    pub clients: u8,
}

/// An object to be published. Its bytes follow from its path and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Path at which the edges serve the object.
    pub path: &'static str,
    /// Size of the object in bytes.
    pub size: u64,
    /// Maximum rate of an edge for one download, in bytes per second; 0: no limit.
    pub edge_rate: u64,
    /// Maximum upload rate of a client, in bytes per second; 0: no limit.
    pub upload_rate: u64,
    /// Number of times that one client may upload the whole object; 0: no limit.
    pub uploads_max: u32,
}

/// Options of a client's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientOptions {
    /// Whether the user allows uploads.
    pub uploads: bool,
    /// Whether the client sends wrong bytes to its peers.
    pub corrupts: bool,
    /// Whether the user gets copies of finished files, rather than second names of the stored ones.
    pub copies: bool,
}

/// Options of an honest client.
pub const HONEST: ClientOptions = ClientOptions { uploads: true, corrupts: false, copies: false };

/// A user's command to a client, with the object's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the download, or resume an existing one.
    Get(&'static str),
    /// Pause the object's download.
    Pause(&'static str),
    /// Resume the paused download.
    Resume(&'static str),
    /// Cancel the object's download.
    Cancel(&'static str),
    /// Allow or forbid uploads.
    Uploads(bool),
}

/// State of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The download has not begun or is running.
    Running,
    /// The user paused the download.
    Paused,
    /// The file is complete, at the user's destination.
    Completed,
    /// The download has failed.
    Failed,
}

/// A download as its client reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// State of the download.
    pub progress: Progress,
    /// Bytes that are durable on disk.
    pub durable: u64,
    /// Verified bytes from edges.
    pub edge_bytes: u64,
    /// Verified bytes from peers.
    pub peer_bytes: u64,
    /// Bytes that were received but not kept, because they were wrong or there already.
    pub wasted_bytes: u64,
    /// Whether the user's file exists and has the right bytes; checked once `progress` is `Completed`.
    pub right: bool,
}

/// Totals of the ledger for an object, over all downloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of downloads reported complete.
    pub completed: u64,
    /// Bytes from edges, as downloaders report.
    pub edge_bytes: u64,
    /// Bytes from peers, as downloaders report.
    pub peer_bytes: u64,
    /// Bytes sent to peers, as uploaders report.
    pub uploaded_bytes: u64,
    /// Bytes from peers on which downloader and uploader agree: those with receipts.
    pub agreed_bytes: u64,
    /// Bytes of the version that edges sent in a download, each counted once; as edges report, summed over downloads.
    pub edge_unique_bytes: u64,
    /// Bytes from peers that are billed.
    pub billed_bytes: u64,
    /// Number of possession challenges passed.
    pub proven: u64,
    /// Number of possession challenges failed or not answered.
    pub unproven: u64,
}

/// Deployment on which scenarios can be run.
pub trait Rig {
    /// Publishes an object on every edge.
    fn publish(&mut self, object: &Object);
    /// Withdraws an object from the edges.
    fn unpublish(&mut self, path: &'static str);
    /// Rotates the keys that seal grants; running servers load them soon.
    fn rotate_keys(&mut self);
    /// Makes the spool of an edge refuse every write, as a full disk does, or accept writes again.
    fn spool_refuses(&mut self, edge: u8, on: bool);
    /// Puts a started client into quarantine or releases it, and waits until the CNs know.
    fn quarantine(&mut self, client: u8, on: bool);
    /// Starts a client with an empty disk.
    fn start_client(&mut self, number: u8, options: ClientOptions);
    /// Copies the disk of a stopped client to another stopped client: a clone of its installation.
    fn copy_client(&mut self, from: u8, to: u8);
    /// Damages every copy that a running client stores, in a way that nothing tells its store.
    fn rot(&mut self, client: u8);
    /// Returns whether a client still stores a copy of an object.
    fn holds(&mut self, client: u8, path: &str) -> bool;
    /// Returns the number of copies that downloaders have blamed, as the ledger has recorded it.
    fn blamed(&mut self) -> usize;
    /// Returns the number of GUIDs that the ledger lists as retired, and the number of their replacements.
    fn retired(&mut self) -> (usize, usize);
    /// Returns a duration that is long for an outage of the edges: longer than a grant can be renewed, where time is
    /// simulated.
    fn long_outage(&self) -> Duration;
    /// Kills a node without warning (SIGKILL). Its disk is kept.
    fn crash(&mut self, node: Name);
    /// Starts a crashed node again, on its disk.
    fn restart(&mut self, node: Name);
    /// Sends a user's command to a client.
    fn command(&mut self, client: u8, command: Command);
    /// Returns a client's status of a download; `None` if it has no download of that object or does not run.
    fn status(&mut self, client: u8, path: &str) -> Option<Status>;
    /// Queries the ledger's totals for an object.
    fn totals(&mut self, path: &str) -> Totals;
    /// Runs until `goal` holds, for at most `within`; returns whether it was reached.
    fn run_until(&mut self, within: Duration, goal: &mut dyn FnMut(&mut dyn Rig) -> bool) -> bool;
}

/// Named scenario with its deployment.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Name of the scenario, a plain sentence.
    pub name: &'static str,
    /// Deployment that the scenario needs.
    pub plan: Plan,
    /// Function that plays the scenario; `Err` describes what was wrong.
    pub play: fn(&mut dyn Rig) -> Result<(), String>,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const ONE_OF_EACH: Plan = Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients: 4 };

/// All scenarios, in the order they run.
pub const ALL: &[Scenario] = &[
    Scenario { name: "peers_deliver_and_the_ledger_agrees", plan: ONE_OF_EACH, play: happy },
    Scenario { name: "the_cn_dies", plan: Plan { cns: 2, ..ONE_OF_EACH }, play: cn_dies },
    Scenario { name: "the_dn_dies_and_comes_back", plan: ONE_OF_EACH, play: dn_dies },
    Scenario { name: "a_seeder_dies", plan: ONE_OF_EACH, play: seeder_dies },
    Scenario { name: "a_seeder_sends_wrong_bytes", plan: ONE_OF_EACH, play: wrong_bytes::corrupting_seeder },
    Scenario {
        name: "a_seeder_with_a_rotten_copy_is_told_and_drops_it",
        plan: ONE_OF_EACH,
        play: wrong_bytes::rotten_seeder,
    },
    Scenario {
        name: "there_is_no_control_plane",
        plan: Plan { cns: 0, dns: 0, ledgers: 0, ..ONE_OF_EACH },
        play: edges::edge_alone,
    },
    Scenario { name: "the_edge_is_away_for_a_while", plan: ONE_OF_EACH, play: edges::edge_outage },
    Scenario { name: "every_edge_is_away_for_longer_than_a_grant_lasts", plan: ONE_OF_EACH, play: edges::long_outage },
    Scenario { name: "a_client_starts_while_every_edge_is_away", plan: ONE_OF_EACH, play: edges::start_without_edge },
    Scenario {
        name: "an_edge_dies_and_another_goes_on",
        plan: Plan { edges: 2, ..ONE_OF_EACH },
        play: edges::edge_fails_over,
    },
    Scenario { name: "an_edge_that_can_count_nothing_serves_on", plan: ONE_OF_EACH, play: edges::uncounted },
    Scenario { name: "a_client_dies_and_resumes", plan: ONE_OF_EACH, play: client_resumes },
    Scenario { name: "uploads_off_means_off", plan: ONE_OF_EACH, play: uploads_off },
    Scenario { name: "a_withdrawn_object_is_shared_no_more", plan: ONE_OF_EACH, play: withdrawn },
    Scenario { name: "a_new_policy_reaches_a_transfer_under_way", plan: ONE_OF_EACH, play: policies::changed },
    Scenario { name: "who_has_completed_proves_that_it_holds_what_peers_delivered", plan: ONE_OF_EACH, play: proven },
    Scenario { name: "a_quarantined_client_is_served_by_the_edge_alone", plan: ONE_OF_EACH, play: quarantined },
    Scenario { name: "the_sealing_keys_are_rotated_twice", plan: ONE_OF_EACH, play: keys_rotated },
    Scenario { name: "a_forgotten_download_leaves_a_shared_copy", plan: ONE_OF_EACH, play: forgotten },
    Scenario { name: "a_copy_is_uploaded_no_more_often_than_allowed", plan: ONE_OF_EACH, play: used_up },
    Scenario { name: "pause_resume_cancel", plan: ONE_OF_EACH, play: pause_resume_cancel },
    Scenario { name: "two_copies_of_a_client_run", plan: ONE_OF_EACH, play: copies },
    Scenario { name: "two_copies_of_a_client_run_on_two_cns", plan: Plan { cns: 2, ..ONE_OF_EACH }, play: copies },
    Scenario { name: "a_client_that_restarts_keeps_its_key", plan: ONE_OF_EACH, play: restarts },
];

const MIB: u64 = 1 << 20;
/// Time limit of each wait, long enough for a good run on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Film of the scenarios: an object of 4 MiB in 64 pieces, limited to a rate at which faults can happen in
/// mid-download.
const FILM: Object = Object { path: "film", size: 4 * MIB, edge_rate: MIB / 2, upload_rate: MIB / 2, uploads_max: 0 };
/// The film without an edge limit, for clients that are to share it soon.
const AT_ONCE: Object = Object { edge_rate: 0, ..FILM };
/// Trailer of the scenarios: an object of 1 MiB, for which the edge needs two seconds, so that peers are found in
/// time.
const TRAILER: Object = Object { path: "trailer", size: MIB, ..FILM };
/// The film with an edge limit so low that peers are always found before the edge has delivered it.
const CRAWLING: Object = Object { edge_rate: MIB / 32, ..FILM };

/// Fails the scenario with the description `what` unless `holds` is true.
fn need(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn begin(rig: &mut dyn Rig, seeders: &[(u8, ClientOptions)]) -> Result<(), String> {
    rig.publish(&AT_ONCE);
    for &(n, options) in seeders {
        rig.start_client(n, options);
        rig.command(n, Command::Get(FILM.path));
    }
    for &(n, _) in seeders {
        completes(rig, n)?;
    }
    rig.publish(&FILM);
    Ok(())
}

/// Starts an honest client and commands it to download the film.
fn wants(rig: &mut dyn Rig, client: u8) {
    rig.start_client(client, HONEST);
    rig.command(client, Command::Get(FILM.path));
}

/// Waits until `client` has at least an eighth but not all of the film.
fn half_way(rig: &mut dyn Rig, client: u8) -> Result<(), String> {
    let there = rig.run_until(LIMIT, &mut |r| {
        r.status(client, FILM.path).is_some_and(|s| s.durable >= FILM.size / 8 || s.progress != Progress::Running)
    });
    let s = rig.status(client, FILM.path);
    need(there && s.is_some_and(|s| s.progress == Progress::Running), || {
        format!("client{client} was to be caught half way, but: {s:?}")
    })
}

/// Waits until the client has the whole film with the right bytes, and has counted every byte once.
fn completes(rig: &mut dyn Rig, client: u8) -> Result<Status, String> {
    rig.run_until(LIMIT, &mut |r| {
        r.status(client, FILM.path).is_some_and(|s| matches!(s.progress, Progress::Completed | Progress::Failed))
    });
    let Some(s) = rig.status(client, FILM.path) else { return Err(format!("client{client} knows no download")) };
    need(s.progress == Progress::Completed, || format!("client{client} did not complete: {s:?}"))?;
    need(s.right, || format!("client{client} has wrong bytes: {s:?}"))?;
    need(s.edge_bytes + s.peer_bytes == FILM.size, || format!("client{client} counted wrongly: {s:?}"))?;
    Ok(s)
}

fn from_peers(rig: &mut dyn Rig, client: u8) -> Result<Status, String> {
    let s = completes(rig, client)?;
    need(s.peer_bytes > 0, || format!("client{client} got nothing from peers: {s:?}"))?;
    Ok(s)
}

/// Waits until the ledger's totals for the film agree with what `clients` report.
fn accounted(rig: &mut dyn Rig, clients: &[u8]) -> Result<(), String> {
    accounted_but(rig, clients, 0)
}

/// Waits until the ledger's totals for the film agree with what `clients` report, except for at most `open` bytes
/// that a crash left without a receipt.
fn accounted_but(rig: &mut dyn Rig, clients: &[u8], open: u64) -> Result<(), String> {
    let expected = |rig: &mut dyn Rig| {
        let all = clients.iter().filter_map(|&c| rig.status(c, FILM.path));
        all.fold(Totals::default(), |t, s| Totals {
            completed: t.completed + 1,
            edge_bytes: t.edge_bytes + s.edge_bytes,
            peer_bytes: t.peer_bytes + s.peer_bytes,
            ..t
        })
    };
    let agrees = move |t: Totals, e: Totals| {
        (t.completed, t.edge_bytes, t.peer_bytes) == (e.completed, e.edge_bytes, e.peer_bytes)
            && t.uploaded_bytes >= e.peer_bytes
            && (e.peer_bytes.saturating_sub(open)..=e.peer_bytes).contains(&t.agreed_bytes)
            && t.edge_unique_bytes >= e.edge_bytes
    };
    let good = rig.run_until(LIMIT, &mut |r| {
        let e = expected(r);
        agrees(r.totals(FILM.path), e)
    });
    let (t, e) = (rig.totals(FILM.path), expected(rig));
    need(good, || format!("the ledger has {t:?}, the clients have {e:?}"))
}

fn happy(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    wants(rig, 2);
    from_peers(rig, 2)?;
    wants(rig, 3);
    from_peers(rig, 3)?;
    accounted(rig, &[0, 1, 2, 3])
}

fn cn_dies(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    wants(rig, 2);
    half_way(rig, 2)?;
    rig.crash(Name(Role::Cn, 0));
    completes(rig, 2)?;
    // the seeders connect to the other CN and register their copies
    rig.publish(&CRAWLING);
    wants(rig, 3);
    from_peers(rig, 3)?;
    accounted(rig, &[0, 1, 2, 3])
}

fn dn_dies(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    wants(rig, 2);
    half_way(rig, 2)?;
    rig.crash(Name(Role::Dn, 0));
    completes(rig, 2)?;
    rig.restart(Name(Role::Dn, 0));
    // CNs reconnect to the DN after a while, and ask their clients to register again
    rig.publish(&CRAWLING);
    wants(rig, 3);
    from_peers(rig, 3)?;
    accounted(rig, &[0, 1, 2, 3])
}

fn seeder_dies(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    wants(rig, 2);
    half_way(rig, 2)?;
    rig.crash(Name(Role::Client, 0));
    completes(rig, 2).map(drop)
}

fn client_resumes(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(1, HONEST)])?;
    wants(rig, 0);
    half_way(rig, 0)?;
    rig.crash(Name(Role::Client, 0));
    rig.restart(Name(Role::Client, 0));
    rig.command(0, Command::Get(FILM.path));
    completes(rig, 0)?;
    // less than 2 MiB (the second credit) came over the introduction whose connection was cut
    accounted_but(rig, &[0, 1], 2 * MIB)
}

fn keys_rotated(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    wants(rig, 2);
    half_way(rig, 2)?;
    // after two rotations no server can open the first grant
    rig.rotate_keys();
    rig.rotate_keys();
    // a new grant is a new download: earlier bytes are counted for the old one
    let done = |r: &mut dyn Rig| r.status(2, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    let completed = rig.run_until(LIMIT, &mut |r| done(r));
    need(completed, || format!("client2 did not complete: {:?}", rig.status(2, FILM.path)))?;
    rig.publish(&CRAWLING);
    wants(rig, 3);
    from_peers(rig, 3).map(drop)
}

fn withdrawn(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, HONEST)])?;
    rig.publish(&CRAWLING);
    wants(rig, 2);
    half_way(rig, 2)?;
    rig.unpublish(FILM.path);
    // copies kept for peers are deleted, and with them the finished downloads
    let gone = |r: &mut dyn Rig, c| r.status(c, FILM.path).is_none();
    let within = Duration::from_secs(60);
    need(rig.run_until(within, &mut |r| gone(r, 0) && gone(r, 1)), || "seeders go on sharing".into())?;
    // this client takes no further part, finished or not
    rig.crash(Name(Role::Client, 2));
    // published again, the object is new: no peer has it yet, and then it is shared
    rig.publish(&AT_ONCE);
    wants(rig, 3);
    let s = completes(rig, 3)?;
    need(s.peer_bytes == 0, || format!("bytes from peers that should have none: {s:?}"))
}

/// Checks that a download with peers passes its possession challenge; on these rigs edges challenge every such
/// download.
fn proven(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    rig.publish(&CRAWLING);
    wants(rig, 2);
    from_peers(rig, 2)?;
    let told = |t: Totals| (t.proven, t.unproven);
    let one = rig.run_until(LIMIT, &mut |r| told(r.totals(FILM.path)) == (1, 0));
    need(one, || format!("{:?} after one download with peers", rig.totals(FILM.path)))?;
    // the ledger's totals are the same as without challenges
    accounted(rig, &[0, 2])
}

fn quarantined(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    rig.publish(&TRAILER);
    let trailer = |rig: &mut dyn Rig, client: u8| {
        rig.start_client(client, HONEST);
        rig.command(client, Command::Get(TRAILER.path));
    };
    let done = |rig: &mut dyn Rig, client: u8| {
        let complete = |s: &Status| s.progress == Progress::Completed;
        rig.run_until(LIMIT, &mut |r| r.status(client, TRAILER.path).is_some_and(|s| complete(&s)));
        rig.status(client, TRAILER.path)
            .filter(|s| complete(s) && s.right)
            .ok_or_else(|| format!("client{client} did not complete: {:?}", rig.status(client, TRAILER.path)))
    };
    trailer(rig, 0);
    done(rig, 0)?;
    rig.start_client(2, HONEST);
    rig.quarantine(2, true);
    trailer(rig, 2);
    let s = done(rig, 2)?;
    need(s.peer_bytes == 0, || format!("peers served a client in quarantine: {s:?}"))?;
    // now the quarantined client alone has the object, beside the edge
    rig.crash(Name(Role::Client, 0));
    trailer(rig, 3);
    let s = done(rig, 3)?;
    need(s.peer_bytes == 0, || format!("a client in quarantine was offered to others: {s:?}"))?;
    rig.restart(Name(Role::Client, 0));
    rig.quarantine(2, false);
    rig.publish(&CRAWLING);
    wants(rig, 2);
    from_peers(rig, 2).map(drop)
}

fn uploads_off(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST), (1, ClientOptions { uploads: false, ..HONEST })])?;
    rig.command(0, Command::Uploads(false));
    rig.run_until(Duration::from_secs(1), &mut |_| false);
    wants(rig, 2);
    let s = completes(rig, 2)?;
    need(s.peer_bytes == 0, || format!("bytes from peers whose users forbid uploads: {s:?}"))
}

fn pause_resume_cancel(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    wants(rig, 1);
    half_way(rig, 1)?;
    rig.command(1, Command::Pause(FILM.path));
    let paused = |r: &mut dyn Rig| r.status(1, FILM.path).filter(|s| s.progress == Progress::Paused);
    rig.run_until(LIMIT, &mut |r| paused(r).is_some());
    // blocks under way may still become durable, but a download that continues would have everything by then
    let mut before = None;
    let rests = (0..10).any(|_| {
        rig.run_until(Duration::from_secs(2), &mut |_| false);
        std::mem::replace(&mut before, paused(rig)) == before && before.is_some()
    });
    let stopped = rests && before.is_some_and(|s| s.durable < FILM.size);
    need(stopped, || format!("a paused download went on: {before:?}"))?;
    rig.command(1, Command::Resume(FILM.path));
    completes(rig, 1)?;
    wants(rig, 2);
    half_way(rig, 2)?;
    rig.command(2, Command::Cancel(FILM.path));
    let gone = rig.run_until(LIMIT, &mut |r| {
        r.status(2, FILM.path).is_none_or(|s| !matches!(s.progress, Progress::Running | Progress::Paused))
    });
    need(gone, || "a cancelled download is still there".into())
}

/// Checks that an installation that is copied in mid-download completes on both clients, under a new key on each.
fn copies(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(3, HONEST)])?;
    wants(rig, 0);
    half_way(rig, 0)?;
    rig.crash(Name(Role::Client, 0));
    rig.copy_client(0, 1);
    rig.restart(Name(Role::Client, 0));
    rig.restart(Name(Role::Client, 1));
    // each copy is told to take a key of its own, under which its download is counted anew
    for client in [0, 1] {
        let done =
            |r: &mut dyn Rig| r.status(client, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
        let completed = rig.run_until(LIMIT, &mut |r| done(r));
        need(completed, || format!("client{client} did not complete: {:?}", rig.status(client, FILM.path)))?;
    }
    let retired = rig.run_until(LIMIT, &mut |r| r.retired() == (1, 2));
    need(retired, || format!("the ledger has {:?} GUIDs retired and taken, not (1, 2)", rig.retired()))?;
    // each of the two installations gets the film at most once, and nobody pays for more
    let t = rig.totals(FILM.path);
    need(t.agreed_bytes <= t.peer_bytes && t.agreed_bytes <= 2 * FILM.size, || format!("billed too much: {t:?}"))
}

fn restarts(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(1, HONEST)])?;
    wants(rig, 0);
    half_way(rig, 0)?;
    for _ in 0..3 {
        rig.crash(Name(Role::Client, 0));
        rig.restart(Name(Role::Client, 0));
        rig.run_until(Duration::from_secs(1), &mut |_| false);
    }
    let done = |r: &mut dyn Rig| r.status(0, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    let completed = rig.run_until(LIMIT, &mut |r| done(r));
    need(completed, || format!("client0 did not complete: {:?}", rig.status(0, FILM.path)))?;
    need(rig.retired() == (0, 0), || "a restart was taken for a copy".into())
}

/// Checks that a client shares a copy after a restart, though the user has cancelled its finished download.
fn forgotten(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    rig.command(0, Command::Cancel(FILM.path));
    let gone = rig.run_until(LIMIT, &mut |r| r.status(0, FILM.path).is_none());
    need(gone, || "a cancelled download is still listed".to_owned())?;
    rig.crash(Name(Role::Client, 0));
    rig.restart(Name(Role::Client, 0));
    rig.publish(&CRAWLING);
    wants(rig, 1);
    from_peers(rig, 1).map(drop)
}

/// Checks that a client uploads an object once where the policy allows that, also across a restart.
fn used_up(rig: &mut dyn Rig) -> Result<(), String> {
    const SILENT: ClientOptions = ClientOptions { uploads: false, ..HONEST };
    rig.publish(&Object { uploads_max: 1, ..AT_ONCE });
    wants(rig, 0);
    completes(rig, 0)?;
    let object = Object { uploads_max: 1, edge_rate: MIB / 4, ..FILM };
    rig.publish(&object);
    let mut sum = 0;
    for client in [1, 2, 3] {
        rig.start_client(client, SILENT);
        rig.command(client, Command::Get(FILM.path));
        let s = completes(rig, client)?;
        need(client > 1 || s.peer_bytes > 0, || format!("nobody uploads: {s:?}"))?;
        sum += s.peer_bytes;
        // the count of bytes sent is durable within seconds
        rig.run_until(Duration::from_secs(3), &mut |_| false);
        rig.crash(Name(Role::Client, 0));
        rig.restart(Name(Role::Client, 0));
    }
    need(sum <= FILM.size, || format!("a copy of {} bytes was uploaded once: {sum} bytes", FILM.size))
}
