use super::*;
use crate::client::ClientConfig;
use crate::client::commands::refuse_another_bundle;
use crate::client::protocol::StatusLine;
use crate::config::Bundle;
use swarmedge_core::ids::{PublicKey, VersionId};
use swarmedge_core::role::client::io::{Command, DownloadRecord, DownloadState, DownloadStatus, Input, Notice, Save};

/// A client whose machine is a closure.
fn start(dir: &Path, machine: impl Fn(&Desk, Command) + Send + 'static) -> (Desk, Server) {
    let (tx, rx) = std::sync::mpsc::channel();
    let desk = Desk::new(StatusLine::default(), move |input| tx.send(input).is_ok());
    let shard = desk.clone();
    std::thread::spawn(move || {
        while let Ok(Input::Command(command)) = rx.recv() {
            machine(&shard, command);
        }
    });
    let cached = CachedLine {
        version: VersionId::numbered(1).to_string(),
        url: None,
        size_bytes: 5,
        pieces: 1,
        pieces_total: 1,
    };
    let tokens = Tokens::open(dir).expect("a directory");
    let api = Api { desk: desk.clone(), tokens, cache: Arc::new(move || Ok(vec![cached.clone()])) };
    (desk, Server::start(dir, api).expect("binds"))
}

fn record(output: &str) -> DownloadRecord {
    DownloadRecord {
        handle: Handle(1),
        object: ObjectRef { provider: ProviderId(1), path: "a".into() },
        output: output.into(),
        granted: None,
        state: DownloadState::Running,
        usage_seq: 0,
        active_ms: 0,
    }
}

fn figures(state: DownloadState, edge_bytes: u64) -> Notice {
    let DownloadRecord { handle, object, .. } = record("");
    Notice::Download(DownloadStatus {
        handle,
        object,
        download: None,
        version: None,
        state,
        size: 100,
        durable: 0,
        edge_bytes,
        peer_bytes: 0,
        wasted_bytes: 0,
        peers: 0,
    })
}

/// Carries out every command; a `Get` completes in three steps.
fn obliging(desk: &Desk, command: Command) {
    let done = |handle| desk.notice(Notice::Done { req: command.req, result: Ok(handle) });
    let CommandKind::Get { output, .. } = command.kind else { return done(None) };
    desk.saving(&Save::Download(record(&output)));
    done(Some(Handle(1)));
    desk.notice(figures(DownloadState::Running, 50));
    desk.notice(figures(DownloadState::Completed, 100));
}

#[test]
fn a_get_is_accepted_watched_and_ends_with_its_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_desk, _server) = start(dir.path(), obliging);
    let output = dir.path().join("out").display().to_string();
    let request =
        Request::Get { provider: 1, path: "a".into(), output: output.clone(), force: false, edge: None, token: None };
    let mut call = Call::open(dir.path(), &request).expect("speaks").expect("a client runs");
    let patience = Duration::from_secs(120);
    assert_eq!(call.next(patience), Ok(Some(Answer::Accepted { download: Some(1) })));
    let mut last = None;
    while let Some(answer) = call.next(patience).expect("an answer") {
        let Answer::Download(line) = answer else { panic!("{answer:?}") };
        last = Some(line);
    }
    let last = last.expect("at least one line");
    assert_eq!((last.edge_bytes, last.output.as_str(), last.state.name()), (100, output.as_str(), "completed"));
}

#[test]
fn an_existing_file_is_refused_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_desk, _server) = start(dir.path(), obliging);
    let output = dir.path().join("out");
    std::fs::write(&output, "precious").expect("writes");
    let get = |force| Request::Get {
        provider: 1,
        path: "a".into(),
        output: output.display().to_string(),
        force,
        edge: None,
        token: None,
    };
    let refused = Call::ask(dir.path(), &get(false)).expect_err("refused");
    assert_eq!(refused.code(), Code::Usage);
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(Call::ask(dir.path(), &get(true)), Ok(Some(Answer::Accepted { download: Some(1) })));
}

