use super::*;
use crate::client::ClientConfig;
use crate::client::api_state::OBJECTS_MAX;
use crate::client::commands::refuse_another_bundle;
use crate::client::protocol::LINE_LEN_MAX;
use crate::client::protocol::{State, StatusLine};
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use swarmedge_core::ids::{PublicKey, VersionId};
use swarmedge_core::role::client::io::{
    Command, DownloadRecord, DownloadState, DownloadStatus, FailReason, Input, Notice, Save,
};
use swarmedge_ground::config::Bundle;

/// Time-out of a test on a busy machine; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a client whose machine is a closure.
fn start(dir: &Path, machine: impl Fn(&ApiState, Command) + Send + 'static) -> (ApiState, Server) {
    let (tx, rx) = std::sync::mpsc::channel();
    let api_state = ApiState::new(StatusLine::default(), move |input| tx.send(input).is_ok());
    let shard = api_state.clone();
    std::thread::spawn(move || {
        while let Ok(Input::Command(command)) = rx.recv() {
            machine(&shard, command);
        }
    });
    let cached = CachedLine {
        expired: false,
        version: VersionId::numbered(1).to_string(),
        url: None,
        size_bytes: 5,
        pieces: 1,
        pieces_total: 1,
    };
    let tokens = Tokens::open(dir).expect("a directory");
    let modes = crate::store::Modes::default();
    let put_there: crate::store::PutThere = Arc::new(|_, place| Ok(std::fs::read(place)? == b"put there"));
    let cache = Arc::new(move || Ok(vec![cached.clone()]));
    let api = Api { api_state: api_state.clone(), tokens, cache, put_there, modes, one_shot: true };
    (api_state, Server::start(dir, api).expect("binds"))
}

fn record(output: &str) -> DownloadRecord {
    DownloadRecord {
        handle: Handle(1),
        object: ObjectRef { provider: ProviderId(1), path: "a".into() },
        output: output.into(),
        replace: false,
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

/// A machine that carries out every command; a `Get` completes in three steps.
fn obliging(api_state: &ApiState, command: Command) {
    let done = |handle| api_state.notice(Notice::Done { req: command.req, result: Ok(handle) });
    let CommandKind::Get { output, .. } = command.kind else { return done(None) };
    api_state.saving(&Save::Download(record(&output)));
    done(Some(Handle(1)));
    api_state.notice(figures(DownloadState::Running, 50));
    api_state.notice(figures(DownloadState::Completed, 100));
}

#[test]
fn a_get_is_accepted_watched_and_ends_with_its_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_api_state, _server) = start(dir.path(), obliging);
    let output = dir.path().join("out").display().to_string();
    let request = Request::Get {
        provider: 1,
        path: "a".into(),
        output: output.clone(),
        mode: None,
        force: false,
        edge: None,
        token: None,
    };
    let mut call = Call::open(dir.path(), &request).expect("speaks").expect("a client runs");
    assert_eq!(call.next(PATIENCE), Ok(Some(Answer::Accepted { download: Some(1) })));
    let mut last = None;
    while let Some(answer) = call.next(PATIENCE).expect("an answer") {
        let Answer::Download(line) = answer else { panic!("{answer:?}") };
        last = Some(line);
    }
    let last = last.expect("at least one line");
    assert_eq!((last.edge_bytes, last.output.as_str(), last.state.name()), (100, output.as_str(), "completed"));
}

#[test]
fn an_existing_file_is_refused_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_api_state, _server) = start(dir.path(), obliging);
    let output = dir.path().join("out");
    std::fs::write(&output, "precious").expect("writes");
    let get = |force| Request::Get {
        provider: 1,
        path: "a".into(),
        output: output.display().to_string(),
        mode: None,
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
fn why_a_file_could_not_be_put_in_its_place_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), |api_state, command| {
        let CommandKind::Get { output, .. } = command.kind else { return };
        api_state.saving(&Save::Download(record(&output)));
        api_state.notice(Notice::Done { req: command.req, result: Ok(Some(Handle(1))) });
        api_state.not_placed(Handle(1), output);
        api_state.notice(figures(DownloadState::Running, 100));
        api_state.notice(figures(DownloadState::Failed(FailReason::OutputTaken), 100));
    });
    let output = dir.path().join("out").display().to_string();
    get_into(dir.path(), &output, false).expect("accepted");
    let seen = || api_state.status().downloads.into_iter().find_map(|line| line.failure);
    let failure = std::iter::repeat_with(seen).find_map(|failure| failure).expect("it failed");
    assert_eq!(
        (failure.code, &failure.reason),
        (Code::Usage, &format!("another file stands where this one goes: {output}"))
    );
    assert!(failure.next_step.contains("--force") && failure.next_step.contains("-o"), "{}", failure.next_step);
}

