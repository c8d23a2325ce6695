//! Dot segments and escapes in request paths: they are removed before anything is looked up or allowed.

use super::*;

#[test]
fn a_path_with_dot_segments_names_what_the_plain_path_names() {
    let lab = Lab::start(|_| {});
    lab.publish("flat/Packages", b"of provider 7", Policy::default());
    let file = lab.dir.path().join("other");
    std::fs::write(&file, b"of provider 8").expect("written");
    let what = Publish { file, provider: ProviderId(8), path: "x".into(), access: None, policy: None };
    publish(&lab.cfg.objects, &what).expect("published");
    let get = |path: &str| lab.curl(path, &["--path-as-is"]).map(|(status, _, body)| (status, body));
    let Some((200, _)) = get("/7/flat/Packages") else { return };
    for (path, expected) in [
        ("/7/flat/./Packages", Some("of provider 7")),
        ("/7/flat/%2e/Packages", Some("of provider 7")),
        ("/./7/none/%2E./flat/Packages", Some("of provider 7")),
        ("/%37/fl%61t/Packages", Some("of provider 7")),
        ("/7/../8/x", Some("of provider 8")),
        ("/7/flat/../../../8/x", Some("of provider 8")),
        ("/7/..//8/x", Some("of provider 8")),
        ("/7/..%2f8/x", None),
        ("/7/%2e%2e%2f8/x", None),
        ("/7/%252e%252e/8/x", None),
        ("/7/%2%65%2%65/8/x", None),
        ("/7/flat/..", None),
        ("/7/flat/Packages/.", None),
        ("/a/../..//etc", None),
        ("/../../../../etc/passwd", None),
        ("/v1/content/../../../server.toml", None),
        ("/7/../v1/manifests/../../8", None),
    ] {
        let (status, body) = get(path).expect("curl is there");
        let served = (status == 200).then(|| String::from_utf8_lossy(&body).into_owned());
        assert_eq!((served.as_deref(), status == 404), (expected, expected.is_none()), "{path}: {status}");
    }
    // other resources have their plain names only by way of the same form
    let (status, body) = get("/7/../v1/bootstrap").expect("curl is there");
    assert!(status == 200 && String::from_utf8_lossy(&body).contains("client_version_min"));
    let posted = lab.curl("/7/../v1/grants", &["--path-as-is", "-d", "{}"]).expect("curl is there");
    assert_eq!(posted.0, 400, "as under the plain path");
}
