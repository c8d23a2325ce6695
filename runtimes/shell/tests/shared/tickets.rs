//! Tests of holder's tickets: a CN offers a client's copy to others only if an edge has granted it to that client.

use super::{Client, Net, R, VERSION, run, unix_ms};
use std::time::Duration;
use swarmedge_core::wire::List;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::control::{Held, Inventory, Query, QueryError, ToClient, ToCn};
use swarmedge_core::wire::records::{HolderTicket, ServerRole, SignedHolderTicket, SigningContext};
use swarmedge_ground::rt::Start;

/// Returns a whole inventory of the one version to which the ticket belongs.
pub(super) fn inventory(seq: u64, ticket: &SignedHolderTicket) -> ToCn {
    let (certs, add) = (List::truncated([ticket.cert.clone()]), List::truncated([Held::new(true, ticket, 0)]));
    ToCn::Inventory(Inventory { seq, reset: true, last: true, certs, add, remove: List::default() })
}

impl<R: Start> Net<R> {
    /// Returns the ticket that the edge gives to a client with its grant.
    pub(super) fn ticket(&self, client: &Client) -> SignedHolderTicket {
        let ticket = HolderTicket::of(&self.grant(client).grant, 0);
        let cert = self.certify(ServerRole::Edge, "edge", &self.edge);
        let signature = self.edge.sign(SigningContext::HolderTicket, &ticket.to_bytes());
        SignedHolderTicket { ticket, signature, cert }
    }

    /// Returns the answer to a client's query for peers. Queries again, with growing waits, while that fails for `why`.
    async fn answered(&self, client: &mut Client, why: QueryError) -> ToClient {
        let mut wait = Duration::from_millis(50);
        loop {
            let grant = self.seal.seal(&self.grant(client));
            client.send(&ToCn::Query(Query { query: 1, grant, want: 5, exclude: List::default() }));
            match client.next().await.expect("an answer") {
                ToClient::QueryFailed(failed) if failed.why == why => {}
                answer => return answer,
            }
            self.rt.sleep_until(self.rt.now() + wait).await;
            wait *= 2;
        }
    }
}

#[test]
fn a_copy_without_the_clients_own_ticket_is_offered_to_nobody() {
    run::<R, _>(|net| async move {
        let cn = net.control_plane().await;
        let mut claimant = net.client(cn, 1).await;
        let mut other = net.client(cn, 2).await;
        let mut changed = net.ticket(&claimant);
        changed.ticket.until_ms = unix_ms() + 1_000_000;
        for (seq, false_ticket) in (1..).zip([net.ticket(&other), changed]) {
            claimant.send(&inventory(seq, &false_ticket));
            let told = claimant.next().await;
            let Some(ToClient::TicketsRefused(refused)) = told else { panic!("{told:?}") };
            assert_eq!(refused.versions.to_vec(), [VERSION]);
        }
        // the CN may not have reached the DN yet
        let answer = net.answered(&mut other, QueryError::Unavailable).await;
        assert!(matches!(&answer, ToClient::QueryFailed(failed) if failed.why == QueryError::NotShared), "{answer:?}");
        claimant.send(&inventory(3, &net.ticket(&claimant)));
        let answer = net.answered(&mut other, QueryError::NotShared).await;
        assert!(matches!(&answer, ToClient::Introductions(found) if found.peers.len() == 1), "{answer:?}");
    });
}
