//! Identity, limits and intervals of a client.

use crate::accounting::Trust;
use crate::ids::{Guid, PublicKey, SecondaryGuid};
use crate::swarm::{download, upload};
use crate::wire::records::Verify;
use alloc::vec::Vec;
use core::time::Duration;

/// Without any edge's answer for so long a download that has not begun is given up.
pub const START_WITHIN: Duration = Duration::from_secs(20);

/// Who this client is, as far as the core needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its GUID.
    pub guid: Guid,
    /// The key that the GUID follows from.
    pub key: PublicKey,
    /// The secondary GUIDs of the last starts, newest (this one) first.
    pub secondary: Vec<SecondaryGuid>,
    /// K_u.
    pub upload_key: PublicKey,
    /// The operator's root key.
    pub root: PublicKey,
}

/// A client's configuration. Only [`Config::new`] and [`Config::tiny`] make one, since it carries an identity.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who the client is.
    pub identity: Identity,
    /// The control session's.
    pub session: crate::session::client::Config,
    /// Each download's.
    pub download: download::Config,
    /// The uploading side's.
    pub upload: upload::Config,
    /// How peers are met.
    pub connectivity: crate::nat::connectivity::Config,
    /// Peers that a download is content with.
    pub peers_wanted: u32,
    /// A peer connection opens, and a `Hello` is answered, within this.
    pub peer_within: Duration,
    /// A connection on which nothing comes for so long, though something is due, is a reason to look at the network.
    pub quiet_after: Duration,
    /// After so long, or four round trips if that is more, the way to its peer is lost.
    pub lost_after: Duration,
    /// An uploader closes within this after the last receipt.
    pub part_within: Duration,
    /// Bytes under way over all downloads.
    pub budget: u64,
    /// Without any edge's answer for so long a download that has not begun is given up.
    pub start_within: Duration,
    /// The wait before an edge is asked again: first and longest.
    pub ask_backoff: (Duration, Duration),
    /// The bootstrap is asked for again so often.
    pub bootstrap_every: Duration,
    /// A grant is renewed this long before it expires, or after half its time if that is later.
    pub renew_before: Duration,
    /// Figures of a download are told at most so often.
    pub status_every: Duration,
    /// Usage records are written so often while something changes that is young, and at last: see
    /// [`Config::usage_wait`].
    pub usage_every: (Duration, Duration),
    /// What was served to a download is remembered for so long after its last byte, so that a peer which comes again is
    /// counted on.
    pub served_keep: Duration,
}

impl Config {
    /// Production limits for this identity.
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
            start_within: START_WITHIN,
            ask_backoff: (Duration::from_millis(250), Duration::from_secs(10)),
            bootstrap_every: Duration::from_secs(3600),
            renew_before: Duration::from_secs(180),
            status_every: Duration::from_millis(250),
            usage_every: (Duration::from_secs(5), Duration::from_secs(60)),
            served_keep: Duration::from_secs(600),
        }
    }

    /// The wait before the next usage record of what is so old: a quarter of its age, within bounds, so that a long
    /// download makes few records, and a crash leaves little unreported.
    pub(super) fn usage_wait(&self, age: Duration) -> Duration {
        (age / 4).clamp(self.usage_every.0, self.usage_every.1)
    }

    /// For models: small windows, no measuring, no waits that branch.
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
            ..usual
        }
    }
}
