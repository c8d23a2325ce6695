//! Objects that need a token: curl with tokens of the public generator against a running edge.

use super::super::provider_keys::{self, NewKey};
use super::*;
use swarmedge_core::ids::{DownloadId, PublicKey};
use swarmedge_core::wire::records::{Grant, SignedGrant};
use swarmedge_core::wire::{Text, Wire as _};
use swarmedge_ground::edge_api::{RENEWAL_SIGNATURE, Token, grant_text};
use swarmedge_ground::http::Problem;
use swarmedge_ground::keys::load_cert;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Token signed with `KEY` and the salt `pepper` by the public generator (akamai-edgeauth 0.3.2), valid 2001 to 2096.
const GOOD: &str = "st=1000000000~exp=4000000000~acl=/7/secret/*~data=user%3d1\
                    ~hmac=f4a3f45797433bf13e64953d493f25431dcdab94850c1f4b8259720f74f5e481";
/// Token as above, for one URL only.
const GOOD_URL: &str = "exp=4000000000~hmac=cd476c69d7b57c406b75a08f64c80e49c3b143bc2a02692739e8ae57ec0c59fb";
/// Token that expired in 2001.
const EXPIRED: &str = "exp=1000000000~acl=/7/*~hmac=a5f75f26d67a3b2a424dd53a0b8da741a9c97848bb15965b8cb76eaab5b2a4d3";
/// Token that becomes valid in 2096.
const EARLY: &str =
    "st=4000000000~exp=4100000000~acl=/7/*~hmac=b696da9903da324a696ea7743037e1d752f454489d9d31fcac028a860690dc13";
/// Token for another path.
const OTHER: &str =
    "exp=4000000000~acl=/7/other/*~hmac=39134bc5c661cd3359c2665ef526a8f8003ce0a72ae36a6af0e6e416e5aae82b";

/// Starts an edge with one object that needs a token.
fn lab() -> (Lab, Vec<u8>, VersionId) {
    let lab = Lab::start(|_| {});
    let new = NewKey { key: Some(KEY.into()), salt: "pepper".into(), token_name: None };
    provider_keys::rotate(&lab.cfg.objects, ProviderId(7), &new).expect("rotated");
    let all = bytes(100_000);
    let version = lab.publish_to("secret/a b.bin", &all, Some(Access::Token), Policy::default());
    (lab, all, version)
}

fn kind(body: &[u8]) -> String {
    serde_json::from_slice::<Problem>(body).map(|p| p.name().to_owned()).unwrap_or_default()
}

#[test]
fn without_a_token_a_request_learns_nothing_about_the_object() {
    let (lab, all, version) = lab();
    for path in ["/7/secret/a%20b.bin".into(), format!("/v1/content/{version}"), format!("/v1/manifests/{version}")] {
        for args in [&[][..], &["-r", "0-9"], &["-H", "If-None-Match: *"]] {
            let Some((status, head, body)) = lab.curl(&path, args) else { return };
            assert_eq!((status, kind(&body).as_str()), (401, "authorisation-required"), "{path} {args:?}");
            assert!(head.contains("www-authenticate: edgeauth"), "{head}");
            for secret in [version.to_string(), "etag".into(), "digest".into(), all.len().to_string(), KEY.into()] {
                assert!(!head.contains(&secret) && !String::from_utf8_lossy(&body).contains(&secret), "{secret}");
            }
        }
        let (status, head, _) = lab.curl(&path, &["-I"]).expect("curl is there");
        assert!(status == 401 && !head.contains("etag"), "HEAD tells no more than GET: {head}");
    }
    let key = Key::generate();
    let (status, body) = ask(&lab, &key, &request(&key, 0), &[]).expect("curl is there");
    assert_eq!((status, kind(&body).as_str()), (401, "authorisation-required"));
}

