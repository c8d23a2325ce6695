use super::*;
use crate::bench::assert_each_clause_fires;
use crate::machine::Rng;
use crate::nat::stun::TransactionId;
use alloc::vec;

struct NoRng;
impl Rng for NoRng {
    fn below(&mut self, _: u32) -> u32 {
        unreachable!("a STUN server draws nothing")
    }
    fn nonce(&mut self) -> [u8; 16] {
        unreachable!("a STUN server draws nothing")
    }
}

const ID: TransactionId = TransactionId([1; 12]);
const CLIENT: &str = "198.51.100.7:4000";
const LOCAL: &str = "192.0.2.1:3478";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn two_addresses() -> Config {
    Config {
        addresses: Some(Addresses { primary: addr(LOCAL), alternate: addr("192.0.2.2:3479") }),
        ..Config::default()
    }
}

fn ask_at(stun: &mut Stun, cfg: &Config, now: Time, (from, local): (&str, &str), bytes: Vec<u8>) -> Vec<Output> {
    let mut out = Vec::new();
    let mut cx = Cx { now, cfg, rng: &mut NoRng, out: &mut out };
    stun.handle_input(&mut cx, Input::Datagram { from: addr(from), local: addr(local), bytes });
    out
}

fn ask(cfg: &Config, from: &str, bytes: Vec<u8>) -> Vec<Output> {
    ask_at(&mut Stun::default(), cfg, Time(0), (from, LOCAL), bytes)
}

fn request(attributes: Vec<Attribute>) -> Vec<u8> {
    Message::new(Class::Request, ID, attributes).encode()
}

