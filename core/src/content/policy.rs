//! A provider's policy for an object: set at publishing and carried by each grant.

crate::wire! {
    /// A provider's policy for one object.
    pub struct Policy {
        /// Whether clients may download the object from peers.
        pub peer_download: bool,
        /// Whether clients that have the object may upload it.
        pub peer_upload: bool,
        /// Number of times one client may upload the whole object; 0: no cap.
        pub uploads_max: u32,
        /// Most bytes a second that one client may upload of the object; 0: no cap.
        pub upload_rate_max: u64,
        /// Download rate that the provider wants at least, bytes a second: the edge sends what peers lack of it. 0: as
        /// fast as the edge alone.
        pub rate_min: u64,
        /// Most bytes a second that the edge sends to one download; 0: no cap.
        pub edge_rate_max: u64,
        /// Time after which the object is not delivered, Unix milliseconds; 0: never expires.
        pub expires_ms: u64,
    }
}

/// The condition for getting an object. Only edges know it: all other servers ask for a grant, which an edge gives on
/// this condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anybody who knows the object's name may have it.
    #[default]
    Public,
    /// Only clients that show the provider's token ([`crate::accounting::edge_auth`]), or a grant obtained with one.
    Token,
}

impl Policy {
    /// Returns whether the object is no longer delivered at `now_ms`, Unix milliseconds.
    #[must_use]
    pub const fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && now_ms >= self.expires_ms
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            peer_download: true,
            peer_upload: true,
            uploads_max: 0,
            upload_rate_max: 0,
            rate_min: 0,
            edge_rate_max: 0,
            expires_ms: 0,
        }
    }
}
