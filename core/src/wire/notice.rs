//! Signed notices: statements of an operator or provider to all clients. A notice has a subject and a serial number; of
//! the notices about one subject the one with the highest serial number counts. [`crate::notice`] has the rules.

use super::{Blob, Wire as _};
use crate::content::Policy;
use crate::ids::{Signature, VersionId};
use crate::limits;
use crate::wire::records::ServerCert;
use core::cmp::Ordering;

crate::wire! {
    /// Subject of a notice. The kind is a number, so that servers and clients can pass on notices of a later kind,
    /// unknown to them.
    pub struct Subject {
        /// Number of the kind: [`Subject::VERSION`].
        pub kind: u8,
        /// Identifier within the kind; for a version, its id.
        pub id: [u8; 32],
    }

    /// Serial number of the newest notice about a subject that a client or server has.
    pub struct Known {
        /// Subject of the notice.
        pub subject: Subject,
        /// Serial number of the newest notice; 0: none.
        pub serial: u64,
    }

    /// Statement about a subject, which replaces every statement about it with a lower serial number.
    pub struct Notice {
        /// Subject of the notice.
        pub subject: Subject,
        /// Serial number, which only grows from notice to notice about one subject; at least 1.
        pub serial: u64,
        /// Statement, in the encoding of the subject's kind; for a version, [`Terms`].
        pub body: Blob<{ limits::NOTICE_BODY_MAX }>,
    }

    /// Notice with its signature under [`super::records::SigningContext::Notice`].
    pub struct SignedNotice {
        /// The encoding of a [`Notice`]. Exactly these bytes are signed.
        pub notice: Blob<{ limits::NOTICE_LEN_MAX }>,
        /// Signature by the key of `cert` over `notice`.
        pub signature: Signature,
        /// Certificate of the signing server.
        pub cert: ServerCert,
    }
}
impl Copy for Subject {}
impl Copy for Known {}

crate::wire! {
    /// Statement about a version: the terms under which it is delivered.
    pub enum Terms {
        /// The version is published under this policy.
        Policy(Policy) = 1,
        /// The version is no longer published: nobody may share it.
        Withdrawn = 2,
    }
}

impl Subject {
    /// Kind of a version; its statement is [`Terms`], signed by an edge.
    pub const VERSION: u8 = 1;

    /// Returns the subject of notices about a version.
    #[must_use]
    pub const fn version(version: VersionId) -> Self {
        Self { kind: Self::VERSION, id: version.0 }
    }

    /// Returns the version, if the subject is one.
    #[must_use]
    pub const fn as_version(&self) -> Option<VersionId> {
        if self.kind == Self::VERSION { Some(VersionId(self.id)) } else { None }
    }
}

impl Notice {
    /// Returns a notice about a version.
    #[must_use]
    pub fn about_version(version: VersionId, serial: u64, terms: &Terms) -> Self {
        // terms are far shorter than a body may be
        let body = Blob::new(terms.to_bytes()).unwrap_or_default();
        Self { subject: Subject::version(version), serial, body }
    }

    /// Returns subject and serial number.
    #[must_use]
    pub const fn known(&self) -> Known {
        Known { subject: self.subject, serial: self.serial }
    }

    /// Returns the version and its terms, if the notice is about a version.
    #[must_use]
    pub fn terms(&self) -> Option<(VersionId, Terms)> {
        Some((self.subject.as_version()?, Terms::from_bytes(&self.body).ok()?))
    }
}

impl Ord for Subject {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.kind, &self.id).cmp(&(other.kind, &other.id))
    }
}

impl PartialOrd for Subject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