#[test]
fn a_token_works_repeatedly_in_url_field_and_cookie() {
    let (lab, all, version) = lab();
    let (field, cookie) = (format!("__token__: {GOOD}"), format!("Cookie: a=b; __token__={GOOD}"));
    let query = format!("?x=1&__token__={GOOD}");
    let encoded = format!("?__token__={}", GOOD.replace('%', "%25").replace('=', "%3D").replace('/', "%2F"));
    for path in ["/7/secret/a%20b.bin".into(), format!("/v1/content/{version}")] {
        for (query, args) in [
            (query.as_str(), &[][..]),
            (&encoded, &[]),
            (&format!("?__token__={GOOD_URL}"), &[]),
            ("", &["-H", field.as_str()]),
            ("", &["-H", cookie.as_str()]),
        ] {
            for _ in 0..2 {
                let Some((status, head, body)) = lab.curl(&format!("{path}{query}"), args) else { return };
                assert_eq!((status, body == all), (200, true), "{path}{query} {args:?}");
                assert!(head.contains("cache-control: private"), "{head}");
            }
        }
        let (status, _, body) = lab.curl(&format!("{path}{query}"), &["-r", "99990-"]).expect("curl is there");
        assert_eq!((status, body.as_slice()), (206, &all[99_990..]), "a range");
    }
    let (status, head, _) = lab.curl(&format!("/v1/manifests/{version}{query}"), &[]).expect("curl is there");
    assert!(status == 200 && head.contains("cache-control: private"), "{head}");
}

#[test]
fn access_is_decided_on_the_path_without_dot_segments() {
    let (lab, all, _) = lab();
    lab.publish("other/open", b"open", Policy::default());
    let get = |path: &str, token: &str| {
        let url = format!("{path}?__token__={token}");
        lab.curl(&url, &["--path-as-is"]).map(|(status, _, body)| (status, body == all))
    };
    for path in ["/7/other/../secret/a%20b.bin", "/7/other/%2e%2e/secret/./a%20b.bin", "/8/../7/secret/a%20b.bin"] {
        let Some(without) = get(path, "") else { return };
        assert_eq!(without, (403, false), "{path}");
        assert_eq!(get(path, OTHER), Some((403, false)), "a token for the folder that the path only passes: {path}");
        assert_eq!(get(path, GOOD), Some((200, true)), "{path}");
        assert_eq!(get(path, GOOD_URL), Some((200, true)), "{path}");
    }
}

#[test]
fn bad_tokens_are_refused_without_a_helpful_reason() {
    let (lab, _, version) = lab();
    let changed = |from: &str, to: &str| GOOD.replace(from, to);
    let invalid = [
        changed("/7/secret/*", "/7/*"),
        changed("exp=4000000000", "exp=4000000001"),
        changed("user%3d1", "user%3d2"),
        changed("st=1000000000~", ""),
        format!("{}0", &GOOD[..GOOD.len() - 1]),
        GOOD_URL.replace("exp=", "st=1~exp="),
        EARLY.into(),
        OTHER.into(),
        "nonsense".into(),
        String::new(),
    ];
    for path in ["/7/secret/a%20b.bin".into(), format!("/v1/content/{version}"), format!("/v1/manifests/{version}")] {
        let get = |token: &str| lab.curl(&format!("{path}?__token__={token}"), &[]);
        let mut bodies = std::collections::BTreeSet::new();
        for token in &invalid {
            let Some((status, _, body)) = get(token) else { return };
            assert_eq!((status, kind(&body).as_str()), (403, "token-invalid"), "{path} {token}");
            bodies.insert(body);
        }
        assert_eq!(bodies.len(), 1, "one answer for all that is wrong");
        let (status, _, body) = get(EXPIRED).expect("curl is there");
        assert_eq!((status, kind(&body).as_str()), (401, "token-expired"), "{path}");
    }
}

fn request(key: &Key, n: u8) -> GrantRequest {
    GrantRequest {
        provider: 7,
        path: "secret/a b.bin".into(),
        version: None,
        guid: Guid::of(&key.public()).to_string(),
        key: key.public().to_string(),
        download_key: Key::from_seed([9; 32]).public().to_string(),
        time_ms: unix_ms(),
        nonce: data_encoding::HEXLOWER.encode(&[n; 16]),
        token: None,
        renew: None,
        edge_only: false,
        client_version: String::new(),
    }
}