#[test]
fn where_no_file_can_be_made_nothing_is_fetched() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_api_state, _server) = start(dir.path(), obliging);
    let get = |output: &Path| {
        let (provider, path, edge, token) = (1, "a".into(), None, None);
        let output = output.display().to_string();
        Call::ask(dir.path(), &Request::Get { provider, path, output, mode: None, force: false, edge, token })
    };
    // nobody makes files there, root neither
    let refused = get(Path::new("/proc/out")).expect_err("no place for a file").to_string();
    assert!(refused.contains("no file can be made in /proc") && refused.contains("-o"), "{refused}");
    assert_eq!(get(&dir.path().join("out")), Ok(Some(Answer::Accepted { download: Some(1) })));
    assert!(!std::fs::read_dir(dir.path()).expect("there").flatten().any(|f| f.file_name() != SOCKET));
}

/// Returns the answer to a `get` of provider 1's `a` into `output`.
fn get_into(dir: &Path, output: &str, force: bool) -> Result<Option<Answer>, Error> {
    let (provider, path, edge, token) = (1, "a".into(), None, None);
    Call::ask(dir, &Request::Get { provider, path, output: output.into(), mode: None, force, edge, token })
}

#[test]
fn what_can_be_no_file_is_refused_before_anything_is_fetched() {
    let dir = tempfile::tempdir().expect("a directory");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (_api_state, _server) = start(dir.path(), move |api_state, command| {
        count.fetch_add(1, Ordering::Relaxed);
        obliging(api_state, command);
    });
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), fifo, mode, 0).expect("a FIFO");
    for (name, to) in [("null", "/dev/null"), ("ring", "ring")] {
        std::os::unix::fs::symlink(to, at(name)).expect("made");
    }
    std::fs::write(at("file"), "of the user's").expect("writes");
    let long = "n".repeat(256);
    let refused = [
        ("fifo", "a device, a FIFO or a socket"),
        ("null", "a device, a FIFO or a socket"),
        (SOCKET, "a device, a FIFO or a socket"),
        ("ring", "cannot be used"),
        ("new/", "names a directory that is not there"),
        ("new/file", "there is no directory"),
        ("file/file", "there is no directory"),
        (&long, "name too long"),
        (".", "is a directory"),
    ];
    for (name, why) in refused {
        for force in [false, true] {
            let error = get_into(dir.path(), &at(name), force).expect_err(name);
            assert!(error.to_string().contains(why) && error.code() == Code::Usage, "{name}: {error}");
        }
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert!(get_into(dir.path(), &at(&long[1..]), false).is_ok());
    assert_eq!(std::fs::read(at("file")).expect("there"), b"of the user's");
}

#[test]
fn what_stands_there_is_kept_unless_it_was_put_there_or_force_is_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), obliging);
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("ours"), "put there").expect("writes");
    std::fs::write(at("edited"), "put there and edited").expect("writes");
    for (name, to) in [("to-ours", "ours"), ("to-edited", "edited"), ("to-nothing", "nothing")] {
        std::os::unix::fs::symlink(to, at(name)).expect("made");
    }
    assert!(get_into(dir.path(), &at("ours"), false).is_ok());
    assert!(get_into(dir.path(), &at("to-ours"), false).is_ok());
    for (name, state) in [("edited", DownloadState::Completed), ("edited", DownloadState::Paused)] {
        api_state.saving(&Save::Download(DownloadRecord { state, ..record(&at(name)) }));
        api_state.notice(figures(state, 100));
        let error = get_into(dir.path(), &at(name), false).expect_err("edited").to_string();
        assert!(error.contains("is not what was downloaded any more") && error.contains("--force"), "{error}");
    }
    for name in ["to-edited", "to-nothing"] {
        let error = get_into(dir.path(), &at(name), false).expect_err(name).to_string();
        assert!(error.contains("is there already") && error.contains("--force"), "{error}");
        assert!(get_into(dir.path(), &at(name), true).is_ok(), "{name}");
    }
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
    let (_api_state, server) = start(dir.path(), obliging);
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
    let (_api_state, server) = start(dir.path(), obliging);
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
    let (_api_state, _server) = start(dir.path(), obliging);
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
fn connections_beyond_the_limit_wait_and_are_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_api_state, _server) = start(dir.path(), obliging);
    let watch = Request::Watch { download: None };
    let mut held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| call(dir.path(), &watch)).collect();
    let mut one_more = call(dir.path(), &Request::Status);
    assert_eq!(one_more.next(Duration::from_millis(50)), Err(None), "it waits");
    held.pop();
    assert!(matches!(one_more.next(PATIENCE), Ok(Some(Answer::Status(_)))));
}

