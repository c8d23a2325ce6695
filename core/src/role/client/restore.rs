//! Restoring a client from its store.

use super::Client;
use super::books::Books;
use super::common::Timer;
use super::config::Config;
use super::io::{CopyTerms, DownloadRecord, DownloadState, KeptReceipt, SourceName};
use super::job::Job;
use super::rekey::{Owner, Rekey};
use super::versions::Versions;
use crate::Time;
use crate::content::{Bitfield, Layout};
use crate::ids::{Guid, Handle, VersionId};
use crate::swarm::Uploads;
use crate::wire::notice::Notice;
use crate::wire::records::{Side, SignedCheckpoint, SignedRekey, UsageRecord};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Everything that a client's store has kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Downloads, each with its journalled pieces (zero pieces long while the manifest is not known).
    pub downloads: Vec<(DownloadRecord, Bitfield)>,
    /// Bytes of journalled pieces by source, for each download.
    pub sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    /// Usage records that the ledger has not acknowledged.
    pub usage: Vec<UsageRecord>,
    /// Receipts that no usage record holds.
    pub receipts: Vec<KeptReceipt>,
    /// Complete versions in the cache.
    pub cached: Vec<(VersionId, Layout, Bitfield)>,
    /// The conditions on which each stored version may be shared.
    pub terms: BTreeMap<VersionId, CopyTerms>,
    /// Servers of the last bootstrap; `None` before the first.
    pub servers: Option<KeptServers>,
    /// The newest notices about versions that the store keeps.
    pub notices: Vec<Notice>,
    /// The newest checkpoint of this client's logs.
    pub checkpoint: Option<Box<SignedCheckpoint>>,
    /// GUID that the store belongs to; `None` if never set.
    pub owner: Option<Guid>,
    /// New key made by an earlier start, whose rekey may not be complete.
    pub new_key: Option<Box<SignedRekey>>,
    /// The user's choice whether to upload; `None` if never made.
    pub uploads: Option<bool>,
}

/// Numbers of servers in the last bootstrap, whose addresses the shell has kept. With them a client reaches CNs, and
/// through these peers, while no edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeptServers {
    /// Number of CNs.
    pub cns: u32,
    /// Number of edges.
    pub edges: u32,
    /// Time of this host's clock in Unix milliseconds, used until a server tells the time.
    pub now_ms: u64,
}

impl Client {
    /// Returns a client with the stored state. `uploads` is the install bundle's default, used if the user has not
    /// chosen. The client does nothing before its first timeout, which is due at once.
    #[must_use]
    pub fn restore(cfg: &Config, mut restore: Restore, uploads: bool) -> Self {
        let owner = Owner::of(restore.owner, cfg.identity.guid);
        if owner == Owner::Other {
            // an installation with the stored GUID may still run elsewhere, and reports these records itself
            (restore.usage, restore.receipts, restore.checkpoint) = (Vec::new(), Vec::new(), None);
        }
        let allowed = restore.uploads.unwrap_or(uploads);
        let mut client = Self {
            session: crate::session::ClientSession::new(allowed).with_checkpoint(restore.checkpoint),
            uploads: Uploads::new(allowed),
            rekey: Rekey::restored(owner, restore.new_key),
            kept_servers: restore.servers,
            ..Self::default()
        };
        client.copies.versions = Versions::restored(restore.cached, restore.terms);
        let mut sources = restore.sources;
        for (mut record, have) in restore.downloads {
            let handle = record.handle;
            let download = record.granted.as_ref().map(|g| g.download);
            let is_of_download = |r: &&UsageRecord| r.side == Side::Downloader && Some(r.download) == download;
            let seq = restore.usage.iter().filter(is_of_download).map(|r| r.seq).max().unwrap_or(0);
            record.usage_seq = record.usage_seq.max(seq);
            if record.state == DownloadState::Running && record.granted.is_none() {
                record.state = DownloadState::Starting;
            }
            if let Some(granted) = record.granted.as_ref().filter(|g| client.copies.versions.terms(g.version).is_none())
            {
                let versions = &mut client.copies.versions;
                versions.set_policy(granted.version, &granted.policy);
                granted.ticket.iter().for_each(|ticket| versions.set_ticket(granted.version, ticket.clone()));
            }
            let counted = sources.remove(&handle).unwrap_or_default().into_iter().collect();
            client.jobs.restore(Job::new(record, have, counted, Time::ZERO));
        }
        client.copies.restore_notices(&client.jobs, &restore.notices);
        client.books = Books::restored(cfg.identity.guid, restore.usage, &restore.receipts);
        if owner == Owner::Other {
            client.jobs.void_grants();
        }
        client.common.timers.set(Timer::Start, Some(Time::ZERO));
        client
    }
}