/// Returns a request of the smallest possible size, without a fingerprint; `unknown` is appended as attributes.
fn shortest(unknown: &[u16]) -> Vec<u8> {
    let mut bytes = Message::request(ID).encode();
    bytes.truncate(HEADER_LEN);
    for name in unknown {
        bytes.extend(name.to_be_bytes());
        bytes.extend([0, 0]);
    }
    let len = u16::try_from(bytes.len() - HEADER_LEN).expect("short");
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// Returns the answer in `out` with its source and destination, if there is one.
fn answered(out: &[Output]) -> Option<(SocketAddr, SocketAddr, Message)> {
    out.iter().find_map(|o| match o {
        Output::Datagram { local, to, bytes } => Some((*local, *to, Message::decode(bytes).ok()?)),
        Output::Count(_) | Output::DialBack { .. } => None,
    })
}

fn refused(out: &[Output]) -> Option<(u16, Vec<u16>)> {
    let (_, _, message) = answered(out)?;
    let list = message.find(|a| if let Attribute::UnknownAttributes(l) = a { Some(l.clone()) } else { None });
    Some((message.error_code()?, list.unwrap_or_default()))
}

#[test]
fn a_client_learns_its_reflexive_address() {
    for (from, mapped) in [(CLIENT, CLIENT), ("[::ffff:198.51.100.7]:1", "198.51.100.7:1")] {
        let (local, to, message) = answered(&ask(&Config::default(), from, shortest(&[]))).expect("answered");
        assert_eq!((local, to, message.class, message.id), (addr(LOCAL), addr(from), Class::Success, ID));
        assert_eq!((message.mapped(), message.other_address()), (Some(addr(mapped)), None));
    }
}

#[test]
fn unknown_comprehension_required_attributes_give_error_420() {
    let out = ask(&two_addresses(), CLIENT, shortest(&[0x7f01, 0x7fff]));
    assert_eq!(refused(&out), Some((420, vec![0x7f01, 0x7fff])));
}

#[test]
fn an_answer_comes_from_the_requested_address_and_port() {
    let cfg = two_addresses();
    let four = cfg.addresses.expect("two addresses").all();
    assert_eq!(four, ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"].map(addr));
    for (at, address, port) in (0..16).map(|n| (n & 3, n & 8 != 0, n & 4 != 0)) {
        let asked = four[at];
        let bytes = request(vec![Attribute::ChangeRequest { address, port }]);
        let local = alloc::string::ToString::to_string(&asked);
        let out = ask_at(&mut Stun::default(), &cfg, Time(0), (CLIENT, &local), bytes);
        let (from, to, message) = answered(&out).expect("answered");
        assert_eq!(to, addr(CLIENT));
        assert_eq!((from.ip() != asked.ip(), from.port() != asked.port()), (address, port));
        assert!(message.attributes.contains(&Attribute::ResponseOrigin(from)));
        let other = message.other_address().expect("there are two addresses");
        assert!(other.ip() != asked.ip() && other.port() != asked.port() && four.contains(&other));
    }
}

#[test]
fn with_one_address_a_change_request_is_refused() {
    let one = Config::default();
    for (address, port) in [(true, false), (false, true), (true, true)] {
        let out = ask(&one, CLIENT, request(vec![Attribute::ChangeRequest { address, port }]));
        assert_eq!(refused(&out), Some((420, vec![CHANGE_REQUEST])));
    }
    let no_change = Attribute::ChangeRequest { address: false, port: false };
    let (.., message) = answered(&ask(&one, CLIENT, request(vec![no_change]))).expect("answered");
    assert_eq!(message.other_address(), None);
    // a third address of a server whose two configured ones are others
    let out = ask_at(&mut Stun::default(), &two_addresses(), Time(0), (CLIENT, "192.0.2.9:443"), shortest(&[]));
    assert_eq!(answered(&out).expect("answered").2.other_address(), None);
}

#[test]
fn response_port_works_without_padding_and_not_on_a_stream() {
    let cfg = two_addresses();
    let (_, to, message) = answered(&ask(&cfg, CLIENT, request(vec![Attribute::ResponsePort(9)]))).expect("answered");
    assert_eq!((to, message.mapped()), (addr("198.51.100.7:9"), Some(addr(CLIENT))));
    for bad in [vec![Attribute::ResponsePort(9), Attribute::Padding(100)], vec![Attribute::ResponsePort(0)]] {
        assert_eq!(refused(&ask(&cfg, CLIENT, request(bad))), Some((400, vec![])));
    }
    let stream = Config { verified: true, ..cfg };
    for bad in [Attribute::ResponsePort(9), Attribute::ChangeRequest { address: true, port: false }] {
        assert_eq!(refused(&ask(&stream, CLIENT, request(vec![bad]))), Some((400, vec![])));
    }
    assert!(answered(&ask(&stream, CLIENT, shortest(&[]))).is_some());
}

#[test]
fn indications_garbage_and_answers_are_ignored() {
    let success = Message::new(Class::Success, ID, vec![Attribute::XorMapped(addr("192.0.2.9:9"))]).encode();
    let indication = Message::new(Class::Indication, ID, vec![]).encode();
    for bytes in [vec![], vec![0; 20], success, indication] {
        assert_eq!(ask(&Config::default(), CLIENT, bytes), [Output::Count(Metric::Ignored)]);
    }
}

#[test]
fn no_answer_is_longer_than_five_times_its_request() {
    let most: Vec<u16> = (0x100..0x100 + 200).collect();
    let lens = [0, 1, 2, 3, 200].map(|n| shortest(&most[..n]));
    let padded = [0, 1, 4, 20, 21, 100, 1400].map(|n| request(vec![Attribute::Padding(n)]));
    for (bytes, from) in lens.into_iter().chain(padded).flat_map(|b| [(b.clone(), CLIENT), (b, "[2001:db8::7]:1")]) {
        let len = bytes.len();
        let cfg = Config {
            addresses: Some(Addresses { primary: addr("[2001:db8::1]:3478"), alternate: addr("[2001:db8::2]:3479") }),
            ..Config::default()
        };
        let out = ask_at(&mut Stun::default(), &cfg, Time(0), (from, "[2001:db8::1]:3478"), bytes);
        let answer = out.iter().find_map(|o| if let Output::Datagram { bytes, .. } = o { Some(bytes) } else { None });
        let answer = answer.expect("answered");
        assert!(answer.len() <= 5 * len, "{} for {len}", answer.len());
        let extra = Message::decode(answer)
            .expect("ours")
            .attributes
            .iter()
            .any(|a| matches!(a, Attribute::Padding(_) | Attribute::Software(_)));
        assert!(!extra || answer.len() <= len, "{} for {len}", answer.len());
        assert!(len < 1400 || extra, "a long request gets a long answer");
    }
}

#[test]
fn a_cookie_goes_only_to_a_requester_that_sends_as_many_bytes() {
    use crate::nat::cookie::{Cookie, CookieKeys, Tag};
    let tag = Tag::of(&crate::ids::PublicKey::numbered(1));
    let keys = CookieKeys::derived([(1, &[7; 32])]);
    let cookie_sent = |cfg: &Config, keys: CookieKeys, attributes: Vec<Attribute>| {
        let (mut stun, mut out) = (Stun::default(), Vec::new());
        let mut cx = Cx { now: Time(0), cfg, rng: &mut NoRng, out: &mut out };
        stun.handle_input(&mut cx, Input::WallClock { unix_ms: 5_000 });
        stun.handle_input(&mut cx, Input::CookieKeys(keys));
        let out = ask_at(&mut stun, cfg, Time(2_000_000), (CLIENT, LOCAL), request(attributes));
        let (.., message) = answered(&out)?;
        Cookie::from_bytes(message.cookie()?).ok()
    };
    let asks = Attribute::Cookie(tag.request());
    let cfg = two_addresses();
    let cookie = cookie_sent(&cfg, keys.clone(), vec![asks.clone()]).expect("given");
    assert_eq!((cookie.issued_s, keys.check(7_000, tag, addr(CLIENT), &cookie)), (7, Ok(())));
    assert_eq!(cookie_sent(&cfg, keys.clone(), vec![]), None, "not asked for");
    assert_eq!(cookie_sent(&cfg, keys.clone(), vec![Attribute::Cookie(vec![1; 8])]), None, "too short a request");
    assert_eq!(cookie_sent(&cfg, CookieKeys::default(), vec![asks.clone()]), None, "without keys");
    let elsewhere = [Attribute::ResponsePort(9), Attribute::ChangeRequest { address: false, port: true }];
    for other in elsewhere {
        assert_eq!(
            cookie_sent(&cfg, keys.clone(), vec![asks.clone(), other]),
            None,
            "the cookie goes to the requester only"
        );
    }
    assert_eq!(
        cookie_sent(&Config { verified: true, ..cfg }, keys, vec![asks]),
        None,
        "a stream proves no UDP address"
    );
}

#[test]
fn a_networks_answers_are_limited_to_its_rate() {
    let cfg = Config { answers_per_second: 3, networks_max: 2, ..Config::default() };
    let mut stun = Stun::default();
    let mut count =
        |now: u64, from: &str| answered(&ask_at(&mut stun, &cfg, Time(now), (from, LOCAL), shortest(&[]))).is_some();
    let answers = (0..10).filter(|n| count(0, &alloc::format!("198.51.100.{n}:1"))).count();
    assert_eq!(answers, 3, "one /24 shares a bucket");
    assert!(count(0, "198.51.101.1:1"), "another has its own");
    assert!(!count(0, "198.51.102.1:1"), "the table is full of busy networks");
    assert!(!count(300_000, "198.51.100.1:1"));
    assert!(count(400_000, "198.51.100.1:1"), "a third of a second is one answer");
    assert!(count(1_100_000, "198.51.102.1:1"), "a network silent for a second makes room");
}

/// Returns the server address and the destination of a dial-back in `out`, if there is one.
fn dialled(out: &[Output]) -> Option<(IpAddr, SocketAddr)> {
    out.iter().find_map(|o| if let Output::DialBack { from, to, .. } = o { Some((*from, *to)) } else { None })
}

fn dialling() -> Config {
    let dials_from = Some([addr(LOCAL).ip(), addr("192.0.2.2:1").ip()]);
    Config { verified: true, dials_from, ..Config::default() }
}

#[test]
fn a_tcp_client_is_dialled_back_at_its_address_from_the_other_one() {
    let asks = |port| request(vec![Attribute::DialBack(port)]);
    let out = ask(&dialling(), CLIENT, asks(0));
    assert_eq!(dialled(&out), Some((addr("192.0.2.2:1").ip(), addr(CLIENT))));
    assert!(answered(&out).is_some(), "and answered as ever");
    assert_eq!(dialled(&ask(&dialling(), CLIENT, asks(443))).map(|(_, to)| to), Some(addr("198.51.100.7:443")));
    let bytes = ask(&dialling(), CLIENT, asks(0)).into_iter().find_map(|o| match o {
        Output::DialBack { bytes, .. } => Message::decode(&bytes).ok(),
        _ => None,
    });
    assert_eq!(bytes.map(|m| (m.class, m.id)), Some((Class::Indication, ID)));
}

#[test]
fn a_dial_back_that_could_harm_others_is_not_made() {
    let asks = |port| request(vec![Attribute::DialBack(port)]);
    let refused = |cfg: &Config, from: &str, port| {
        let out = ask(cfg, from, asks(port));
        assert!(answered(&out).is_some());
        assert_eq!(dialled(&out), None, "{from} {port}");
    };
    refused(&Config { verified: false, ..dialling() }, CLIENT, 0);
    refused(&Config { dials_from: None, ..dialling() }, CLIENT, 0);
    refused(&dialling(), CLIENT, 22);
    refused(&dialling(), "198.51.100.7:80", 0);
    refused(&dialling(), "192.168.0.7:4000", 0);
    let elsewhere = ask_at(&mut Stun::default(), &dialling(), Time(0), (CLIENT, "192.0.2.3:3478"), asks(0));
    assert_eq!(dialled(&elsewhere), None, "this server has no other address than one that is not known");
}

#[test]
fn dialling_back_costs_a_network_as_much_as_a_hundred_answers() {
    let (mut stun, cfg) = (Stun::default(), dialling());
    let mut dials = |now| {
        let mut ask = || ask_at(&mut stun, &cfg, Time(now), (CLIENT, LOCAL), request(vec![Attribute::DialBack(0)]));
        (0..50).filter(|_| dialled(&ask()).is_some()).count()
    };
    assert_eq!(dials(0), 9, "of 1,000 answers a second");
    assert_eq!(dials(1_000_000), 9);
}

#[test]
fn each_clause_of_a_stun_server_finds_a_corruption() {
    let mut stun = Stun::default();
    for (n, from) in ["198.51.100.7:4000", "203.0.113.7:4000"].into_iter().enumerate() {
        ask_at(&mut stun, &Config::default(), Time(n as u64), (from, LOCAL), request(vec![]));
    }
    assert_each_clause_fires(
        &stun,
        Stun::check,
        &[
            ("each network is listed once by age", |s| s.by_age.clear()),
            ("a network is listed under its last request", |s| {
                s.networks.values_mut().for_each(|b| b.seen = Time(9));
            }),
            ("a bucket is of a whole network", |s| {
                let (seen, own) = s.by_age.pop_first().expect("remembered");
                let bucket = s.networks.remove(&own).expect("remembered");
                let one = addr("198.51.100.7:4000").ip();
                s.by_age.insert((seen, one));
                s.networks.insert(one, bucket);
            }),
        ],
    );
}
