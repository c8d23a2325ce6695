//! The client machine's state as the local API sees it: the newest figures of each download, and the answers to
//! commands. The client's thread writes it, the API's threads wait for changes and read. No queue can overflow: a
//! slow reader sees only the newest figures.

mod edges;
mod why;

use super::meetings::{Meetings, left};
use super::protocol::{Answer, CheckpointLine, DownloadLine, Failure, StatusLine, source_name};
use super::rate::RateMeter;
use super::slots::{Slots, Waited};
use super::turns::Turns;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use swarmedge_core::ids::{DownloadId, Handle, RecordId, ReqId, VersionId};
use swarmedge_core::role::client::io::{
    Command, CommandError, CommandKind, DownloadRecord, DownloadState, DownloadStatus, FailReason, Input, Notice,
    ObjectRef, Save, SourceName, StoreError,
};
use swarmedge_core::wire::notice::{self, Terms};
use swarmedge_core::wire::records::{Side, UsageRecord};
use swarmedge_ground::error::Code;
use swarmedge_ground::http::Origin;
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::nat::NatLine;

/// Time-out for the machine's answer to a command, which takes at most one durable write.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Maximum number of objects that `get` commands download at once; further commands wait in a queue.
pub(super) const OBJECTS_MAX: usize = 32;
/// Maximum number of reports "download dropped a source" that are kept for slow API readers.
const DROPPED_MAX: usize = 64;
/// Shortest interval between two reports of the same edge failure.
const TROUBLE_EVERY: Duration = Duration::from_secs(5);

/// State shared by the client's shard (writer) and the API threads (readers). Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Unanswered commands, and whether the machine has ended.
    slots: Slots,
    turns: Turns<ObjectRef, String>,
    /// Queues an input for the machine; `false` if it has ended or its queue is full.
    submit: Box<dyn Fn(Input) -> bool + Send + Sync>,
    /// Queue of names of edges whose own URLs are to be found out.
    identify: OnceLock<Sender<Origin>>,
}

struct State {
    /// Whether the client restarts under a new key.
    anew: bool,
    revision: u64,
    downloads: BTreeMap<Handle, Entry>,
    /// Reasons why finished files could not be written to the user's path, by download.
    not_placed: BTreeMap<Handle, String>,
    /// The last reason why a disk had no room for a download.
    no_room: Option<String>,
    dropped: VecDeque<(u64, Answer)>,
    /// Whether a bootstrap response has named the edges, and the known edges as `host:port`.
    edges: (bool, Vec<String>),
    /// Names that users have given of edges, and the edges' own URLs, as `host:port`; `None`: no edge answers there.
    names: BTreeMap<String, Option<String>>,
    /// The newest failure of the edges; `None` once an edge has answered.
    trouble: Option<Told>,
    meetings: Meetings,
    /// Time when each stored version expires, in Unix milliseconds; 0: never.
    expiries: BTreeMap<VersionId, u64>,
    /// Versions whose time of expiry comes from a notice, which overrides the times in grants.
    noticed: BTreeSet<VersionId>,
    /// Ids of this client's usage records as downloader that the ledger has not acknowledged.
    unreported: BTreeSet<RecordId>,
    /// Bytes uploaded according to usage records, by the id of the peer's download.
    uploaded: BTreeMap<DownloadId, u64>,
    client: StatusLine,
    /// NAT findings of the newest observation; `None` before the first.
    network: Option<NatLine>,
    started: Instant,
}

/// A failure of the edges, with the time at which API readers were last informed of it.
struct Told {
    failure: Failure,
    at: Instant,
    revision: u64,
}

struct Entry {
    /// The edge failure that ended the download.
    why: Option<Failure>,
    status: DownloadStatus,
    output: String,
    rate: RateMeter,
    revision: u64,
}

