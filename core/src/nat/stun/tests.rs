use super::integrity::{Integrity, check};
use super::*;
use alloc::vec;
use alloc::vec::Vec;

const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
/// Test vectors of RFC 5769 §2.1 to §2.4, and the password of the first three.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";
const ANSWER_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
const ANSWER_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147\
    0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b90000\
    0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700\
    00080014f67024656dd64a3e02b8e0712e85c9a28ca89666";
const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
/// Key of the test vector of RFC 5769 §2.4: the MD5 of its user name, realm and password.
const LONG_TERM_KEY: &str = "e8ca7ad59d5eb0518e312911d2dab2a9";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).expect("a digit")).collect();
    digits.chunks(2).map(|d| u8::try_from(d[0] << 4 | d[1]).expect("a byte")).collect()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn the_checksum_is_the_usual_crc_32() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn the_longest_message_that_a_header_can_name_decodes_and_no_longer_one() {
    let len = |n: usize| u16::try_from(n).expect("16 bits").to_be_bytes();
    let body = MESSAGE_LEN_MAX - HEADER_LEN;
    let mut bytes = [[0, 1], len(body)].concat();
    bytes.extend(MAGIC_COOKIE.to_be_bytes());
    bytes.extend(ID.0);
    bytes.extend([[0xc0, 1], len(body - 4)].concat());
    bytes.resize(MESSAGE_LEN_MAX, 0);
    let message = Message::decode(&bytes).expect("as long as allowed");
    assert!(matches!(&message.attributes[..], [Attribute::Other(0xc001, value)] if value.len() == body - 4));
    bytes.push(0);
    assert_eq!(Message::decode(&bytes), Err(DecodeError::TooLong));
}

#[test]
fn the_test_vectors_of_rfc_5769_decode_with_valid_integrity() {
    let request = Message::decode(&hex(REQUEST)).expect("§2.1");
    assert_eq!((request.class, request.id, request.username()), (Class::Request, ID, Some(&b"evtj:h6vY"[..])));
    let expected = [
        Attribute::Software(b"STUN test client".to_vec()),
        Attribute::Priority(0x6e00_01ff),
        Attribute::IceControlled(0x932f_f9b1_5126_3b36),
        Attribute::Username(b"evtj:h6vY".to_vec()),
    ];
    assert_eq!(request.attributes, expected);
    let v4 = Message::decode(&hex(ANSWER_V4)).expect("§2.2");
    assert_eq!((v4.class, v4.mapped()), (Class::Success, Some(addr("192.0.2.1:32853"))));
    let v6 = Message::decode(&hex(ANSWER_V6)).expect("§2.3");
    assert_eq!(v6.mapped(), Some(addr("[2001:db8:1234:5678:11:2233:4455:6677]:32853")));
    for vector in [REQUEST, ANSWER_V4, ANSWER_V6] {
        assert_eq!(check(&hex(vector), PASSWORD), Integrity::Right);
        assert_eq!(check(&hex(vector), b"another"), Integrity::Wrong);
    }
    let long_term = hex(LONG_TERM);
    assert_eq!(check(&long_term, &hex(LONG_TERM_KEY)), Integrity::Right);
    assert_eq!(Message::decode(&long_term).expect("§2.4").unknown, [0x15, 0x14], "nonce and realm are not ours");
}

#[test]
fn what_we_sign_differs_from_the_vector_in_its_padding_only() {
    let request = Message::decode(&hex(REQUEST)).expect("§2.1");
    let ours = request.encode_signed(PASSWORD, Hash::Sha1);
    // the vectors pad with blanks, we with zeros: the integrity covers that
    let padding = hex(REQUEST).windows(3).position(|w| w == b"   ").expect("padded");
    assert_eq!(ours[..padding], hex(REQUEST)[..padding]);
    assert_eq!((ours.len(), check(&ours, PASSWORD)), (hex(REQUEST).len(), Integrity::Right));
}