#[test]
fn after_the_first_grant_no_token_is_needed() {
    let (lab, all, version) = lab();
    let key = Key::generate();
    for (n, token, expected) in [(1, OTHER, 403), (2, EXPIRED, 401), (3, EARLY, 403), (4, "x", 403)] {
        let bad = GrantRequest { token: Some(Token(token.into())), ..request(&key, n) };
        let Some((status, _)) = ask(&lab, &key, &bad, &[]) else { return };
        assert_eq!(status, expected, "{token}");
    }
    let first = GrantRequest { token: Some(Token(GOOD.into())), ..request(&key, 5) };
    let (status, answer) = ask(&lab, &key, &first, &[]).expect("curl is there");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let granted: GrantReply = serde_json::from_slice(&answer).expect("a grant");
    let field = format!("{GRANT}: {}", granted.grant);
    let (status, _, body) = lab.curl(&format!("/v1/content/{version}"), &["-H", &field]).expect("curl is there");
    assert_eq!((status, body == all), (200, true));
    assert_eq!(lab.curl(&granted.manifest, &["-H", &field]).expect("curl is there").0, 200);
    let other = lab.publish_to("secret/other", b"other", Some(Access::Token), Policy::default());
    assert_eq!(lab.curl(&format!("/v1/content/{other}"), &["-H", &field]).expect("curl is there").0, 403);

    // the provider's keys are removed: no download can begin, running downloads go on
    provider_keys::remove(&lab.cfg.objects, ProviderId(7)).expect("removed");
    let again = GrantRequest { nonce: data_encoding::HEXLOWER.encode(&[6; 16]), ..first };
    assert_eq!(ask(&lab, &key, &again, &[]).expect("curl is there").0, 403);
    let renewal = GrantRequest { renew: Some(granted.grant), ..request(&key, 7) };
    let (status, answer) = renew(&lab, &key, &renewal, &Key::from_seed([9; 32]));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let renewed: GrantReply = serde_json::from_slice(&answer).expect("a grant");
    assert_eq!((renewed.download, renewed.download_key), (granted.download, granted.download_key));
    let stolen = GrantRequest { nonce: data_encoding::HEXLOWER.encode(&[8; 16]), ..renewal };
    assert_eq!(renew(&lab, &key, &stolen, &Key::generate()).0, 401, "without K_d a grant cannot be renewed");
}

#[test]
fn forged_expired_and_foreign_grants_get_no_content() {
    let (lab, all, version) = lab();
    let key = Key::load(&lab.cfg.signing_key).expect("the edge's key");
    let cert = load_cert(&lab.cfg.certificate).expect("its certificate");
    let seal = SealRing::load(&lab.cfg.seal_key).expect("the seal");
    let good = Grant {
        download: DownloadId::numbered(1),
        guid: Guid::numbered(2),
        download_key: PublicKey::numbered(3),
        version,
        size: 100_000,
        provider: ProviderId(7),
        path: Text::new("a").expect("short"),
        policy: Policy::default(),
        max_peer_bytes: 100_000,
        order_seed: 0,
        began_ms: unix_ms() - 1_000,
        issued_ms: unix_ms() - 1_000,
        expires_ms: unix_ms() + 600_000,
        challenged: false,
    };
    let sign = |key: &Key, grant: &Grant| SignedGrant {
        signature: key.sign(SigningContext::Grant, &grant.to_bytes()),
        grant: grant.clone(),
        cert: cert.clone(),
    };
    let get = |ring: &SealRing, signed: &SignedGrant| {
        let field = format!("{GRANT}: {}", grant_text(&ring.seal(signed)));
        lab.curl(&format!("/v1/content/{version}"), &["-H", &field])
    };
    let Some((status, _, body)) = get(&seal, &sign(&key, &good)) else { return };
    assert_eq!((status, body == all), (200, true), "the genuine one is good");
    let status = |signed: &SignedGrant| get(&seal, signed).expect("curl is there").0;
    let until = |at_ms| sign(&key, &Grant { expires_ms: at_ms, ..good.clone() });
    assert_eq!(status(&until(unix_ms() - 300_000)), 200, "as long as it can be renewed");
    assert_eq!(status(&until(unix_ms() - 700_000)), 401);
    assert_eq!(status(&sign(&key, &Grant { version: VersionId::numbered(9), ..good.clone() })), 403);
    assert_eq!(status(&sign(&Key::generate(), &good)), 403, "signed by nobody");
    let genuine = sign(&key, &good);
    let changed = Grant { download: DownloadId::numbered(9), expires_ms: good.expires_ms + 1, ..good.clone() };
    assert_eq!(status(&SignedGrant { grant: changed, ..genuine.clone() }), 403, "changed after it was signed");
    let certified = |not_before_ms, not_after_ms| {
        let mut signed = genuine.clone();
        (signed.cert.body.not_before_ms, signed.cert.body.not_after_ms) = (not_before_ms, not_after_ms);
        signed
    };
    let (now_ms, hour_ms) = (unix_ms(), 3_600_000);
    assert_eq!(status(&certified(now_ms + hour_ms, u64::MAX)), 503, "the edge's clock is behind");
    assert_eq!(status(&certified(0, now_ms - hour_ms)), 401, "the certificate of who gave it has ended");
    let stranger = SealRing::of(SealKey::generate(1));
    assert_eq!(get(&stranger, &genuine).expect("curl is there").0, 401, "sealed by nobody");
}

