//! Peer traffic between networks (ASes), for ISPs whose peerings carry it.

use super::columns::span_at;
use super::day::Day;
use super::places::Spot;
use super::reader::Reader;
use super::rollup;
use serde::Serialize;
use std::collections::BTreeMap;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::Error;

/// Billed peer traffic between networks over a span of days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// First day of the span.
    pub from: String,
    /// Last day of the span, included.
    pub to: String,
    /// The provider whose downloads are counted; `None` for all.
    pub provider: Option<u32>,
    /// Bytes that peers delivered.
    pub peer_bytes: u64,
    /// Bytes that peers delivered within one network.
    pub inside_bytes: u64,
    /// Networks, most bytes first.
    pub networks: Vec<Network>,
    /// Traffic between two networks or within one, most bytes first.
    pub flows: Vec<Flow>,
}

/// Traffic of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Name of the network: `AS64500`, or `unknown`.
    pub name: String,
    /// Countries of the network's clients.
    pub countries: Vec<String>,
    /// Bytes from its clients to clients of other networks.
    pub sent_bytes: u64,
    /// Bytes to its clients from clients of other networks.
    pub received_bytes: u64,
    /// Bytes between its own clients.
    pub inside_bytes: u64,
    /// Bytes from edges to its clients.
    pub edge_bytes: u64,
}

/// Bytes from peers of one network to those of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Network of the uploaders.
    pub from: String,
    /// Network of the downloaders.
    pub to: String,
    /// Bytes sent from `from` to `to`.
    pub bytes: u64,
}

#[derive(Default)]
struct Sums {
    networks: BTreeMap<Option<u32>, Network>,
    flows: BTreeMap<(Spot, Spot), u64>,
}

impl Reader {
    /// Computes the balance of networks from one day to another, both included.
    pub async fn balance(&mut self, provider: Option<ProviderId>, from: Day, to: Day) -> Result<Balance, Error> {
        let mut sums = Sums::default();
        let read = rollup::read(&mut self.db, provider, (from, to), |_, _, rollup| {
            for (spot, of) in &rollup.spots {
                let network = sums.network(*spot);
                network.edge_bytes = network.edge_bytes.saturating_add(of.edge_bytes);
            }
            for (flow, bytes) in rollup.flows {
                let sum = sums.flows.entry(flow).or_default();
                *sum = sum.saturating_add(bytes);
            }
        });
        read.await.map_err(|e| self.failed(&e))?;
        Ok(sums.balance(provider, from, to))
    }

    /// Returns the first and the last day with any download.
    pub async fn days_of_all(&mut self) -> Result<Option<(Day, Day)>, Error> {
        let row = sqlx::query("SELECT MIN(day), MAX(day) FROM download").fetch_one(&mut self.db.any).await;
        row.and_then(|row| span_at(&row)).map_err(|e| self.failed(&e))
    }
}

impl Sums {
    fn network(&mut self, spot: Spot) -> &mut Network {
        let network = self.networks.entry(spot.asn()).or_default();
        let country = spot.country();
        if let Err(at) = network.countries.binary_search(&country) {
            network.countries.insert(at, country);
        }
        network
    }

    fn balance(mut self, provider: Option<ProviderId>, from: Day, to: Day) -> Balance {
        let (mut peer_bytes, mut inside_bytes) = (0_u64, 0_u64);
        let mut flows: BTreeMap<(Option<u32>, Option<u32>), u64> = BTreeMap::new();
        for ((uploaders, downloaders), bytes) in std::mem::take(&mut self.flows) {
            peer_bytes = peer_bytes.saturating_add(bytes);
            let sum = flows.entry((uploaders.asn(), downloaders.asn())).or_default();
            *sum = sum.saturating_add(bytes);
            // two unknown networks need not be the same one
            if uploaders.asn().is_some() && uploaders.asn() == downloaders.asn() {
                inside_bytes = inside_bytes.saturating_add(bytes);
                for spot in [uploaders, downloaders] {
                    self.network(spot);
                }
                let inside = &mut self.network(uploaders).inside_bytes;
                *inside = inside.saturating_add(bytes);
                continue;
            }
            let sent = &mut self.network(uploaders).sent_bytes;
            *sent = sent.saturating_add(bytes);
            let received = &mut self.network(downloaders).received_bytes;
            *received = received.saturating_add(bytes);
        }
        let name = |asn: Option<u32>| asn.map_or_else(|| "unknown".into(), |asn| format!("AS{asn}"));
        let mut networks: Vec<Network> =
            self.networks.into_iter().map(|(asn, network)| Network { name: name(asn), ..network }).collect();
        networks.sort_by_key(|n| {
            std::cmp::Reverse(n.sent_bytes.saturating_add(n.received_bytes).saturating_add(n.inside_bytes))
        });
        let flow = |((from, to), bytes)| Flow { from: name(from), to: name(to), bytes };
        let mut flows: Vec<Flow> = flows.into_iter().map(flow).collect();
        flows.sort_by_key(|f| std::cmp::Reverse(f.bytes));
        let provider = provider.map(|p| p.0);
        Balance { from: from.to_string(), to: to.to_string(), provider, peer_bytes, inside_bytes, networks, flows }
    }
}
