//! What a content provider allows for an object; set at publishing, carried by each grant.

crate::wire! {
    /// The provider's policy for one object.
    pub struct Policy {
        /// Clients may download from peers.
        pub peer_download: bool,
        /// Clients that hold it may upload it.
        pub peer_upload: bool,
        /// How often one client may upload the whole object; 0: no cap.
        pub uploads_max: u32,
        /// The most bytes a second one client may upload of it; 0: no cap.
        pub upload_rate_max: u64,
        /// The least rate the provider wants, bytes a second: the edge fills up to it. 0: as fast as the edge alone.
        pub rate_min: u64,
        /// The edge sends no faster than this to one download, bytes a second; 0: no cap.
        pub edge_rate_max: u64,
        /// Not delivered after, Unix milliseconds; 0: never expires.
        pub expires_ms: u64,
    }
}

/// Who may have an object. Known to edges alone: everything else asks for a grant, which an edge gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Whoever knows its name.
    #[default]
    Public,
    /// Whoever shows its provider's token ([`crate::accounting::edge_auth`]), or a grant that was got by one.
    Token,
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
