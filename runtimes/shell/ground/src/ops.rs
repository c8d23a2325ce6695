//! Operations: logs, metrics in Prometheus' text format, and a small HTTP server for `/metrics`, `/healthz` and
//! `/livez`.

use crate::error::Error;
use crate::health::{Health, Told, View};
use crate::host::sockets::listen;
use crate::http::io::Io;
use crate::http::signal::Gauge;
use crate::http::{Body, Signal};
use crate::rt::Rt;
use crate::terminal::log::Log;
use futures_lite::future::or;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Log filter unless `--log` or `RUST_LOG` is given.
const LOG_DEFAULT: &str = "info,sqlx=warn,quinn=warn,quinn_proto=warn,rustls=warn";
/// Most simultaneous connections to `/metrics` and `/healthz`.
const CONNECTIONS_MAX: usize = 32;
/// Time limit for one connection, from accept to its end.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Sends logs to standard error, filtered by `spec` (`--log`), else by `RUST_LOG`, else from `info` up. Later calls of
/// a process change nothing. A line that cannot be written is lost without further effect.
pub fn init_logs(spec: Option<&str>) -> Result<(), Error> {
    let from_env = std::env::var("RUST_LOG").ok();
    let spec = spec.or(from_env.as_deref()).unwrap_or(LOG_DEFAULT);
    let filter: Targets =
        spec.parse().map_err(|e| Error::usage(format!("{spec:?} is no log filter: {e}")).next("try --log info"))?;
    let colours = std::io::stderr().is_terminal();
    // the subscriber would report its own errors by `eprintln!`, which panics if standard error has failed
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(|| Log).with_ansi(colours);
    // a second call keeps the first one's filter
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}

/// Starts recording the process's metrics. Servers call this; without it metrics cost nothing.
pub fn init_metrics() {
    METRICS.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // if another recorder is installed, ours stays empty
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
}

