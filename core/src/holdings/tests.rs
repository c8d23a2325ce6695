//! The table against a naive one, at, under and beyond its bounds.

use super::{Amount, Bound, Holding, Holdings, Limits, Room};
use crate::bench::assert_each_clause_fires;
use crate::machine::Time;
use crate::selection::locality::prefix;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use proptest::prelude::*;

type Table = Holdings<u32, u8>;

/// Returns the n-th /24.
fn net(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, n, 0))
}

fn held(of: u8, key: u8, bytes: u64, turn: u64) -> Holding<u8> {
    Holding { prefix: net(of), key, bytes, turn: (0, Time(turn)), kept: false }
}

const SMALL: Limits = Limits {
    total: Amount { items: 12, bytes: 60 },
    prefix: Amount { items: 7, bytes: 40 },
    key: Amount { items: 5, bytes: 30 },
};

/// Table without indexes that applies the rules of [`Holdings`] by walking over all entries.
#[derive(Default)]
struct Naive(BTreeMap<u32, Holding<u8>>);

impl Naive {
    fn sum(&self, of: impl Fn(&Holding<u8>) -> bool) -> Amount {
        let mine = || self.0.values().filter(|h| of(h));
        Amount { items: mine().count() as u64, bytes: mine().map(|h| h.bytes).sum() }
    }

    fn first(&self, of: impl Fn(&Holding<u8>) -> bool) -> Option<u32> {
        let loose = self.0.iter().filter(|(_, h)| !h.kept && of(h));
        loose.min_by_key(|(id, h)| (h.turn, **id)).map(|(id, _)| *id)
    }

    fn loose(&self, net: IpAddr) -> u64 {
        self.sum(|h| h.prefix == net && !h.kept).bytes
    }

    fn ask(&self, limits: &Limits, (net, key): (IpAddr, u8), more: Amount) -> Room<u32> {
        let over =
            |held: Amount, most: Amount| held.items + more.items > most.items || held.bytes + more.bytes > most.bytes;
        let instead = |first: Option<u32>, bound| first.map_or(Room::Full(bound), Room::InPlaceOf);
        if over(self.sum(|h| h.key == key), limits.key) {
            return instead(self.first(|h| h.key == key), Bound::Key);
        }
        if over(self.sum(|h| h.prefix == net), limits.prefix) {
            return instead(self.first(|h| h.prefix == net), Bound::Prefix);
        }
        if !over(self.sum(|_| true), limits.total) {
            return Room::Free;
        }
        // the idlest of those networks that have most, if that is more than the newcomer's own
        let most = self.0.values().map(|h| self.loose(h.prefix)).max().unwrap_or(0);
        let rich =
            |h: &Holding<u8>| if most > self.loose(net) { self.loose(h.prefix) == most } else { h.prefix == net };
        let turn = self.first(rich).and_then(|id| self.0.get(&id)).map(|h| h.turn);
        // of several networks with one turn the last by address
        let of = self.0.values().filter(|h| rich(h) && !h.kept && Some(h.turn) == turn).map(|h| h.prefix).max();
        instead(of.and_then(|of| self.first(|h| h.prefix == of)), Bound::Total)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enter(Holding<u8>),
    Leave(u32),
    Use(u32),
    Keep(u32, bool),
    Resize(u32, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0_u32..600;
    prop_oneof![
        6 => (0_u8..6, 0_u8..5, 1_u64..12, 0_u64..3).prop_map(|(n, k, bytes, turn)| Op::Enter(held(n, k, bytes, turn))),
        1 => id.clone().prop_map(Op::Leave),
        1 => id.clone().prop_map(Op::Use),
        1 => (id.clone(), any::<bool>()).prop_map(|(id, kept)| Op::Keep(id, kept)),
        1 => (id, 1_u64..12).prop_map(|(id, bytes)| Op::Resize(id, bytes)),
    ]
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(64))]

    #[test]
    fn the_table_decides_as_a_naive_one_does(ops in prop::collection::vec(op(), 0..400)) {
        let (mut table, mut naive) = (Table::default(), Naive::default());
        for (n, op) in (0_u32..).zip(ops) {
            let pick = |id: u32| naive.0.keys().nth(id as usize % naive.0.len().max(1)).copied();
            match op {
                Op::Enter(new) => {
                    let (who, more) = ((new.prefix, new.key), Amount::one(new.bytes));
                    let new = Holding { turn: (new.turn.0, Time(u64::from(n) / 3 + new.turn.1.0)), ..new };
                    let room = loop {
                        let room = table.ask(&SMALL, who, more);
                        prop_assert_eq!(room, naive.ask(&SMALL, who, more));
                        let Room::InPlaceOf(loser) = room else { break room };
                        let gone = table.take(loser);
                        prop_assert_eq!(gone, naive.0.remove(&loser));
                        prop_assert!(gone.is_some_and(|h| !h.kept), "who is served never goes");
                    };
                    if room == Room::Free {
                        table.put(n, new);
                        naive.0.insert(n, new);
                    }
                }
                Op::Leave(id) => if let Some(id) = pick(id) {
                    prop_assert_eq!(table.take(id), naive.0.remove(&id));
                },
                Op::Use(id) => if let Some(id) = pick(id) {
                    table.change(id, |h| h.turn.1 = Time(u64::from(n) / 3));
                    naive.0.get_mut(&id).expect("held").turn.1 = Time(u64::from(n) / 3);
                },
                Op::Keep(id, kept) => if let Some(id) = pick(id) {
                    table.change(id, |h| h.kept = kept);
                    naive.0.get_mut(&id).expect("held").kept = kept;
                },
                Op::Resize(id, bytes) => if let Some(id) = pick(id) {
                    let old = naive.0.get_mut(&id).expect("held");
                    old.bytes = old.bytes.min(bytes);
                    table.change(id, |h| h.bytes = h.bytes.min(bytes));
                },
            }
            table.check();
            prop_assert_eq!(table.all(), naive.sum(|_| true));
            prop_assert!(table.all().items <= SMALL.total.items && table.all().bytes <= SMALL.total.bytes);
        }
    }
}