/// Requests a renewal of a grant, signed by the client's key and by the download's key K_d.
fn renew(lab: &Lab, key: &Key, request: &GrantRequest, download_key: &Key) -> (u16, Vec<u8>) {
    let body = serde_json::to_string(request).expect("JSON");
    let nonce = data_encoding::HEXLOWER.decode(request.nonce.as_bytes()).expect("hexadecimal");
    let host = lab.cfg.url.trim_start_matches("https://");
    let nonce = nonce.try_into().expect("16 bytes");
    let message = signed_message(host, GRANTS_PATH, request.time_ms, &nonce, body.as_bytes());
    let signature = signature_text(&download_key.sign(SigningContext::EdgeRequest, &message));
    ask(lab, key, request, &["-H", &format!("{RENEWAL_SIGNATURE}: {signature}")]).expect("curl is there")
}

#[test]
fn a_running_edge_notices_rotated_keys_and_a_new_token_name() {
    let (lab, all, _) = lab();
    let get = |name: &str| lab.curl(&format!("/7/secret/a%20b.bin?{name}={GOOD}"), &[]);
    let rotate = |new: NewKey| provider_keys::rotate(&lab.cfg.objects, ProviderId(7), &new).expect("rotated");
    let Some((200, ..)) = get("__token__") else { return assert!(get("__token__").is_none()) };
    rotate(NewKey { token_name: Some("hdnts".into()), ..NewKey::default() });
    let (status, _, body) = get("hdnts").expect("curl is there");
    assert_eq!((status, body == all), (200, true), "the key before counts");
    assert_eq!(get("__token__").expect("curl is there").0, 401, "under that name nothing was shown");
    rotate(NewKey::default());
    assert_eq!(get("hdnts").expect("curl is there").0, 403, "two rotations later it counts no more");
}

#[test]
fn fresh_tokens_of_the_public_generator_are_accepted() {
    let (lab, all, _) = lab();
    let script = r#"
import sys, time
from akamai.edgeauth import EdgeAuth
now = int(time.time())
for early in (False, True):
    a = EdgeAuth(key=sys.argv[1], salt="pepper", start_time=now - 60, end_time=now + 600, payload="u=1", session_id="s",
                 escape_early=early)
    print("200", a.generate_acl_token(["/7/x", "/7/secret/*"]))
    print("200", a.generate_url_token("/7/secret/a b.bin"))
    print("403", a.generate_acl_token("/7/public/*"))
    print("403", a.generate_url_token("/7/secret/a"))
print("200", EdgeAuth(key=sys.argv[1], salt="pepper", window_seconds=600).generate_url_token("/7/secret/a%20b.bin"))
print("403", EdgeAuth(key=sys.argv[1], window_seconds=600).generate_acl_token("/7/secret/*"))
print("403", EdgeAuth(key=sys.argv[1], salt="pepper", start_time=now + 600, end_time=now + 900).generate_acl_token("/7/*"))
print("401", EdgeAuth(key=sys.argv[1], salt="pepper", start_time=now - 900, end_time=now - 600).generate_acl_token("/7/*"))
print("403", EdgeAuth(key=sys.argv[1], salt="pepper", algorithm="sha1", window_seconds=60).generate_acl_token("/7/*"))
"#;
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/tools/edgeauth");
    let made = Command::new("python3").env("PYTHONPATH", package).args(["-c", script, KEY]).output();
    let Some(made) = made.ok().filter(|m| m.status.success()) else {
        let _: Option<()> = skip("the Python package akamai-edgeauth (`.ci/run tools` installs it)");
        return;
    };
    let text = String::from_utf8(made.stdout).expect("text");
    assert_eq!(text.lines().count(), 13);
    for line in text.lines() {
        let (expected, token) = line.split_once(' ').expect("a status and a token");
        let field = format!("__token__: {token}");
        let Some((status, _, body)) = lab.curl("/7/secret/a%20b.bin", &["-H", &field]) else { return };
        assert_eq!(status.to_string(), expected, "{token}");
        assert_eq!(status == 200, body == all);
    }
}
