use super::*;
use alloc::format;
use alloc::string::ToString;
use proptest::prelude::*;

/// Test vectors made by the public EdgeAuth token generator, one in each line: `name key salt token`.
const VECTORS: &str = include_str!("vectors.txt");
const PATH: &str = "dir/a.iso";

/// Returns the token of the test vector `name` and the key that signed it.
fn vector(name: &str) -> (String, TokenKey) {
    let line = VECTORS.lines().find(|l| l.split(' ').next() == Some(name)).expect("a vector of that name");
    let [_, key, salt, token] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let salt = if salt == "-" { String::new() } else { salt.to_string() };
    let hex = |i: usize| u8::from_str_radix(&key[i..i + 2], 16).expect("hexadecimal");
    (token.to_string(), TokenKey { key: (0..key.len()).step_by(2).map(hex).collect(), salt })
}

fn shown(path: &str) -> Shown<'_> {
    Shown { provider: ProviderId(7), path, from: [192, 0, 2, 9].into(), now_s: 1500 }
}

fn run(name: &str, shown: &Shown<'_>) -> Result<(), TokenError> {
    let (token, key) = vector(name);
    check(&[key], &token, shown)
}

#[test]
fn tokens_of_the_public_generator_are_accepted() {
    let mut seen = 0;
    for name in VECTORS.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(' ').next()) {
        let path = if name.starts_with("url_space") { "a b/ü.iso" } else { PATH };
        let from: IpAddr = if name == "acl_ip6" { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { shown("").from };
        let expected = match name {
            "acl_other" => Err(TokenError::Elsewhere),
            "url_other" => Err(TokenError::Forged),
            _ => Ok(()),
        };
        assert_eq!(run(name, &Shown { from, ..shown(path) }), expected, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 15);
}

#[test]
fn a_token_is_valid_from_its_start_until_its_end() {
    for name in ["acl_all", "url"] {
        let at = |now_s| run(name, &Shown { now_s, ..shown(PATH) });
        assert_eq!(at(999), Err(TokenError::Early), "{name}");
        assert_eq!((at(1000), at(1999)), (Ok(()), Ok(())), "{name}");
        assert_eq!(at(2000), Err(TokenError::Expired), "{name}");
    }
}

#[test]
fn another_path_provider_address_key_or_salt_is_refused() {
    assert_eq!(run("acl_one", &shown("dir/b.iso")), Err(TokenError::Elsewhere));
    assert_eq!(run("acl_one", &shown("dir/a.iso/b")), Err(TokenError::Elsewhere));
    assert_eq!(run("acl_list", &shown("dir/ab.iso")), Err(TokenError::Elsewhere));
    assert_eq!(run("acl_list", &shown("x/y/z")), Ok(()));
    assert_eq!(run("url", &shown("dir/a.is")), Err(TokenError::Forged));
    let other = Shown { provider: ProviderId(77), ..shown(PATH) };
    assert_eq!(run("acl_all", &other), Err(TokenError::Elsewhere));
    assert_eq!(run("url", &other), Err(TokenError::Forged));
    assert_eq!(run("acl_ip", &Shown { from: [192, 0, 2, 8].into(), ..shown(PATH) }), Err(TokenError::Elsewhere));
    for name in ["acl_all", "acl_salt", "url"] {
        let (token, key) = vector(name);
        let other_key = TokenKey { key: [&key.key[..], &[0x11]].concat(), ..key.clone() };
        let other_salt = TokenKey { salt: format!("{}x", key.salt), ..key };
        for key in [other_key, other_salt] {
            assert_eq!(check(&[key], &token, &shown(PATH)), Err(TokenError::Forged), "{name}");
        }
        assert_eq!(check(&[], &token, &shown(PATH)), Err(TokenError::Forged), "{name}");
    }
}

#[test]
fn during_a_key_rotation_both_keys_are_accepted() {
    let (old, old_key) = vector("acl_all");
    let (new, new_key) = vector("acl_payload");
    let keys = [new_key.clone(), old_key];
    assert_eq!((check(&keys, &old, &shown(PATH)), check(&keys, &new, &shown(PATH))), (Ok(()), Ok(())));
    assert_eq!(check(&[new_key], &old, &shown(PATH)), Err(TokenError::Forged));
}

#[test]
fn no_field_can_be_changed_added_dropped_or_moved() {
    let (token, key) = vector("acl_payload_raw");
    let refused = |changed: &str| check(core::slice::from_ref(&key), changed, &shown(PATH)).is_err();
    for (from, to) in [
        ("exp=2000", "exp=9000"),
        ("st=1000", "st=1"),
        ("acl=/7/*", "acl=/*"),
        ("id=abc", "id=abd"),
        ("data=k=v", "data=k=w"),
        ("~data=k=v", ""),
        ("~acl=/7/*", ""),
        ("st=1000~", ""),
        ("~hmac", "~exp=9000~hmac"),
        ("~hmac", "~acl=/7/*~hmac"),
        ("~hmac", "~url=/7/dir/a.iso~hmac"),
        ("~hmac", "~salt=~hmac"),
        ("st=1000~exp=2000", "exp=2000~st=1000"),
    ] {
        let changed = token.replace(from, to);
        assert_ne!(changed, token, "{from}");
        assert!(refused(&changed), "{from} -> {to}");
    }
}

#[test]
fn a_text_of_another_format_is_malformed() {
    let hmac = "0".repeat(64);
    for text in [
        "",
        "hmac=00",
        "~hmac=",
        &format!("exp=2000~hmac={}", &hmac[1..]),
        &format!("exp=~hmac={hmac}x"),
        &format!("exp=+5~hmac={hmac}"),
        &format!("exp=99999999999999999999~hmac={hmac}"),
        &format!("st=1~hmac={hmac}"),
        &format!("exp=1~exp=2~hmac={hmac}"),
        &format!("exp=1~new=2~hmac={hmac}"),
        &format!("exp=1~~hmac={hmac}"),
        &format!("exp=1~data={}~hmac={hmac}", "x".repeat(TOKEN_LEN_MAX)),
    ] {
        assert_eq!(check(&[], text, &shown(PATH)), Err(TokenError::Malformed), "{text:.60}");
    }
}

#[test]
fn patterns_match_like_shell_patterns_but_across_slashes() {
    for (pattern, text, expected) in [
        ("/7/*", "/7/", true),
        ("/7/*", "/7", false),
        ("*", "", true),
        ("", "", true),
        ("", "a", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*.iso", "/7/x.iso.iso", true),
        ("a*b*c", "aXbYbZc", true),
        ("a*b*c", "aXbYbZ", false),
    ] {
        assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
    }
    assert!(covers("%2f7%2fdir%2f%2a", &spellings(ProviderId(7), PATH)), "escaped as a whole");
    assert!(covers("/7/a%20b/*", &spellings(ProviderId(7), "a b/c")), "as the URL is written");
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn patterns_match_as_a_textbook_matcher_does(pattern in "[ab*?]{0,6}", text in "[ab]{0,6}") {
        fn textbook(p: &[u8], t: &[u8]) -> bool {
            match (p.split_first(), t.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => textbook(rest, t) || (!t.is_empty() && textbook(p, &t[1..])),
                (Some((c, p)), Some((d, t))) => (*c == b'?' || c == d) && textbook(p, t),
                (None, Some(_)) | (Some(_), None) => false,
            }
        }
        let (p, t) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(matches(p, t), textbook(p, t));
    }

    #[test]
    fn one_changed_byte_anywhere_is_refused(at in 0_usize..200, to in any::<u8>()) {
        let (token, key) = vector("acl_payload");
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to && to.is_ascii() && !(bytes[at].is_ascii_hexdigit() && at + 64 >= bytes.len()
            && bytes[at].eq_ignore_ascii_case(&to)));
        bytes[at] = to;
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assert!(check(&[key], &changed, &shown(PATH)).is_err());
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "\\PC{0,80}", tail in any::<bool>()) {
        let text = if tail { format!("{text}~hmac={}", "0".repeat(64)) } else { text };
        prop_assert!(check(&[vector("acl_all").1], &text, &shown(PATH)).is_err());
    }
}
