//! Kinds of records, as numbers in the `kind` column.

use swarmedge_core::wire::records::{LedgerRecord, LogEvent, Side};

/// Kind of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Kind {
    /// Usage record of a downloader.
    Downloader = 1,
    /// Usage record of an uploader.
    Uploader = 2,
    /// Report of an edge.
    Edge = 3,
    /// Grant of a download.
    Granted = 4,
    /// Login of a client.
    Login = 5,
    /// Versions that a client registered.
    Registered = 6,
    /// Introductions that a CN made.
    Offered = 7,
    /// Log head of a client without its usage record.
    Head = 8,
    /// Change of a client's key.
    Rekeyed = 9,
    /// Location of a client at a login.
    Located = 10,
    /// Outcome of a possession challenge.
    Possession = 11,
    /// Client's blame of a peer.
    Blamed = 12,
    /// Login of a client so long ago that its address was removed.
    OldLogin = 13,
}

impl Kind {
    /// First kind of the CNs' log records. Settlement reads no kind from here on, except [`Kind::Offered`].
    pub(super) const FIRST_LOG: Self = Self::Login;

    /// Returns the kind of a record.
    pub(super) const fn of(record: &LedgerRecord) -> Self {
        match record {
            LedgerRecord::Usage(r) => match r.record.side {
                Side::Downloader => Self::Downloader,
                Side::Uploader => Self::Uploader,
            },
            LedgerRecord::Edge(_) | LedgerRecord::Served(_) => Self::Edge,
            LedgerRecord::Granted(_) => Self::Granted,
            LedgerRecord::Log(r) => match &r.event {
                LogEvent::Login(_) => Self::Login,
                LogEvent::Registered(_) => Self::Registered,
                LogEvent::Offered(_) => Self::Offered,
                LogEvent::Head(_) => Self::Head,
                LogEvent::Located(_) => Self::Located,
                LogEvent::Rekeyed(_) => Self::Rekeyed,
                LogEvent::Blamed(_) => Self::Blamed,
            },
            LedgerRecord::Possession(_) => Self::Possession,
        }
    }

    /// Converts to a value of the column.
    pub(super) const fn to_sql(self) -> i64 {
        self as i64
    }
}