fn samples() -> Vec<Message> {
    let answer = vec![
        Attribute::XorMapped(addr("[2001:db8::1]:65535")),
        Attribute::ResponseOrigin(addr("192.0.2.1:3478")),
        Attribute::OtherAddress(addr("192.0.2.2:3479")),
        Attribute::Other(0xC0DE, vec![1, 2, 3]),
    ];
    let discovery = vec![
        Attribute::ChangeRequest { address: true, port: false },
        Attribute::ResponsePort(4_000),
        Attribute::Padding(5),
    ];
    let refusal = vec![Attribute::ErrorCode(420), Attribute::UnknownAttributes(vec![0x7f00, 3])];
    vec![
        Message::new(Class::Success, ID, answer),
        Message::new(Class::Request, ID, discovery),
        Message::new(Class::Error, ID, refusal),
        Message::new(Class::Request, ID, vec![Attribute::IceControlling(7), Attribute::UseCandidate]),
        Message::new(Class::Indication, ID, vec![Attribute::Mapped(addr("203.0.113.9:1"))]),
    ]
}

#[test]
fn every_message_reads_back_and_with_a_flipped_bit_never_as_the_same() {
    for message in samples() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
        // a message need not have a fingerprint, so what is changed may still be a message, but another one
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Message::decode(&bad).as_ref(), Ok(&message), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Message::decode(&bytes[..len]).is_err());
        }
    }
}

#[test]
fn no_flipped_bit_passes_an_integrity() {
    let key = [7; 32];
    for (message, hash) in samples().into_iter().flat_map(|m| [(m.clone(), Hash::Sha1), (m, Hash::Sha256)]) {
        let signed = message.encode_signed(&key, hash);
        assert_eq!(check(&signed, &key), Integrity::Right);
        assert_eq!(Message::decode(&signed).as_ref(), Ok(&message));
        assert_eq!(check(&message.encode(), &key), Integrity::Missing);
        // its last 8 bytes are the fingerprint
        for bit in 0..(signed.len() - 8) * 8 {
            let mut bad = signed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(check(&bad, &key), Integrity::Right, "bit {bit}");
        }
    }
}

#[test]
fn what_stands_behind_an_integrity_is_not_believed() {
    let mut bytes = Message::request(ID).encode_signed(b"key", Hash::Sha256);
    bytes.truncate(bytes.len() - 8);
    attribute(&mut bytes, number::USE_CANDIDATE, &[]);
    set_len(&mut bytes, 0);
    assert_eq!(check(&bytes, b"key"), Integrity::Right);
    assert_eq!(Message::decode(&bytes), Ok(Message::request(ID)));
}

#[test]
fn a_mac_cut_shorter_than_16_bytes_proves_nothing() {
    for (keep, expected) in
        [(32, Integrity::Right), (16, Integrity::Right), (12, Integrity::Wrong), (0, Integrity::Wrong)]
    {
        let mut bytes = Message::request(ID).body();
        set_len(&mut bytes, 4 + keep);
        let mac = Hash::Sha256.mac(b"key", &[&bytes]);
        attribute(&mut bytes, number::MESSAGE_INTEGRITY_SHA256, &mac[..keep]);
        assert_eq!(check(&bytes, b"key"), expected, "{keep} bytes");
    }
}

#[test]
fn a_request_that_demands_what_is_not_known_says_so() {
    let mut bytes = Message::request(ID).body();
    attribute(&mut bytes, 0x7f01, &[0, 0, 0, 6]);
    attribute(&mut bytes, 0x8022, b"software");
    set_len(&mut bytes, 0);
    let read = Message::decode(&bytes).expect("well formed");
    assert_eq!((read.unknown, read.attributes), (vec![0x7f01], vec![Attribute::Software(b"software".to_vec())]));
}

#[test]
fn what_is_said_twice_counts_once() {
    let twice = vec![Attribute::ErrorCode(420), Attribute::ErrorCode(500)];
    assert_eq!(Message::new(Class::Error, ID, twice).error_code(), Some(420));
}

#[test]
fn a_message_of_too_many_attributes_is_refused() {
    let many = |n| Message::new(Class::Request, ID, vec![Attribute::UseCandidate; n]).encode();
    assert!(Message::decode(&many(ATTRIBUTES_MAX - 1)).is_ok(), "the fingerprint is the last");
    assert_eq!(Message::decode(&many(ATTRIBUTES_MAX)), Err(DecodeError::TooLong));
}
