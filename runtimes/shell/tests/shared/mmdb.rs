//! Writes small geolocation databases (MaxMind DB file format 2.0), with only the features that tests need.

use std::net::IpAddr;

/// Data of one address prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// Codes of the country and the continent.
    pub(crate) country: Option<(&'static str, &'static str)>,
    /// Latitude and longitude in degrees.
    pub(crate) at: Option<(f64, f64)>,
    /// Number of the autonomous system.
    pub(crate) asn: Option<u32>,
}

/// Returns an entry of a country database.
pub(crate) fn country(code: &'static str, continent: &'static str) -> Entry {
    Entry { country: Some((code, continent)), ..Entry::default() }
}

/// Returns an entry of a network (ASN) database.
pub(crate) fn network(asn: u32) -> Entry {
    Entry { asn: Some(asn), ..Entry::default() }
}

/// Bytes between the search tree and the data section.
const SEPARATOR: usize = 16;

#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    /// Leaf with this offset in the data section.
    Data(usize),
}

/// Returns the bytes of a database file. For an address, the entry with the longest prefix counts, whatever the order.
pub(crate) fn of(entries: &[(&str, Entry)]) -> Vec<u8> {
    let mut entries: Vec<(u128, u8, Entry)> = entries.iter().map(|(text, entry)| prefix(text, *entry)).collect();
    entries.sort_by_key(|(_, len, _)| *len);
    let (mut nodes, mut data) = (vec![[Branch::Nothing; 2]], Vec::new());
    for (bits, len, entry) in entries {
        let offset = data.len();
        write_entry(&mut data, &entry);
        insert(&mut nodes, bits, len, offset);
    }
    let mut file = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => nodes.len(),
            Branch::Node(node) => *node,
            Branch::Data(offset) => nodes.len() + SEPARATOR + offset,
        };
        file.extend_from_slice(&u32::try_from(record).expect("small").to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; SEPARATOR]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, nodes.len());
    file
}

/// Parses a prefix; IPv4 addresses are mapped into `::/96`.
fn prefix(text: &str, entry: Entry) -> (u128, u8, Entry) {
    let (addr, len) = text.split_once('/').expect("a prefix");
    let len: u8 = len.parse().expect("a length");
    match addr.parse().expect("an address") {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()), len + 96, entry),
        IpAddr::V6(addr) => (addr.to_bits(), len, entry),
    }
}

fn insert(nodes: &mut Vec<[Branch; 2]>, bits: u128, len: u8, offset: usize) {
    let mut node = 0;
    for depth in 0..len {
        let side = usize::from(bits >> (127 - depth) & 1 == 1);
        let branch = nodes[node][side];
        if depth + 1 == len {
            nodes[node][side] = Branch::Data(offset);
            return;
        }
        node = match branch {
            Branch::Node(next) => next,
            shorter @ (Branch::Nothing | Branch::Data(_)) => {
                nodes.push([shorter; 2]);
                nodes[node][side] = Branch::Node(nodes.len() - 1);
                nodes.len() - 1
            }
        };
    }
}

/// Type numbers of the format that fit into one byte; later types take two.
const TEXT: u8 = 2;
const DOUBLE: u8 = 3;
const UINT16: u8 = 5;
const UINT32: u8 = 6;
const MAP: u8 = 7;
const UINT64: u8 = 9;
const ARRAY: u8 = 11;

fn control(out: &mut Vec<u8>, kind: u8, len: usize) {
    let len = u8::try_from(len).ok().filter(|len| *len < 29).expect("short");
    if kind <= MAP {
        out.push(kind << 5 | len);
    } else {
        out.extend([len, kind - MAP]);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    control(out, TEXT, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, key: &str, bytes: &[u8]) {
    text(out, key);
    control(out, kind, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    let parts = [entry.country.is_some(), entry.country.is_some(), entry.at.is_some(), entry.asn.is_some()];
    control(out, MAP, parts.into_iter().filter(|there| *there).count());
    if let Some((country, continent)) = entry.country {
        for (key, field, code) in [("country", "iso_code", country), ("continent", "code", continent)] {
            text(out, key);
            control(out, MAP, 1);
            text(out, field);
            text(out, code);
        }
    }
    if let Some((latitude, longitude)) = entry.at {
        text(out, "location");
        control(out, MAP, 2);
        number(out, DOUBLE, "latitude", &latitude.to_be_bytes());
        number(out, DOUBLE, "longitude", &longitude.to_be_bytes());
    }
    if let Some(asn) = entry.asn {
        number(out, UINT32, "autonomous_system_number", &asn.to_be_bytes());
    }
}

fn metadata(out: &mut Vec<u8>, nodes: usize) {
    control(out, MAP, 9);
    number(out, UINT16, "binary_format_major_version", &2_u16.to_be_bytes());
    number(out, UINT16, "binary_format_minor_version", &0_u16.to_be_bytes());
    number(out, UINT64, "build_epoch", &1_u64.to_be_bytes());
    text(out, "database_type");
    text(out, "Test");
    text(out, "description");
    control(out, MAP, 0);
    number(out, UINT16, "ip_version", &6_u16.to_be_bytes());
    text(out, "languages");
    control(out, ARRAY, 0);
    number(out, UINT32, "node_count", &u32::try_from(nodes).expect("few").to_be_bytes());
    number(out, UINT16, "record_size", &24_u16.to_be_bytes());
}