/// Lets a newcomer in, and returns what went for it.
fn enter(table: &mut Table, limits: &Limits, id: u32, new: Holding<u8>) -> Result<Vec<u32>, Bound> {
    let mut gone = Vec::new();
    loop {
        match table.ask(limits, (new.prefix, new.key), Amount::one(new.bytes)) {
            Room::Free => break,
            Room::InPlaceOf(loser) => {
                table.take(loser);
                gone.push(loser);
            }
            Room::Full(bound) => return Err(bound),
        }
    }
    table.put(id, new);
    Ok(gone)
}

const fn count(total: u64, prefix: u64) -> Limits {
    let (total, prefix) = (Amount { items: total, bytes: u64::MAX }, Amount { items: prefix, bytes: u64::MAX });
    Limits { total, prefix, key: Amount::UNLIMITED }
}

#[test]
fn a_network_that_fills_the_table_pushes_out_its_own() {
    let (mut table, limits) = (Table::default(), count(8, 8));
    let mut at = 0;
    let mut next = |of| {
        at += 1;
        (at, held(of, of, 1, u64::from(at)))
    };
    for of in [1, 1, 2] {
        let (id, new) = next(of);
        assert_eq!(enter(&mut table, &limits, id, new), Ok(Vec::new()));
    }
    for _ in 0..100 {
        let (id, new) = next(9);
        enter(&mut table, &limits, id, new).expect("room in place of its own");
    }
    for id in 1..=3 {
        assert!(table.get(id).is_some(), "an older holding of a network with few stays");
    }
    let (id, new) = next(7);
    assert_eq!(enter(&mut table, &limits, id, new), Ok([id - 5].into()), "the idlest of the richest network");
    table.check();
}

#[test]
fn where_all_are_served_the_newcomer_is_refused() {
    let (mut table, limits) = (Table::default(), count(4, 3));
    for id in 0..3 {
        enter(&mut table, &limits, id, Holding { kept: true, ..held(1, 1, 1, 0) }).expect("room");
    }
    assert_eq!(enter(&mut table, &limits, 8, held(1, 1, 1, 0)), Err(Bound::Prefix), "others have room");
    assert_eq!(enter(&mut table, &limits, 9, Holding { kept: true, ..held(2, 2, 1, 0) }), Ok(Vec::new()));
    assert_eq!(enter(&mut table, &limits, 10, held(3, 3, 1, 0)), Err(Bound::Total));
    table.change(1, |h| h.kept = false);
    assert_eq!(enter(&mut table, &limits, 10, held(3, 3, 1, 0)), Ok([1].into()));
}

#[test]
fn a_newcomer_takes_nothing_from_a_network_with_less() {
    let (mut table, limits) = (Table::default(), count(4, 4));
    for id in 0..3 {
        enter(&mut table, &limits, id, held(1, 1, 1, 50)).expect("room");
    }
    enter(&mut table, &limits, 3, held(2, 2, 1, 0)).expect("room");
    assert_eq!(enter(&mut table, &limits, 4, held(1, 1, 1, 60)), Ok([0].into()), "though the other one is idler");
}

#[test]
fn times_are_shifted_and_the_order_stays() {
    let mut table = Table::default();
    table.put(1, held(1, 1, 1, 3_000_000));
    table.put(2, held(1, 1, 1, 2_000_000));
    table.rebase(Duration::from_secs(1));
    table.check();
    assert_eq!(table.get(1).map(|h| h.turn), Some((0, Time(2_000_000))));
    assert_eq!(table.ask(&count(2, 2), (net(1), 1), Amount::one(1)), Room::InPlaceOf(2));
}

#[test]
fn addresses_of_one_network_share_its_bound() {
    let of = |text: &str| prefix(text.parse().expect("an address"));
    assert_eq!(of("192.0.2.7"), of("192.0.2.250"));
    assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::1"));
    assert_ne!(of("2001:db8:1::3"), of("2001:db8:2::3"));
}

#[test]
fn each_clause_about_holdings_fires() {
    let mut healthy = Table::default();
    healthy.put(1, held(1, 1, 5, 7));
    healthy.put(2, Holding { kept: true, ..held(2, 2, 5, 7) });
    assert_each_clause_fires(
        &healthy,
        Table::check,
        &[
            ("the sum is that of the holdings", |t| t.all.items += 1),
            ("each holding costs something", |t| {
                let h = t.holdings.get_mut(&1).expect("held");
                t.all.bytes -= core::mem::take(&mut h.bytes);
            }),
            ("a network has the sum and the turns of its holdings", |t| {
                t.prefixes.get_mut(&net(1)).expect("held").loose += 1;
            }),
            ("only networks with holdings are listed", |t| _ = t.prefixes.insert(net(9), super::Group::new())),
            ("a key has the sum and the turns of its holdings", |t| t.keys.get_mut(&1).expect("held").turns.clear()),
            ("only keys with holdings are listed", |t| _ = t.keys.insert(9, super::Group::new())),
            ("networks are ranked by what can go", |t| t.ranks.clear()),
        ],
    );
}
