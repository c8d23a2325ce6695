//! What networks give to one another: for ISPs, whose peerings carry it.

use super::day::Day;
use super::places::Spot;
use super::rollup;
use super::usage::Reader;
use serde::Serialize;
use std::collections::BTreeMap;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::Error;

/// The traffic of peers among networks, over a span of days; what was billed, to the byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// Of one provider's downloads only.
    pub provider: Option<u32>,
    /// All bytes that peers delivered.
    pub peer_bytes: u64,
    /// Of these, within one network.
    pub inside_bytes: u64,
    /// Each network, most bytes first.
    pub networks: Vec<Network>,
    /// From which network to which other, or within one; most bytes first.
    pub flows: Vec<Flow>,
}

/// A network's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// `AS64500`, or `unknown`.
    pub name: String,
    /// Countries that its clients are in.
    pub countries: Vec<String>,
    /// From its clients to those of others.
    pub sent_bytes: u64,
    /// To its clients from those of others.
    pub received_bytes: u64,
    /// Among its own.
    pub inside_bytes: u64,
    /// From edges to its clients.
    pub edge_bytes: u64,
}

/// Bytes from peers of one network to those of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// The uploaders' network.
    pub from: String,
    /// The downloaders'.
    pub to: String,
    /// How many.
    pub bytes: u64,
}

#[derive(Default)]
struct Sums {
    networks: BTreeMap<Option<u32>, Network>,
    flows: BTreeMap<(Spot, Spot), u64>,
}

impl Reader {
    /// What networks have given to one another from one day to another, both included.
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

    /// The first and the last day with any download.
    pub async fn days_of_all(&mut self) -> Result<Option<(Day, Day)>, Error> {
        let row: Result<(Option<i64>, Option<i64>), _> =
            sqlx::query_as("SELECT MIN(day), MAX(day) FROM download").fetch_one(&mut self.db.any).await;
        let (first, last) = row.map_err(|e| self.failed(&e))?;
        Ok(first.zip(last).map(|(first, last)| (Day::from_sql(first), Day::from_sql(last))))
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
            // two networks that are not known are not known to be one
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