#[test]
fn a_server_with_a_full_queue_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, server) = start(dir.path(), obliging);
    let watch = Request::Watch { download: None };
    let _held: Vec<_> = (0..CONNECTIONS_MAX + 8).map(|_| call(dir.path(), &watch)).collect();
    api_state.close();
    drop(server);
    assert_eq!(Call::ask(dir.path(), &Request::Status), Ok(None));
}

#[test]
fn a_socket_that_somebody_removes_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_api_state, _server) = start(dir.path(), obliging);
    std::fs::remove_file(dir.path().join(SOCKET)).expect("it was there");
    let until = Instant::now() + PATIENCE;
    while Call::ask(dir.path(), &Request::Status) == Ok(None) {
        assert!(Instant::now() < until, "it stays away");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_question_that_a_restarting_client_does_not_answer_is_asked_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let client = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).expect("bound");
    let empty = Answer::Cache { versions: vec![] };
    let answers = [String::new(), serde_json::to_string(&empty).expect("plain data") + "\n"];
    let answering = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = client.accept().expect("called");
            BufReader::new(&stream).read_line(&mut String::new()).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answered");
        }
    });
    assert_eq!(Call::ask(dir.path(), &Request::CacheList), Ok(Some(empty)));
    answering.join().expect("no panic");
}

/// A machine that gives each object a handle and completes nothing by itself; it appends the commands it gets to
/// `told`.
fn patient(told: Arc<Mutex<Vec<CommandKind>>>) -> impl Fn(&ApiState, Command) + Send + 'static {
    move |api_state, Command { req, kind }| {
        let mut told = told.lock().expect("no panic");
        let handle = match &kind {
            CommandKind::Get { object, output, .. } => {
                let handle = Handle(object.path.parse().expect("a number"));
                let object = object.clone();
                api_state.saving(&Save::Download(DownloadRecord { handle, object, ..record(output) }));
                say_state(api_state, handle.0, DownloadState::Running);
                Some(handle)
            }
            CommandKind::Pause(handle) => {
                say_state(api_state, handle.0, DownloadState::Paused);
                Some(*handle)
            }
            _ => None,
        };
        told.push(kind);
        api_state.notice(Notice::Done { req, result: Ok(handle) });
    }
}

fn say_state(api_state: &ApiState, number: u32, state: DownloadState) {
    let Notice::Download(status) = figures(state, 0) else { unreachable!("figures") };
    let object = ObjectRef { path: number.to_string(), ..status.object };
    api_state.notice(Notice::Download(DownloadStatus { handle: Handle(number), object, ..status }));
}

fn call(dir: &Path, request: &Request) -> Call {
    Call::open(dir, request).expect("speaks").expect("a client runs")
}

fn get_to(dir: &Path, path: impl ToString, output: &str) -> Call {
    let output = dir.join(output).display().to_string();
    let (provider, force, edge, token) = (1, false, None, None);
    call(dir, &Request::Get { provider, path: path.to_string(), output, mode: None, force, edge, token })
}

/// Returns the next answer that is not a line of figures.
fn word(call: &mut Call) -> Option<Answer> {
    loop {
        match call.next(PATIENCE).expect("an answer") {
            Some(Answer::Download(line)) if !line.state.is_at_rest() => {}
            other => return other,
        }
    }
}

fn is_at_rest(call: &mut Call, state: State) -> bool {
    matches!(word(call), Some(Answer::Download(line)) if line.state == state)
}

#[test]
fn gets_beyond_the_limit_wait_for_their_turn() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), patient(Arc::default()));
    let mut going: Vec<_> = (0..OBJECTS_MAX).map(|n| get_to(dir.path(), n, &format!("{n}"))).collect();
    for (n, call) in going.iter_mut().enumerate() {
        assert_eq!(word(call), Some(Answer::Accepted { download: u32::try_from(n).ok() }));
    }
    let mut waits = get_to(dir.path(), 100, "100");
    let mut joins = get_to(dir.path(), 7, "7");
    assert_eq!(word(&mut joins), Some(Answer::Accepted { download: Some(7) }), "no turn is needed for the same");
    assert!(matches!(word(&mut waits), Some(Answer::Waiting { .. })));
    say_state(&api_state, 3, DownloadState::Completed);
    assert_eq!(word(&mut waits), Some(Answer::Accepted { download: Some(100) }));
}