/// Returns the process's metrics in Prometheus' text format.
#[must_use]
pub fn metrics_text() -> String {
    let Some(metrics) = METRICS.get() else { return String::new() };
    metrics.run_upkeep();
    metrics.render()
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Returns the response to a request of `/livez` or `/healthz`, and for the operator of `/metrics`; `None` for other
/// paths. `/livez` says that the process answers. `/healthz` is 503 if a part cannot work, with one reason per line,
/// and otherwise 200, with the warnings after the first line; a request that accepts JSON or has `?json` gets JSON.
#[must_use]
pub fn answer<B>(request: &Request<B>, path: &str, health: &Health, view: View) -> Option<Response<Body>> {
    let (code, text, kind) = match path {
        "/metrics" if view == View::Operator => {
            (StatusCode::OK, metrics_text(), "text/plain; version=0.0.4; charset=utf-8")
        }
        "/livez" => (StatusCode::OK, "ok\n".to_owned(), TEXT),
        "/healthz" => readiness(&health.told(view), wants_json(request)),
        _ => return None,
    };
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return Some(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

fn wants_json<B>(request: &Request<B>) -> bool {
    let asked = request.uri().query().is_some_and(|q| q.split('&').any(|name| name == "json"));
    let mut accepted = request.headers().get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    asked || accepted.any(|kinds| kinds.contains("application/json"))
}

fn readiness(told: &[Told], json: bool) -> (StatusCode, String, &'static str) {
    let ready = told.iter().all(|t| !t.failing);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if json {
        let text = serde_json::json!({ "ready": ready, "reasons": told }).to_string();
        return (code, text, "application/json");
    }
    let mut text = if ready { "ok\n".to_owned() } else { String::new() };
    for Told { part, why, failing, .. } in told {
        let warning = if *failing { "" } else { "warning: " };
        text.push_str(&format!("{warning}{part}: {why}\n"));
    }
    (code, text, TEXT)
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// Serves `/metrics`, `/healthz` and `/livez` over plain HTTP until `stop` is set. `key` names the configuration entry
/// for errors. Returns the bound address, which differs from `addr` if its port was 0.
pub fn serve<R: Rt>(rt: &R, addr: SocketAddr, key: &str, stop: Signal, health: Health) -> Result<SocketAddr, Error> {
    init_metrics();
    let (listener, addr) = listen(rt, addr, key)?;
    let spawned = rt.clone();
    rt.spawn(async move { or(stop.wait(), accept_all(spawned, listener, health)).await });
    Ok(addr)
}

async fn accept_all<R: Rt>(rt: R, listener: R::Listener, health: Health) {
    let open = Gauge::default();
    loop {
        match rt.accept(&listener).await {
            Ok((tcp, _)) if open.get() < CONNECTIONS_MAX => {
                let counted = open.enter();
                let deadline = rt.sleep_until(rt.now() + ANSWER_WITHIN);
                let health = health.clone();
                rt.spawn(async move {
                    or(deadline, connection(tcp, &health)).await;
                    drop(counted);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                rt.sleep_until(rt.now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(tcp: impl crate::rt::AsyncRead + crate::rt::AsyncWrite + Unpin + 'static, health: &Health) {
    let service = service_fn(async |request: Request<Incoming>| {
        let found = answer(&request, request.uri().path(), health, View::Operator);
        Ok::<_, Infallible>(found.unwrap_or_else(|| status(StatusCode::NOT_FOUND)))
    });
    let served =
        hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(Io::new(tcp), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request for metrics or health failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Start, testing::TestRt};
    use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(rt: &TestRt, addr: SocketAddr, request: &str) -> String {
        let mut tcp = rt.connect(addr).await.expect("open");
        tcp.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        // a refused connection may break in the middle of the answer
        let _ = tcp.read_to_string(&mut answer).await;
        answer
    }

    #[test]
    fn health_and_metrics_are_served_and_nothing_else() {
        TestRt::block_on(|rt| async move {
            let stop = Signal::default();
            let any = "127.0.0.1:0".parse().expect("an address");
            let parts = Health::default();
            let addr = serve(&rt, any, "[cn] ops", stop.clone(), parts.clone()).expect("a port");
            metrics::counter!("swarmedge_test_total").increment(3);
            let health = ask(&rt, addr, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "{health}");
            parts.set("spool", "the disk is full: free some space");
            parts.set("ledger", "away: start it");
            let unwell = ask(&rt, addr, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(unwell.starts_with("HTTP/1.1 503"), "{unwell}");
            let reasons = "\r\n\r\nledger: away: start it\nspool: the disk is full: free some space\n";
            assert!(unwell.ends_with(reasons), "{unwell}");
            parts.clear("ledger");
            parts.clear("spool");
            let well = ask(&rt, addr, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(well.starts_with("HTTP/1.1 200"), "{well}");
            let metrics = ask(&rt, addr, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(metrics.contains("\nswarmedge_test_total 3\n"), "{metrics}");
            assert!(ask(&rt, addr, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
            assert!(ask(&rt, addr, "POST /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
            assert!(ask(&rt, addr, "\x16\x03\x01 no http at all\r\n\r\n").await.starts_with("HTTP/1.1 400"));
            parts.warn("disk", crate::health::Cause::DiskNearlyFull, "/srv has 7 MB left");
            let warned = ask(&rt, addr, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(warned.ends_with("\r\n\r\nok\nwarning: disk: /srv has 7 MB left\n"), "{warned}");
            parts.set("spool", "away");
            for request in ["GET /healthz?json HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\naccept: application/json\r\n"] {
                let json = ask(&rt, addr, &format!("{request}host: x\r\n\r\n")).await;
                let (head, body) = json.split_once("\r\n\r\n").expect("a body");
                assert!(head.starts_with("HTTP/1.1 503") && head.contains("application/json"), "{head}");
                let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
                assert_eq!((&body["ready"], &body["reasons"][1]["cause"]), (&false.into(), &"disk-nearly-full".into()));
            }
            let alive = ask(&rt, addr, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(alive.starts_with("HTTP/1.1 200") && alive.ends_with("\r\n\r\nok\n"), "{alive}");
            stop.set();
        });
    }

    #[test]
    fn strangers_get_no_metrics() {
        let get = |path: &str| Request::get(path).body(()).expect("a request");
        for (view, there) in [(View::Operator, true), (View::Strangers, false)] {
            assert_eq!(answer(&get("/metrics"), "/metrics", &Health::default(), view).is_some(), there);
            assert!(answer(&get("/livez"), "/livez", &Health::default(), view).is_some());
        }
    }

    #[test]
    fn an_invalid_log_filter_is_named_in_the_error() {
        let error = init_logs(Some("info,swarmedge_edge=loud")).expect_err("no filter").to_string();
        assert!(error.contains("swarmedge_edge=loud"), "{error}");
    }
}
