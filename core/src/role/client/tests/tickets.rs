//! Tests of the holder's tickets that stay with copies.

use super::FAST;
use super::world::{MIB, World};
use crate::accounting::tickets::tests::ticket_of;
use crate::ids::Guid;
use crate::role::client::Input;
use crate::role::client::io::{CommandKind, DownloadState, Notice};
use crate::wire::List;
use crate::wire::control::{TicketsRefused, ToClient, ToCn};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the times of issue of the tickets shown to the CN, from message number `from`.
fn shown(world: &World, from: usize) -> Vec<u64> {
    let page = |m: &ToCn| if let ToCn::Inventory(page) = m { page.add.to_vec() } else { Vec::new() };
    world.sent[from..].iter().flat_map(page).map(|held| held.ticket.issued_ms).collect()
}

#[test]
fn a_ticket_stays_with_the_copy_after_its_grant_and_its_download() {
    let mut world = World::with_peers(MIB, &[]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(HOUR);
    let before = shown(&world, 0);
    assert!(!before.is_empty() && world.grant_ms < 3_600_000, "the grant has expired");
    world.command(CommandKind::Cancel(handle));
    world.run_for(Duration::from_secs(1));
    assert!(world.disk.downloads.is_empty(), "only the copy is left");
    world.crash();
    let from = world.sent.len();
    world.run_for(Duration::from_secs(5));
    assert_eq!(shown(&world, from), before[..1], "shown at the next start");
}

#[test]
fn without_a_ticket_nothing_is_announced_and_a_renewal_may_bring_one() {
    let mut world = World::with_peers(200 * MIB, &[]);
    (world.gives_tickets, world.grant_ms, world.edge_rate) = (false, 60_000, 1_000_000);
    world.get();
    world.run_for(Duration::from_secs(20));
    assert!(world.client.uploads().offers(&world.version) && shown(&world, 0).is_empty());
    world.gives_tickets = true;
    world.run_for(Duration::from_secs(60));
    assert!(world.renewals > 0 && shown(&world, 0).len() == 1, "{:?}", shown(&world, 0));
}

#[test]
fn a_ticket_in_the_name_of_another_client_is_not_shown() {
    for guid in [Guid::numbered(7), World::new(MIB).cfg.identity.guid] {
        let mut world = World::with_peers(MIB, &[]);
        let handle = world.get();
        world.run_until(handle, DownloadState::Completed);
        world.command(CommandKind::Cancel(handle));
        world.run_for(Duration::from_secs(1));
        let terms = world.disk.terms.get_mut(&world.version).expect("the copy's terms");
        terms.ticket = Some(Box::new(ticket_of(guid, world.version, 1)));
        world.crash();
        let from = world.sent.len();
        world.run_for(Duration::from_secs(5));
        assert_eq!(shown(&world, from).is_empty(), guid == Guid::numbered(7));
    }
}

#[test]
fn the_user_is_told_which_copies_the_cn_does_not_offer() {
    let mut world = World::with_peers(MIB, &[FAST]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(1));
    let refused = TicketsRefused { versions: List::truncated([world.version]) };
    let conn = world.sent_on.expect("a session");
    for _ in 0..2 {
        world.input(Input::Control { conn, msg: ToClient::TicketsRefused(refused.clone()) });
    }
    let told = world.notices.iter().filter(|n| matches!(n, Notice::TicketsRefused(_))).collect::<Vec<_>>();
    assert_eq!(told, [&Notice::TicketsRefused(vec![world.version])]);
}
