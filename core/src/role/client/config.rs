//! Identity, limits and intervals of a client.

use crate::accounting::Trust;
use crate::ids::{Guid, PublicKey, SecondaryGuid};
use crate::swarm::{download, upload};
use crate::wire::records::Verify;
use alloc::vec::Vec;
use core::time::Duration;

/// Time-out of a download that has not begun and gets no answer from any edge.
pub const START_WITHIN: Duration = Duration::from_secs(20);

/// Identity of this client: its GUID and public keys, without any private key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// GUID of the installation, derived from `key`.
    pub guid: Guid,
    /// Public key that the GUID is derived from.
    pub key: PublicKey,
    /// Secondary GUIDs (random ids, one for each start) of the last starts, newest first; the first is that of this
    /// start.
    pub secondary: Vec<SecondaryGuid>,
    /// K_u: public key that peers know this client by when it uploads.
    pub upload_key: PublicKey,
    /// The operator's root key.
    pub root: PublicKey,
}

/// Configuration of a client; it holds the client's identity, so only [`Config::new`] and [`Config::tiny`] make one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identity of this client.
    pub identity: Identity,
    /// Configuration of the control session.
    pub session: crate::session::client::Config,
    /// Configuration of each download's swarm.
    pub download: download::Config,
    /// Configuration of the uploading side.
    pub upload: upload::Config,
    /// Configuration of connectivity attempts with peers.
    pub connectivity: crate::nat::connectivity::Config,
    /// Number of connected peers at which a download asks for no further ones.
    pub peers_wanted: u32,
    /// Time-out for opening a connection to a peer, and for the peer's answer to `Hello` after that.
    pub peer_within: Duration,
    /// Silence on a peer connection, while an answer is due, after which the network is checked.
    pub quiet_after: Duration,
    /// Silence after which the path to a peer counts as lost; four round trips if that is longer.
    pub lost_after: Duration,
    /// Time after a closing connection's last receipt within which the uploader must close it.
    pub part_within: Duration,
    /// Maximum number of requested bytes that have not arrived, over all downloads together.
    pub budget: u64,
    /// Whether the client runs in the background: a download then waits for an edge without limit, and one that a full
    /// disk has stopped goes on when there is room.
    pub background: bool,
    /// Time-out of a download that has not begun and gets no answer from any edge, unless `background` is set.
    pub start_within: Duration,
    /// Wait of a download that begins again, until it goes on without an edge under the grant that it has.
    pub alone_after: Duration,
    /// Back-off before a full disk is looked at again: first and longest wait.
    pub room_backoff: (Duration, Duration),
    /// Back-off between requests to edges: first and longest wait.
    pub ask_backoff: (Duration, Duration),
    /// Interval between two bootstrap requests.
    pub bootstrap_every: Duration,
    /// Time before its expiry at which a grant is renewed; if less than twice that is left, half of the remaining
    /// lifetime.
    pub renew_before: Duration,
    /// Shortest interval between two reports of a download's figures to the user.
    pub status_every: Duration,
    /// Shortest and longest wait between two usage records of a download: see [`Config::usage_wait`].
    pub usage_every: (Duration, Duration),
    /// Time for which the count of bytes served to a download is kept after its last byte, so that a peer that
    /// reconnects continues the same count.
    pub served_keep: Duration,
}

impl Config {
    /// Returns the configuration for production, with this identity.
    #[must_use]
    pub fn new(identity: Identity, verify: Verify) -> Self {
        let session = crate::session::client::Config::new(
            identity.root,
            verify,
            identity.guid,
            identity.secondary.clone(),
            identity.upload_key,
        );
        let trust = Trust { root: identity.root, verify };
        Self {
            session,
            download: download::Config::default(),
            upload: upload::Config::new(trust, identity.upload_key),
            connectivity: crate::nat::connectivity::Config::default(),
            identity,
            peers_wanted: 24,
            peer_within: Duration::from_secs(10),
            quiet_after: Duration::from_secs(1),
            lost_after: Duration::from_secs(2),
            part_within: Duration::from_secs(5),
            budget: 256 << 20,
            background: false,
            start_within: START_WITHIN,
            alone_after: Duration::from_secs(3),
            room_backoff: (Duration::from_secs(2), Duration::from_secs(60)),
            ask_backoff: (Duration::from_millis(250), Duration::from_secs(10)),
            bootstrap_every: Duration::from_secs(3600),
            renew_before: Duration::from_secs(180),
            status_every: Duration::from_millis(250),
            usage_every: (Duration::from_secs(5), Duration::from_secs(60)),
            served_keep: Duration::from_secs(600),
        }
    }

    /// Returns the wait before the next usage record of a download that is `age` old: a quarter of the age, within
    /// the bounds `usage_every`. So a long download makes few records, and a crash leaves little unreported.
    pub(super) fn usage_wait(&self, age: Duration) -> Duration {
        (age / 4).clamp(self.usage_every.0, self.usage_every.1)
    }

    /// Returns the configuration for models, with small limits and no back-off between requests, so that there are
    /// few states.
    #[must_use]
    pub fn tiny(identity: Identity, verify: Verify) -> Self {
        let usual = Self::new(identity, verify);
        let id = &usual.identity;
        let session =
            crate::session::client::Config::tiny(id.root, verify, id.guid, id.secondary.clone(), id.upload_key);
        Self {
            session,
            download: download::Config::tiny(),
            upload: upload::Config::tiny(usual.upload.trust, id.upload_key),
            connectivity: crate::nat::connectivity::Config::tiny(),
            peers_wanted: 2,
            usage_every: (usual.usage_every.0, usual.usage_every.0),
            ask_backoff: (Duration::ZERO, Duration::ZERO),
            alone_after: Duration::MAX,
            ..usual
        }
    }
}