#[test]
fn where_no_file_can_be_made_nothing_is_fetched() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_desk, _server) = start(dir.path(), obliging);
    let get = |output: &Path| {
        let (provider, path, edge, token) = (1, "a".into(), None, None);
        let output = output.display().to_string();
        Call::ask(dir.path(), &Request::Get { provider, path, output, force: false, edge, token })
    };
    // nobody makes files there, root neither
    let refused = get(Path::new("/proc/out")).expect_err("no place for a file").to_string();
    assert!(refused.contains("no file can be made in /proc") && refused.contains("-o"), "{refused}");
    assert_eq!(get(&dir.path().join("out")), Ok(Some(Answer::Accepted { download: Some(1) })));
    assert!(!std::fs::read_dir(dir.path()).expect("there").flatten().any(|f| f.file_name() != SOCKET));
}

#[test]
fn a_client_that_runs_is_asked_for_nothing_by_another_bundle() {
    let dir = tempfile::tempdir().expect("a directory");
    let bundle = |root: u32| {
        let file = dir.path().join("given.toml");
        let (root, bootstrap) = (PublicKey::numbered(root), vec!["https://127.0.0.1:1".into()]);
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into();
        let bundle = Bundle { root, bootstrap, provider: ProviderId(1), uploads: true, ca };
        std::fs::write(&file, bundle.to_toml()).expect("writes");
        file
    };
    ClientConfig::load(dir.path(), Some(&bundle(1))).expect("installed");
    let (_desk, server) = start(dir.path(), obliging);
    assert_eq!(refuse_another_bundle(dir.path(), &bundle(1)), Ok(()));
    let refused = refuse_another_bundle(dir.path(), &bundle(2)).expect_err("another").to_string();
    assert!(refused.contains("another bundle") && refused.contains("--state"), "{refused}");
    drop(server);
    assert_eq!(refuse_another_bundle(dir.path(), &bundle(2)), Ok(()), "the next client is given this one");
}

#[test]
fn only_the_owner_may_connect_and_the_socket_goes_with_its_server() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join(SOCKET), "stale").expect("writes");
    let (_desk, server) = start(dir.path(), obliging);
    let mode = std::fs::metadata(dir.path().join(SOCKET)).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        matches!(Call::ask(dir.path(), &Request::CacheList), Ok(Some(Answer::Cache { versions })) if versions.len() == 1)
    );
    drop(server);
    assert!(!dir.path().join(SOCKET).exists());
    assert_eq!(Call::ask(dir.path(), &Request::Status), Ok(None));
}

#[test]
fn garbage_and_endless_lines_get_an_error_and_others_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_desk, _server) = start(dir.path(), obliging);
    let mut rude = UnixStream::connect(dir.path().join(SOCKET)).expect("connects");
    rude.write_all(b"{\"request\":\"fly\"}\n").expect("writes");
    let mut said = String::new();
    rude.read_to_string(&mut said).expect("reads");
    assert!(said.contains("bad request"), "{said}");
    let mut endless = UnixStream::connect(dir.path().join(SOCKET)).expect("connects");
    // the server closes within its bound; writing on then fails or is thrown away
    let _ = endless.write_all(&vec![b'x'; LINE_LEN_MAX + 4096]);
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert!(matches!(Call::ask(dir.path(), &Request::Status), Ok(Some(Answer::Status(_)))));
}

#[test]
fn the_thirty_third_connection_is_told_to_wait() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_desk, _server) = start(dir.path(), obliging);
    let held: Vec<_> = (0..CONNECTIONS_MAX)
        .map(|_| Call::open(dir.path(), &Request::Watch { download: None }).expect("speaks").expect("runs"))
        .collect();
    let refused = Call::ask(dir.path(), &Request::Status).expect_err("too many");
    assert!(refused.to_string().contains("too many commands"), "{refused}");
    drop(held);
}

#[test]
fn a_watcher_is_told_when_the_client_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (desk, _server) = start(dir.path(), obliging);
    desk.saving(&Save::Download(record("/out")));
    let mut call = Call::open(dir.path(), &Request::Watch { download: Some(1) }).expect("speaks").expect("runs");
    assert!(matches!(call.next(Duration::from_secs(120)), Ok(Some(Answer::Download(_)))));
    desk.close();
    let Ok(Some(Answer::Error(failure))) = call.next(Duration::from_secs(120)) else { panic!("no error") };
    assert_eq!(failure.code, Code::Unreachable);
}