#[test]
fn an_object_goes_to_one_output_after_the_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), patient(Arc::default()));
    let mut first = get_to(dir.path(), 1, "first");
    assert_eq!(word(&mut first), Some(Answer::Accepted { download: Some(1) }));
    let mut second = get_to(dir.path(), 1, "second");
    let Some(Answer::Waiting { reason }) = word(&mut second) else { panic!("it does not wait") };
    assert!(reason.contains("first"), "{reason}");
    say_state(&api_state, 1, DownloadState::Completed);
    assert!(is_at_rest(&mut first, State::Completed));
    assert_eq!(word(&mut second), Some(Answer::Accepted { download: Some(1) }));
}

/// Scenario: after a crash the client continues its download by itself, and the `get`s come back in any order.
#[test]
fn who_follows_a_download_that_runs_goes_before_who_wants_it_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), patient(Arc::default()));
    let output = dir.path().join("first").display().to_string();
    let object = ObjectRef { provider: ProviderId(1), path: "1".into() };
    api_state.saving(&Save::Download(DownloadRecord { object, ..record(&output) }));
    let mut second = get_to(dir.path(), 1, "second");
    assert!(matches!(word(&mut second), Some(Answer::Waiting { .. })));
    let mut first = get_to(dir.path(), 1, "first");
    assert_eq!(word(&mut first), Some(Answer::Accepted { download: Some(1) }));
    say_state(&api_state, 1, DownloadState::Completed);
    assert!(is_at_rest(&mut first, State::Completed));
    assert_eq!(word(&mut second), Some(Answer::Accepted { download: Some(1) }));
}

#[test]
fn the_last_get_that_leaves_a_download_pauses_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let told = Arc::default();
    let (_api_state, _server) = start(dir.path(), patient(Arc::clone(&told)));
    let [mut one, mut two] = [(); 2].map(|()| get_to(dir.path(), 1, "out"));
    for call in [&mut one, &mut two] {
        assert_eq!(word(call), Some(Answer::Accepted { download: Some(1) }));
    }
    one.leave();
    assert_eq!(word(&mut one), Some(Answer::Left));
    assert!(!told.lock().expect("no panic").contains(&CommandKind::Pause(Handle(1))), "the other goes on");
    two.leave();
    assert!(is_at_rest(&mut two, State::Paused));
    let told_by_then = told.lock().expect("no panic").len();
    let mut late = get_to(dir.path(), 2, "late");
    late.leave();
    let last = std::iter::from_fn(|| word(&mut late)).last();
    let told = told.lock().expect("no panic");
    assert!(told[..told_by_then].contains(&CommandKind::Pause(Handle(1))));
    let begun = told[told_by_then..].iter().any(|kind| matches!(kind, CommandKind::Get { .. }));
    let paused = told.contains(&CommandKind::Pause(Handle(2)));
    assert!(begun == paused && (paused || last == Some(Answer::Left)), "{last:?}: {told:?}");
}

#[test]
fn a_get_is_told_that_its_client_ends_and_two_shutdowns_are_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Mutex::new(None);
    // as the client's machine, which hears nothing after the first shutdown
    let (api_state, _server) = start(dir.path(), move |api_state, command| {
        let mut first = first.lock().expect("no panic");
        match (&command.kind, *first) {
            (CommandKind::Shutdown, None) => *first = Some(command.req),
            (CommandKind::Shutdown, Some(req)) => api_state.notice(Notice::Done { req, result: Ok(None) }),
            _ => {
                api_state.saving(&Save::Download(record("/out")));
                api_state.notice(Notice::Done { req: command.req, result: Ok(Some(Handle(1))) });
            }
        }
    });
    let mut get = get_to(dir.path(), "a", "out");
    assert_eq!(word(&mut get), Some(Answer::Accepted { download: Some(1) }));
    let mut ends = [(); 2].map(|()| call(dir.path(), &Request::Shutdown));
    for end in &mut ends {
        assert_eq!(word(end), Some(Answer::Accepted { download: None }));
    }
    assert!(api_state.is_over());
    assert_eq!(word(&mut get), Some(Answer::Over { one_shot: true }));
}

#[test]
fn a_watcher_is_told_when_the_client_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api_state, _server) = start(dir.path(), obliging);
    api_state.saving(&Save::Download(record("/out")));
    let mut call = Call::open(dir.path(), &Request::Watch { download: Some(1) }).expect("speaks").expect("runs");
    assert!(matches!(call.next(PATIENCE), Ok(Some(Answer::Download(_)))));
    api_state.close();
    let Ok(Some(Answer::Error(failure))) = call.next(PATIENCE) else { panic!("no error") };
    assert_eq!(failure.code, Code::Unreachable);
}