impl Entry {
    fn new(record: &DownloadRecord) -> Self {
        let granted = record.granted.as_ref();
        let status = DownloadStatus {
            handle: record.handle,
            object: record.object.clone(),
            download: granted.map(|g| g.download),
            version: granted.map(|g| g.version),
            state: record.state,
            size: granted.map_or(0, |g| g.size),
            durable: 0,
            edge_bytes: 0,
            peer_bytes: 0,
            wasted_bytes: 0,
            peers: 0,
        };
        Self { why: None, status, output: record.output.clone(), rate: RateMeter::default(), revision: 1 }
    }

    fn line(&self, now: Instant, client: &StatusLine) -> DownloadLine {
        let running = self.status.state == DownloadState::Running;
        let rate = if running { self.rate.bytes_per_s(now) } else { 0 };
        let mut line = DownloadLine::new(&self.status, &self.output, rate);
        if self.status.state == DownloadState::Failed(FailReason::NoSpace) {
            line.failure = Some(disk_full(client, self.why.as_ref().map(|why| &*why.reason)));
        } else if let (Some(failure), Some(why)) = (&mut line.failure, &self.why) {
            if failure.code == Code::Failed && why.code == Code::Unreachable {
                // an unreachable edge cannot have sent wrong bytes
                *failure = Failure::new(Code::Unreachable, "no edge can be trusted", "check the install bundle");
            }
            failure.reason = format!("{}: {}", failure.reason, why.reason);
            if !why.next_step.is_empty() {
                failure.next_step.clone_from(&why.next_step);
            }
        }
        line
    }
}

