//! Holder's tickets: whose copies of a version a CN lets DNs offer to others.
//!
//! An edge gives a ticket with each grant. It names the client and the version, so that it is of no use to any other
//! client, and it outlives the grant, so that a holder may share for as long as the provider's policy lets it.

use super::certs::KnownCerts;
use super::grants::SKEW_MS;
use super::{CertError, Trust};
use crate::content::Policy;
use crate::wire::Wire as _;
use crate::wire::notice::Terms;
use crate::wire::records::{HolderTicket, ServerRole, SignedHolderTicket, SigningContext};

/// Reason for not accepting a holder's ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TicketError {
    /// The edge's certificate or its signature is not valid.
    Chain(CertError),
    /// The time of issue is in the future.
    Time,
}

/// Checks that an edge has issued a ticket. Its certificate must be valid at the time of issue, not at `now_ms` (Unix
/// milliseconds), since a copy may outlive the certificate.
pub fn check(
    trust: &Trust,
    known: &mut KnownCerts,
    signed: &SignedHolderTicket,
    now_ms: u64,
) -> Result<(), TicketError> {
    let issued_ms = signed.ticket.issued_ms;
    if issued_ms > now_ms.saturating_add(SKEW_MS) {
        return Err(TicketError::Time);
    }
    let (context, message) = (SigningContext::HolderTicket, signed.ticket.to_bytes());
    trust
        .check_cert_once(known, &signed.cert, ServerRole::Edge, issued_ms)
        .and_then(|()| trust.check_signature(&signed.cert.body.key, context, &message, &signed.signature))
        .map_err(TicketError::Chain)
}

/// Returns whether a ticket's version may be shared at `now_ms`, Unix milliseconds. `newest`: the newest notice about
/// the version, if there is one, with its serial number. A notice replaces the policy that the ticket was issued under,
/// unless the ticket is newer; a version that is withdrawn, or that peers may not exchange, is not shared.
#[must_use]
pub fn is_in_force(ticket: &HolderTicket, newest: Option<(u64, &Terms)>, now_ms: u64) -> bool {
    let until_ms = match newest.filter(|(serial, _)| *serial >= ticket.policy_serial) {
        None => ticket.until_ms,
        Some((_, Terms::Withdrawn)) => return false,
        Some((_, Terms::Policy(Policy { peer_download, peer_upload, expires_ms, .. }))) => {
            if !*peer_download || !*peer_upload {
                return false;
            }
            *expires_ms
        }
    };
    until_ms == 0 || now_ms < until_ms
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::certs::tests::{cert, fake_sign, trust};
    use super::*;
    use crate::ids::{Guid, ProviderId, PublicKey, VersionId};
    use crate::wire::records::ServerCert;

    const NOW: u64 = 2_000_000;
    pub(crate) const EDGE_KEY: PublicKey = PublicKey([0xed; 32]);

    fn ticket() -> HolderTicket {
        let (guid, version) = (Guid::numbered(1), VersionId::numbered(2));
        HolderTicket { guid, version, provider: ProviderId(3), policy_serial: 5, issued_ms: NOW, until_ms: 0 }
    }

    fn signed_by(cert: ServerCert, ticket: HolderTicket) -> SignedHolderTicket {
        let signature = fake_sign(&cert.body.key, SigningContext::HolderTicket, &ticket.to_bytes());
        SignedHolderTicket { ticket, signature, cert }
    }

    /// Returns a ticket with an edge's signature.
    pub(crate) fn signed(ticket: HolderTicket) -> SignedHolderTicket {
        signed_by(cert(ServerRole::Edge, EDGE_KEY), ticket)
    }

    /// Returns a valid ticket of a client for a version, issued at this time.
    pub(crate) fn ticket_of(guid: Guid, version: VersionId, issued_ms: u64) -> SignedHolderTicket {
        signed(HolderTicket { guid, version, policy_serial: 0, issued_ms, ..ticket() })
    }

    fn check(trust: &Trust, signed: &SignedHolderTicket, now_ms: u64) -> Result<(), TicketError> {
        super::check(trust, &mut KnownCerts::default(), signed, now_ms)
    }

    #[test]
    fn only_an_edges_ticket_is_accepted_and_only_unchanged() {
        assert_eq!(check(&trust(), &signed(ticket()), NOW), Ok(()));
        let changes: [fn(&mut HolderTicket); 6] = [
            |t| t.guid = Guid::numbered(9),
            |t| t.version = VersionId::numbered(9),
            |t| t.provider = ProviderId(9),
            |t| t.policy_serial += 1,
            |t| t.issued_ms -= 1,
            |t| t.until_ms += 1,
        ];
        for change in changes {
            let mut forged = signed(ticket());
            change(&mut forged.ticket);
            assert_eq!(check(&trust(), &forged, NOW), Err(TicketError::Chain(CertError::Signature)));
        }
        let of_a_cn = signed_by(cert(ServerRole::Cn, EDGE_KEY), ticket());
        assert_eq!(check(&trust(), &of_a_cn, NOW), Err(TicketError::Chain(CertError::Role)));
        let mut stranger = cert(ServerRole::Edge, EDGE_KEY);
        stranger.body.key = PublicKey::numbered(8);
        assert_eq!(check(&trust(), &signed_by(stranger, ticket()), NOW), Err(TicketError::Chain(CertError::Signature)));
    }

    #[test]
    fn a_ticket_outlives_its_edges_certificate_but_is_not_issued_after_it() {
        let at = |issued_ms| signed(HolderTicket { issued_ms, ..ticket() });
        let cert_ends_ms = 1_000_000_000;
        assert_eq!(check(&trust(), &at(cert_ends_ms - 1), 9 * cert_ends_ms), Ok(()));
        let late = check(&trust(), &at(cert_ends_ms), 9 * cert_ends_ms);
        assert_eq!(late, Err(TicketError::Chain(CertError::Time)));
        assert_eq!(check(&trust(), &at(NOW + SKEW_MS), NOW), Ok(()));
        assert_eq!(check(&trust(), &at(NOW + SKEW_MS + 1), NOW), Err(TicketError::Time));
    }

    #[test]
    fn a_ticket_ends_with_the_policy_and_with_nothing_else() {
        let until = |until_ms| HolderTicket { until_ms, ..ticket() };
        assert!(is_in_force(&until(0), None, u64::MAX));
        assert!(is_in_force(&until(NOW + 1), None, NOW) && !is_in_force(&until(NOW), None, NOW));
        let policy = |expires_ms| Terms::Policy(Policy { expires_ms, ..Policy::default() });
        for serial in [5, 6] {
            assert!(is_in_force(&until(NOW), Some((serial, &policy(0))), NOW), "a newer notice takes the end back");
            assert!(is_in_force(&until(NOW), Some((serial, &policy(NOW + 1))), NOW));
            assert!(!is_in_force(&until(0), Some((serial, &policy(NOW))), NOW), "a newer notice sets an end");
            assert!(!is_in_force(&until(0), Some((serial, &Terms::Withdrawn)), NOW));
            for (peer_download, peer_upload) in [(false, true), (true, false)] {
                let forbidden = Terms::Policy(Policy { peer_download, peer_upload, ..Policy::default() });
                assert!(!is_in_force(&until(0), Some((serial, &forbidden)), NOW));
            }
        }
        // the ticket was issued under a newer policy than that of this notice
        assert!(is_in_force(&until(0), Some((4, &Terms::Withdrawn)), NOW));
        assert!(!is_in_force(&until(NOW), Some((4, &policy(0))), NOW));
    }
}
