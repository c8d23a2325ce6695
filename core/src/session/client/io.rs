//! What the client's session is told and what it asks for.

use crate::accounting::conduct::End;
use crate::ids::{ConnId, DownloadId, Guid, IntroId, PublicKey, RecordId, SecondaryGuid, VersionId};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::Attempt;
use crate::nat::cookie::Proven;
use crate::wire::Text;
use crate::wire::control::{ControlMsg, Introduce, IntroducedPeer};
use crate::wire::records::{Logged, SealedGrant, SignedCheckpoint, SignedIntroduction, SignedRekey, Verify};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// Control connections have this bit, so that they never share a number with the client's peer connections.
pub const CONN_BIT: u64 = 1 << 62;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The bootstrap names this many CNs, nearest first. The first time, or after 0, it starts the session.
    Servers {
        /// How many.
        cns: u32,
        /// The edge's clock, Unix milliseconds: good enough until a CN says it better.
        now_ms: u64,
    },
    /// The connection is open.
    Opened {
        /// Which.
        conn: ConnId,
    },
    /// The connection could not be opened, or has ended.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A message of the CN.
    Message {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// The user allows or forbids uploads.
    Uploads(bool),
    /// How the client can be reached.
    Network(NatDescriptor),
    /// Newer cookies for addresses of it: for the next `Hello` or `Update`.
    Proven(Vec<Proven>),
    /// The way to the CN may be gone: the CN is asked for a sign of life at once.
    Look,
    /// This version can be shared now (`complete`: every piece of it). Idempotent; may come before any connection.
    Share {
        /// Which.
        version: VersionId,
        /// It has every piece.
        complete: bool,
    },
    /// This version is no longer shared.
    Unshare {
        /// Which.
        version: VersionId,
    },
    /// A download wants peers; replaces what it wanted before. Queries go out, within their rate, until it wants none.
    Want(Want),
    /// A download wants no peers any more: it is over or paused. Its introductions are no longer accepted.
    Unwant {
        /// Which.
        download: DownloadId,
    },
    /// What became of an introduction.
    Outcome {
        /// Which.
        intro: IntroId,
        /// How the attempt to connect ended.
        attempt: Attempt,
    },
    /// This side's NAT is open for an introduction.
    NatOpened(IntroId),
    /// An introduction ended with bytes that no receipt covers. Told if there is a CN to tell: it is a hint.
    Unreceipted {
        /// As its downloader has shown it.
        intro: Box<SignedIntroduction>,
        /// How it ended.
        end: End,
    },
    /// A usage record, already durable and logged: sent until the ledger has it or a newer one of the same download
    /// and side comes.
    Usage(Logged),
    /// This checkpoint is kept: it is shown at the next login.
    Checkpoint(Box<SignedCheckpoint>),
    /// The client takes another key, which is kept: told until [`Output::Retired`].
    Rekey(Box<SignedRekey>),
    /// The client stops: say good-bye.
    Shutdown,
}

/// What a download wants of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// The download.
    pub download: DownloadId,
    /// K_d: introductions for another key are refused.
    pub download_key: PublicKey,
    /// Its version.
    pub version: VersionId,
    /// The right to ask, as last renewed.
    pub grant: SealedGrant,
    /// How many more peers it could use now; 0: ask for none at present.
    pub more: u8,
    /// K_u of the peers that it is connected to or has tried.
    pub exclude: Vec<PublicKey>,
    /// The way to a peer was lost: ask at once, that it may be introduced anew.
    pub soon: bool,
}

/// Something to be done, or learned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Open a connection; answered by `Opened` or `Closed`.
    Dial {
        /// Its number.
        conn: ConnId,
        /// Which CN, as the bootstrap numbers them.
        cn: u32,
    },
    /// Send to the CN.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// Close the connection; no `Closed` follows.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The session is open: a CN has said welcome. The wall clock is known from here on.
    Connected,
    /// The session is lost; another is being sought.
    Disconnected,
    /// Every known CN has failed in a row: a fresh bootstrap may know others.
    NoServers,
    /// Peers for a download that wants them: each introduction was checked (signature, certificate, times, download,
    /// version). Best first.
    Introduced {
        /// For this download.
        download: DownloadId,
        /// The peers.
        peers: Vec<IntroducedPeer>,
    },
    /// The CN does not accept this download's grant: it asks again once [`Want`] carries another one.
    Regrant {
        /// Which.
        download: DownloadId,
    },
    /// The provider's policy forbids peers, or the grant is another client's: this download goes on without peers.
    PeersForbidden {
        /// Which.
        download: DownloadId,
    },
    /// A peer will come to be served: its introduction was checked, and names this client's upload key.
    PeerComing(Introduce),
    /// Both peers of an introduction have opened their NATs, or had time to.
    Go(IntroId),
    /// These versions are published no more: they must not be shared.
    Withdrawn {
        /// Which.
        versions: Vec<VersionId>,
    },
    /// The CN has signed for a newer place in this client's log than any before: keep it. It was checked.
    Checkpoint(Box<SignedCheckpoint>),
    /// There are copies of this client: it is to take another key.
    RekeyOrdered,
    /// The old GUID's end is durable in the ledger.
    Retired,
    /// These usage records need not be kept: the ledger has them, or newer ones of the same download and side are kept.
    UsageDone {
        /// Which.
        ids: Vec<RecordId>,
    },
}