impl ApiState {
    /// Creates the state of a client that starts with the status `client`.
    pub fn new(client: StatusLine, submit: impl Fn(Input) -> bool + Send + Sync + 'static) -> Self {
        let state = State {
            anew: false,
            revision: 1,
            downloads: BTreeMap::new(),
            not_placed: BTreeMap::new(),
            no_room: None,
            dropped: VecDeque::new(),
            edges: (false, Vec::new()),
            names: BTreeMap::new(),
            trouble: None,
            meetings: Meetings::default(),
            expiries: BTreeMap::new(),
            noticed: BTreeSet::new(),
            unreported: BTreeSet::new(),
            uploaded: BTreeMap::new(),
            client,
            network: None,
            started: Instant::now(),
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            slots: Slots::new(),
            turns: Turns::new(OBJECTS_MAX),
            submit: Box::new(submit),
            identify: OnceLock::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // every statement leaves the state consistent, so a poisoned lock is harmless
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    // --- the shard's side -----------------------------------------------------------------------------------------

    /// Updates the state from what the machine saves: a download's output path or removal, the uploads setting, usage
    /// records.
    pub fn saving(&self, save: &Save) {
        let mut state = self.lock();
        match save {
            Save::Download(record) => {
                state.revision += 1;
                let revision = state.revision;
                let entry = state.downloads.entry(record.handle).or_insert_with(|| Entry::new(record));
                entry.output.clone_from(&record.output);
                entry.revision = revision;
                if let Some(granted) = record.granted.as_ref().filter(|g| !state.noticed.contains(&g.version)) {
                    state.expiries.insert(granted.version, granted.policy.expires_ms);
                }
            }
            Save::Forget { handle } => {
                state.revision += 1;
                state.meetings.forget(*handle);
                state.downloads.remove(handle);
            }
            Save::Checkpoint(newest) => state.client.checkpoint = Some(CheckpointLine::from(&**newest)),
            Save::Uploads(on) => state.client.uploads = *on,
            Save::Usage(record) => state.usage(record),
            Save::UsageDone(ids) => state.unreported.retain(|id| !ids.contains(id)),
            Save::Notice(notice) => state.take_terms(notice),
            Save::Uncache { version } => {
                state.expiries.remove(version);
                state.noticed.remove(version);
            }
            Save::Piece { .. } | Save::Finish { .. } | Save::Room { .. } => return,
            Save::Copy { .. } | Save::Receipt(_) | Save::Owner(_) => return,
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Takes back a usage record that could not be saved: the machine makes another one in its place.
    pub fn usage_not_saved(&self, id: RecordId) {
        self.lock().unreported.remove(&id);
        self.0.changed.notify_all();
    }

    /// Adds a download that the store kept from an earlier start.
    pub fn restored(&self, record: &DownloadRecord, durable: u64, sources: &BTreeMap<SourceName, u64>) {
        let mut entry = Entry::new(record);
        entry.status.durable = durable;
        entry.status.edge_bytes = sources.get(&SourceName::Edge).copied().unwrap_or(0);
        entry.status.peer_bytes = sources.values().sum::<u64>() - entry.status.edge_bytes;
        self.lock().downloads.insert(record.handle, entry);
    }

    /// Updates the state from a notice of the machine.
    pub fn notice(&self, notice: Notice) {
        let mut state = self.lock();
        match notice {
            Notice::Done { req, result } => self.0.slots.answer(req, result),
            Notice::Download(status) => state.put(status),
            Notice::SourceDropped { handle, source, why } => {
                state.revision += 1;
                state.meetings.dropped(source, why);
                let line =
                    Answer::SourceDropped { download: handle.0, source: source_name(source), why: left(why).into() };
                let at = state.revision;
                state.dropped.push_back((at, line));
                if state.dropped.len() > DROPPED_MAX {
                    state.dropped.pop_front();
                }
            }
            Notice::Meeting(intro, meeting) => state.meetings.take(intro, meeting),
            Notice::NoPeers { handle, why } => state.meetings.without_peers(handle, why.into()),
            Notice::Session { connected } => {
                state.client.control_connected = connected;
                if connected {
                    state.session_opened();
                }
            }
            Notice::TicketsRefused(versions) => state.client.copies_refused += versions.len(),
            // the port reports this in words, since it knows the lowest accepted version
            Notice::Outdated => {}
        }
        drop(state);
        self.0.changed.notify_all();
        if self.is_over() {
            self.0.turns.wake();
        }
    }

    /// Records why a finished file could not be written to the user's path; its download then counts as failed.
    pub fn not_placed(&self, handle: Handle, why: String) {
        self.lock().not_placed.insert(handle, why);
    }

    /// Records which disk has no room for a download; the download then fails, or its command is refused.
    pub fn no_room(&self, handle: Handle, why: String) {
        let mut state = self.lock();
        state.no_room = Some(why.clone());
        state.not_placed.insert(handle, why);
    }

    /// Stores that the CNs refuse this version of the client, with a sentence for the user. Returns whether this was
    /// unknown before.
    pub fn outdated(&self, why: String) -> bool {
        self.lock().client.outdated.replace(why).is_none()
    }

    /// Stores the times of expiry of the versions that the store kept from an earlier start, from their terms and from
    /// the newest notices.
    pub fn restored_expiries(&self, expiries: impl Iterator<Item = (VersionId, u64)>, notices: &[notice::Notice]) {
        let mut state = self.lock();
        state.expiries.extend(expiries);
        notices.iter().for_each(|notice| state.take_terms(notice));
    }

    /// Returns whether a stored version has expired at a time in Unix milliseconds.
    #[must_use]
    pub fn is_expired(&self, version: VersionId, now_ms: u64) -> bool {
        self.lock().expiries.get(&version).is_some_and(|at_ms| *at_ms != 0 && *at_ms <= now_ms)
    }

    /// Sets the reflexive address of the QUIC socket.
    pub fn public_address(&self, addr: Option<String>) {
        self.lock().client.public_address = addr;
    }

    /// Sets the NAT findings of the newest observation.
    pub fn network(&self, line: NatLine) {
        self.lock().network = Some(line);
    }

    /// Adds a usage record that the store kept from an earlier start.
    pub fn restored_usage(&self, record: &UsageRecord) {
        self.lock().usage(record);
    }

    /// Returns whether the machine has shut down or will never answer again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.slots.is_over()
    }

    /// Closes the API state because the machine restarts under a new key; waiting callers must ask again.
    pub fn begin_anew(&self) {
        self.lock().anew = true;
        self.close();
    }

    /// Returns whether [`ApiState::begin_anew`] was called and no shutdown was requested.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        self.lock().anew && !self.0.slots.is_shutdown_asked()
    }

    /// Wakes every waiting caller because the machine has ended.
    pub fn close(&self) {
        self.0.slots.close();
        self.tell_all();
    }

    /// Wakes every caller that waits for changes or for its turn; callers that wait for a command's answer sleep on.
    fn tell_all(&self) {
        // taking the lock once ensures that a caller which read the old state is already asleep, and so is woken
        drop(self.lock());
        self.0.changed.notify_all();
        self.0.turns.wake();
    }

    /// Requests the machine's shutdown and returns the id of this request; `None` if the machine has already ended.
    pub fn shut_down(&self) -> Option<ReqId> {
        let req = self.0.slots.open_shutdown()?;
        if !(self.0.submit)(Input::Command(Command { req, kind: CommandKind::Shutdown })) {
            self.close();
        }
        Some(req)
    }

    /// Completes once a shutdown was requested.
    pub fn shutdown_asked(&self) -> impl Future<Output = ()> {
        self.0.slots.shutdown_asked()
    }

    // --- the API's side -------------------------------------------------------------------------------------------

    /// Sends a command to the machine and waits for its answer.
    pub fn command(&self, kind: CommandKind) -> Result<Option<Handle>, Failure> {
        let req = if kind == CommandKind::Shutdown { self.shut_down() } else { self.begin(kind) };
        self.end(req.ok_or_else(gone)?)
    }

    /// Sends a command to the machine; [`ApiState::end`] waits for the answer. `None` if the machine has ended or its
    /// queue is full.
    pub fn begin(&self, kind: CommandKind) -> Option<ReqId> {
        let req = self.0.slots.open()?;
        if !(self.0.submit)(Input::Command(Command { req, kind })) {
            self.0.slots.forget(req);
            return None;
        }
        Some(req)
    }

    /// Waits for the answer to a command.
    pub fn end(&self, req: ReqId) -> Result<Option<Handle>, Failure> {
        match self.0.slots.wait(req, ANSWER_WITHIN) {
            Waited::Answered(Err(CommandError::Store(StoreError::NoSpace))) => {
                let state = self.lock();
                Err(disk_full(&state.client, state.no_room.as_deref()))
            }
            Waited::Answered(answered) => answered.map_err(Failure::from),
            Waited::Over => Err(gone()),
            Waited::Silent => Err(silent()),
        }
    }

    /// Returns the queue of `get` commands: which download each one waits for, and which may start next.
    pub(super) fn turns(&self) -> &Turns<ObjectRef, String> {
        &self.0.turns
    }

    /// Returns the number of `get` commands that this client serves or has in its queue.
    #[must_use]
    pub fn gets(&self) -> usize {
        self.0.turns.count()
    }

    /// Returns the NAT findings; `None` until the first round of observation has ended.
    #[must_use]
    pub fn observed(&self) -> Option<NatLine> {
        self.lock().network.clone()
    }

    /// Returns the status of the client and of all its downloads.
    #[must_use]
    pub fn status(&self) -> StatusLine {
        let state = self.lock();
        let now = Instant::now();
        let mut line = state.client.clone();
        line.uptime_s = state.started.elapsed().as_secs();
        line.uploaded_bytes = state.uploaded.values().sum();
        line.usage_unreported = state.unreported.len();
        line.downloads = state.downloads.values().map(|entry| entry.line(now, &state.client)).collect();
        line
    }

    /// Returns the figures of all downloads with their output paths, for the decision whether a file may be written.
    #[must_use]
    pub fn downloads(&self) -> Vec<(DownloadStatus, String)> {
        self.lock().downloads.values().map(|entry| (entry.status.clone(), entry.output.clone())).collect()
    }

    /// Waits up to `patience` for changes after revision `seen`. Returns the newest figures of each changed download,
    /// the sources dropped since, and the revision for the next call. `only` restricts this to one download.
    pub fn changes(&self, seen: u64, only: Option<Handle>, patience: Duration) -> Changes {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            let over = self.is_over();
            if state.revision > seen || over || left.is_zero() {
                return Changes {
                    revision: state.revision,
                    over,
                    forgotten: only.is_some_and(|handle| !state.downloads.contains_key(&handle)),
                    lines: state.lines_after(seen, only, now),
                };
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// The result of [`ApiState::changes`].
#[derive(Debug)]
pub struct Changes {
    /// Revision to pass as `seen` in the next call.
    pub revision: u64,
    /// Whether the machine has ended.
    pub over: bool,
    /// Whether the requested download does not exist (any more).
    pub forgotten: bool,
    /// Answers to send: changed downloads and source drops.
    pub lines: Vec<Answer>,
}

impl State {
    /// Takes the time of expiry of a version from the newest notice about it.
    fn take_terms(&mut self, notice: &notice::Notice) {
        if let Some((version, Terms::Policy(policy))) = notice.terms() {
            self.expiries.insert(version, policy.expires_ms);
            self.noticed.insert(version);
        }
    }

    /// Counts a usage record: as not acknowledged, or its bytes as sent to peers.
    fn usage(&mut self, record: &UsageRecord) {
        match record.side {
            Side::Downloader => drop(self.unreported.insert(record.id)),
            Side::Uploader => {
                let bytes: u64 = record.peers.iter().map(|p| p.bytes).sum();
                let known = self.uploaded.entry(record.download).or_default();
                *known = bytes.max(*known);
            }
        }
    }

    fn put(&mut self, status: DownloadStatus) {
        self.revision += 1;
        let revision = self.revision;
        let by_edges =
            matches!(status.state, DownloadState::Failed(FailReason::EdgeUnreachable | FailReason::EdgeCorrupt));
        let failed = matches!(status.state, DownloadState::Failed(_));
        let not_placed = if failed { self.not_placed.remove(&status.handle) } else { None };
        let not_placed = not_placed.map(|why| Failure::new(Code::Disk, why, ""));
        let why = self.trouble.as_ref().filter(|_| by_edges).map(|t| t.failure.clone()).or(not_placed);
        let entry = self.downloads.entry(status.handle).or_insert_with(|| Entry {
            why: None,
            status: status.clone(),
            output: String::new(),
            rate: RateMeter::default(),
            revision,
        });
        let over = matches!(status.state, DownloadState::Completed | DownloadState::Failed(_));
        entry.rate.add(Instant::now(), status.edge_bytes.saturating_add(status.peer_bytes));
        let handle = status.handle;
        entry.status = status;
        entry.why = why;
        entry.revision = revision;
        if over {
            self.meetings.ended(handle);
        }
    }

    fn lines_after(&self, seen: u64, only: Option<Handle>, now: Instant) -> Vec<Answer> {
        let wanted = |handle: u32| only.is_none_or(|only| only.0 == handle);
        let dropped = self.dropped.iter().filter(|(at, line)| {
            *at > seen && matches!(line, Answer::SourceDropped { download, .. } if wanted(*download))
        });
        let changed = self.downloads.values().filter(|e| e.revision > seen && wanted(e.status.handle.0));
        let figures = changed.map(|entry| Answer::Download(entry.line(now, &self.client)));
        let trouble = self.trouble.iter().filter(|t| t.revision > seen).map(|t| Answer::Trouble(t.failure.clone()));
        dropped.map(|(_, line)| line.clone()).chain(trouble).chain(figures).collect()
    }
}

/// Returns the failure that names the full disk and the user's remedy; `why`: the store's reason.
fn disk_full(client: &StatusLine, why: Option<&str>) -> Failure {
    let mut failure = Failure::from(FailReason::NoSpace);
    let dir = &client.state_dir;
    if let Some(why) = why {
        failure.reason = format!("{}: {why}", failure.reason);
    } else if !dir.is_empty() {
        failure.reason = format!("{}: there is no room left in the client's directory, {dir}", failure.reason);
    }
    if client.background {
        failure.next_step = "free some space: the client then goes on by itself, and fetches nothing twice".into();
    }
    failure
}

fn gone() -> Failure {
    Failure::new(Code::Unreachable, "the client is stopping", "start it again with `client run`")
}

fn silent() -> Failure {
    Failure::new(Code::Unreachable, "the client does not answer", "look at its log, or start it again")
}

#[cfg(test)]
mod tests;
