//! Signed notices: how the statements of an operator or provider reach the clients that they concern.
//!
//! A notice has a subject and a serial number that only grows ([`crate::wire::notice`]). Edges make notices and sign
//! them; CNs learn them from edges. [`Server`] is the CN's side: it keeps the newest notice about each subject, tells
//! every session which subjects have changed, and sends a notice to those that hold the subject until they
//! acknowledge it. [`Holder`] is the client's side: it takes only newer notices with a valid signature, and
//! acknowledges them once they are durable. After each login a client reports what it has, so a notice that was
//! missed is sent then.

mod holder;
pub mod server;
#[cfg(test)]
mod tests;

pub use holder::{Holder, Received};
pub use server::Server;

use crate::accounting::Trust;
use crate::ids::Signature;
use crate::wire::notice::{Known, Notice, SignedNotice, Subject};
use crate::wire::records::{ServerCert, ServerRole, SigningContext};
use crate::wire::{Blob, Wire as _};

/// Reasons to refuse a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeError {
    /// No server certified by the operator's root has signed exactly this notice while its certificate was valid.
    NotVouchedFor,
    /// The bytes are no notice, or one of a kind that this version does not know.
    Unknown,
    /// The client has nothing to which the subject applies, such as a copy of the version.
    NotHeld,
    /// The receiver has this notice or a newer one about the subject already.
    Old,
}

/// Returns the role whose servers sign notices of a kind; `None` for an unknown kind.
const fn signer(kind: u8) -> Option<ServerRole> {
    match kind {
        Subject::VERSION => Some(ServerRole::Edge),
        _ => None,
    }
}

/// Checks a notice's certificate and signature at `now_ms` (Unix milliseconds), and that its statement can be read.
pub fn check(trust: &Trust, now_ms: u64, signed: &SignedNotice) -> Result<Notice, NoticeError> {
    let notice = Notice::from_bytes(&signed.notice).map_err(|_| NoticeError::Unknown)?;
    let role = signer(notice.subject.kind).ok_or(NoticeError::Unknown)?;
    let signature = (SigningContext::Notice, &signed.notice[..], &signed.signature);
    trust.check_signed(&signed.cert, role, now_ms, signature).map_err(|_| NoticeError::NotVouchedFor)?;
    if notice.serial == 0 || notice.terms().is_none() {
        return Err(NoticeError::Unknown);
    }
    Ok(notice)
}

/// Returns a notice with the signature that `sign` makes of its bytes.
pub fn sign(notice: &Notice, cert: ServerCert, sign: impl FnOnce(&[u8]) -> Signature) -> SignedNotice {
    // the encoding of the longest body fits
    let notice = Blob::new(notice.to_bytes()).unwrap_or_default();
    let signature = sign(&notice);
    SignedNotice { notice, signature, cert }
}