/// Identity, limits and intervals of a client's session.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Checks signatures.
    pub verify: Verify,
    /// Who the client is.
    pub guid: Guid,
    /// The secondary GUIDs of the last starts, newest (this one) first.
    pub secondary: Vec<SecondaryGuid>,
    /// K_u.
    pub upload_key: PublicKey,
    /// `major << 16 | minor << 8 | patch`.
    pub client_version: u32,
    /// Operating system and architecture.
    pub platform: Text<32>,
    /// A connection opens, and a `Hello` is answered, within this.
    pub welcome_within: Duration,
    /// A CN this long silent after a ping is lost.
    pub pong_within: Duration,
    /// The same where the way to it is in doubt.
    pub look_within: Duration,
    /// The wait before the next attempt once every CN has failed: first and longest.
    pub backoff: (Duration, Duration),
    /// Queries a minute, over all downloads, by those that know peers already.
    pub queries_per_minute: u32,
    /// So many more by downloads that know none: one that asks again and again must not keep the next from its first
    /// peers.
    pub queries_first: u32,
    /// So many more where the way to a peer was lost; with those above no more than the CN allows.
    pub queries_spare: u32,
    /// The wait before a download that knows few peers asks again, and the longest after empty answers.
    pub requery: (Duration, Duration),
    /// From so many known peers on, a download asks again after [`Config::requery_known`].
    pub few_peers: u32,
    /// See [`Config::few_peers`].
    pub requery_known: Duration,
    /// Changes of the inventory are gathered for so long.
    pub inventory_wait: Duration,
    /// Usage records under way at a time.
    pub usage_window: u32,
    /// A usage record that is not acknowledged by then is sent again.
    pub usage_retry: Duration,
}

impl Config {
    /// Production limits for a client that has this identity.
    #[must_use]
    pub fn new(root: PublicKey, verify: Verify, guid: Guid, secondary: Vec<SecondaryGuid>, upload: PublicKey) -> Self {
        Self {
            root,
            verify,
            guid,
            secondary,
            upload_key: upload,
            client_version: 1 << 8,
            platform: Text::default(),
            welcome_within: Duration::from_secs(10),
            pong_within: Duration::from_secs(10),
            look_within: Duration::from_millis(1_500),
            backoff: (Duration::from_millis(500), Duration::from_secs(60)),
            queries_per_minute: 6,
            queries_first: 2,
            queries_spare: 2,
            requery: (Duration::from_secs(1), Duration::from_secs(60)),
            few_peers: 6,
            requery_known: Duration::from_secs(5),
            inventory_wait: Duration::from_millis(200),
            usage_window: 32,
            usage_retry: Duration::from_secs(30),
        }
    }

    /// Queries that may have gone out in a minute before one more does.
    pub(super) const fn query_rate(&self, knows_peers: bool, way_lost: bool) -> u32 {
        let first = self.queries_per_minute.saturating_add(self.queries_first);
        match (knows_peers, way_lost) {
            (_, true) => first.saturating_add(self.queries_spare),
            (false, false) => first,
            (true, false) => self.queries_per_minute,
        }
    }

    /// For models: no gathering, no waits that branch.
    #[must_use]
    pub fn tiny(root: PublicKey, verify: Verify, guid: Guid, secondary: Vec<SecondaryGuid>, upload: PublicKey) -> Self {
        Self {
            backoff: (Duration::from_secs(1), Duration::from_secs(1)),
            queries_per_minute: 4,
            queries_first: 0,
            requery: (Duration::from_secs(5), Duration::from_secs(60)),
            few_peers: 0,
            inventory_wait: Duration::ZERO,
            usage_window: 2,
            ..Self::new(root, verify, guid, secondary, upload)
        }
    }
}
