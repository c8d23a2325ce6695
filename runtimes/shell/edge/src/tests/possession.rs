//! Possession challenges over HTTP: an edge's challenge, and the answers that it accepts.

use super::*;
use swarmedge_core::accounting::possession::{Prover, part_range};
use swarmedge_core::ids::{DownloadId, PublicKey};
use swarmedge_core::wire::records::{Grant, SignedGrant};
use swarmedge_core::wire::{Text, Wire as _};
use swarmedge_ground::edge_api::{CompletedReply, ProofRequest, grant_text};
use swarmedge_ground::http::Problem;
use swarmedge_ground::keys::load_cert;

const SIZE: u32 = 1_000_000;

/// Returns the header field with this edge's grant for a version; the download is one to be challenged.
fn grant_field(lab: &Lab, version: VersionId) -> String {
    let key = Key::load(&lab.cfg.signing_key).expect("the edge's key");
    let cert = load_cert(&lab.cfg.certificate).expect("its certificate");
    let seal = SealRing::load(&lab.cfg.seal_key).expect("the seal");
    let grant = Grant {
        download: DownloadId::numbered(1),
        guid: Guid::numbered(2),
        download_key: PublicKey::numbered(3),
        version,
        size: u64::from(SIZE),
        provider: ProviderId(7),
        path: Text::new("a").expect("short"),
        policy: Policy::default(),
        max_peer_bytes: u64::from(SIZE),
        order_seed: 0,
        began_ms: unix_ms() - 1_000,
        issued_ms: unix_ms() - 1_000,
        expires_ms: unix_ms() + 600_000,
        challenged: true,
    };
    let signature = key.sign(SigningContext::Grant, &grant.to_bytes());
    format!("{GRANT}: {}", grant_text(&seal.seal(&SignedGrant { signature, grant, cert })))
}

#[test]
fn a_completed_download_is_challenged_and_the_first_answer_accepted() {
    // the ledger is unreachable: its records wait in the spool
    let lab = Lab::start(|cfg| cfg.ledger = Some("127.0.0.1:9".into()));
    let all = bytes(SIZE);
    let version = lab.publish("a", &all, Policy::default());
    let field = grant_field(&lab, version);
    let post = |path: &str, fields: &[&str], body: &str| {
        let fields = fields.iter().flat_map(|f| ["-H", f]);
        lab.curl(path, &fields.chain(["-d", body]).collect::<Vec<_>>())
    };
    let told = format!(r#"{{"version":"{version}"}}"#);
    let Some((status, _, body)) = post("/v1/completed", &[&field], &told) else { return };
    assert_eq!(status, 200);
    let read = |body: &[u8]| serde_json::from_slice::<CompletedReply>(body).expect("JSON").challenge;
    let text = read(&body).expect("it was drawn");
    let (_, _, again) = post("/v1/completed", &[&field], &told).expect("curl is there");
    assert_eq!(read(&again).as_ref(), Some(&text), "an answer that was lost");
    let challenge = text.read().expect("a challenge");
    assert!(challenge.fits(u64::from(SIZE)) && challenge.parts.len() == 8, "{challenge:?}");

    let mut prover = Prover::new(&challenge);
    for part in &challenge.parts {
        let range = part_range(u64::from(SIZE), *part);
        prover.add(&all[usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")]);
    }
    let proof = prover.finish();
    let shown = ProofRequest { version: version.to_string(), proof: proof.to_string() };
    let shown = serde_json::to_string(&shown).expect("JSON");
    let answer = |path: &str, fields: &[&str], body: &str| {
        let (status, _, body) = post(path, fields, body).expect("curl is there");
        (status, serde_json::from_slice::<Problem>(&body).map(|p| p.name().to_owned()).unwrap_or_default())
    };
    for (fields, body, expected) in [
        (&[][..], shown.as_str(), (401, "grant-missing")),
        (&[field.as_str()], "{}", (400, "bad-request")),
        (
            &[field.as_str()],
            &shown.replace(&version.to_string(), &VersionId::numbered(1).to_string()),
            (403, "grant-invalid"),
        ),
    ] {
        let (status, name) = answer("/v1/proofs", fields, body);
        assert_eq!((status, name.as_str()), expected);
    }
    let (status, ..) = lab.curl("/v1/proofs", &[]).expect("curl is there");
    assert_eq!(status, 405);
    assert_eq!(answer("/v1/proofs", &[&field], &shown).0, 204);
    assert_eq!(answer("/v1/proofs", &[&field], &shown), (409, "not-asked".into()), "once");
    let (_, _, body) = post("/v1/completed", &[&field], &told).expect("curl is there");
    assert_eq!(read(&body), None, "once a download");
}
