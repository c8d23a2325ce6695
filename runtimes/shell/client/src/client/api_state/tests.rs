//! Tests of the API's state.

use super::*;
use crate::client::protocol::WithoutPeers;
use crate::edge_client::{News, Trouble};
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{DownloadId, Guid, ProviderId, RecordId, VersionId};
use swarmedge_core::role::client::io::{NoPeers, ObjectRef};
use swarmedge_core::wire::List;
use swarmedge_core::wire::control::QueryError;
use swarmedge_core::wire::records::{Side, UsageRecord, UsageState};

fn record(handle: u32) -> DownloadRecord {
    DownloadRecord {
        handle: Handle(handle),
        object: ObjectRef { provider: ProviderId(1), path: "a".into() },
        output: format!("/out/{handle}"),
        replace: false,
        granted: None,
        state: DownloadState::Running,
        usage_seq: 0,
        active_ms: 0,
    }
}

#[test]
fn a_slow_watcher_sees_the_newest_figures_once() {
    let api_state = ApiState::new(StatusLine::default(), |_| true);
    let seen = api_state.changes(0, None, Duration::ZERO).revision;
    api_state.saving(&Save::Download(record(1)));
    api_state.saving(&Save::Download(record(2)));
    for bytes in [10, 20, 30] {
        let status = DownloadStatus { edge_bytes: bytes, ..Entry::new(&record(1)).status };
        api_state.notice(Notice::Download(status));
    }
    let changes = api_state.changes(seen, Some(Handle(1)), Duration::ZERO);
    let [Answer::Download(line)] = changes.lines.as_slice() else { panic!("{changes:?}") };
    assert_eq!((line.edge_bytes, line.output.as_str()), (30, "/out/1"));
    assert!(api_state.changes(changes.revision, None, Duration::ZERO).lines.is_empty());
    api_state.saving(&Save::Forget { handle: Handle(1) });
    assert!(api_state.changes(changes.revision, Some(Handle(1)), Duration::ZERO).forgotten);
}

#[test]
fn a_copy_expires_when_the_newest_notice_says() {
    let api_state = ApiState::new(StatusLine::default(), |_| true);
    let version = VersionId::numbered(1);
    api_state.restored_expiries([(version, 10)].into_iter(), &[]);
    assert!(!api_state.is_expired(version, 9) && api_state.is_expired(version, 10));
    let about = |expires_ms| {
        let policy = Policy { expires_ms, ..Policy::default() };
        notice::Notice::about_version(version, expires_ms, &Terms::Policy(policy))
    };
    api_state.saving(&Save::Notice(about(20)));
    assert!(!api_state.is_expired(version, 19) && api_state.is_expired(version, 20));
    api_state.restored_expiries([(version, 10)].into_iter(), &[about(30)]);
    assert!(!api_state.is_expired(version, 29) && api_state.is_expired(version, 30));
}

#[test]
fn an_edge_that_is_not_trusted_has_not_sent_wrong_bytes() {
    let ended_by = |trouble: Trouble| {
        let api_state = ApiState::new(StatusLine::default(), |_| true);
        api_state.saving(&Save::Download(record(1)));
        api_state.edge_news(News::Trouble(trouble));
        let state = DownloadState::Failed(FailReason::EdgeCorrupt);
        api_state.notice(Notice::Download(DownloadStatus { state, ..Entry::new(&record(1)).status }));
        let lines = api_state.changes(0, Some(Handle(1)), Duration::ZERO).lines;
        let line = lines.into_iter().find_map(|l| if let Answer::Download(line) = l { Some(line) } else { None });
        line.and_then(|line| line.failure).expect("it failed")
    };
    let foreign = Trouble { what: "it is not certified".into(), next: "get the present bundle", wrong: false };
    let failure = ended_by(foreign);
    assert_eq!((failure.code, &failure.next_step[..]), (Code::Unreachable, "get the present bundle"));
    assert_eq!(failure.reason, "no edge can be trusted: it is not certified");
    let failure = ended_by(Trouble { what: "for piece 3".into(), next: "", wrong: true });
    assert_eq!((failure.code, &failure.reason[..]), (Code::Failed, "the edge sends wrong bytes: for piece 3"));
}

#[test]
fn a_command_waits_for_its_own_answer_and_a_dead_machine_ends_the_wait() {
    let (tx, rx) = std::sync::mpsc::channel();
    let api_state = ApiState::new(StatusLine::default(), move |input| tx.send(input).is_ok());
    let shard = api_state.clone();
    let machine = std::thread::spawn(move || {
        while let Ok(Input::Command(Command { req, kind })) = rx.recv() {
            if kind == CommandKind::Uploads(false) {
                shard.close();
                return;
            }
            shard.notice(Notice::Done { req: ReqId(req.0 + 1), result: Ok(None) });
            shard.notice(Notice::Done { req, result: Ok(Some(Handle(7))) });
        }
    });
    assert_eq!(api_state.command(CommandKind::Pause(Handle(7))), Ok(Some(Handle(7))));
    assert_eq!(api_state.command(CommandKind::Uploads(false)).expect_err("gone").code, Code::Unreachable);
    machine.join().expect("no panic");
    assert!(api_state.command(CommandKind::Pause(Handle(7))).is_err());
}

#[test]
fn the_reason_for_no_peers_follows_the_download() {
    let api_state = ApiState::new(StatusLine::default(), |_| true);
    api_state.saving(&Save::Download(record(1)));
    let told = |api_state: &ApiState| {
        let Answer::Why { downloads, .. } = api_state.why(Some(Handle(1)), true) else { panic!("why") };
        downloads[0].without_peers
    };
    let put = |state, edge_bytes| {
        let status = DownloadStatus { state, edge_bytes, size: 9, ..Entry::new(&record(1)).status };
        api_state.notice(Notice::Download(status));
    };
    put(DownloadState::Starting, 0);
    assert_eq!(told(&api_state), Some(WithoutPeers::NotGranted));
    put(DownloadState::Running, 1);
    assert_eq!(told(&api_state), Some(WithoutPeers::NotAnswered));
    api_state.notice(Notice::NoPeers { handle: Handle(1), why: NoPeers::NotConnected });
    assert_eq!(told(&api_state), Some(WithoutPeers::NotConnected));
    api_state.notice(Notice::Session { connected: true });
    assert_eq!(told(&api_state), Some(WithoutPeers::NotAnswered), "that was so before");
    api_state.notice(Notice::NoPeers { handle: Handle(1), why: NoPeers::VersionRefused });
    api_state.notice(Notice::Session { connected: true });
    assert_eq!(told(&api_state), Some(WithoutPeers::NotAnswered), "an update of the client has been accepted");
    put(DownloadState::Completed, 9);
    assert_eq!(told(&api_state), Some(WithoutPeers::EndedBefore));
    for why in [NoPeers::VersionRefused, NoPeers::NotConnected] {
        api_state.notice(Notice::NoPeers { handle: Handle(1), why });
        api_state.notice(Notice::Session { connected: true });
        assert_eq!(told(&api_state), Some(why.into()), "a session after the end changes nothing");
    }
    api_state.notice(Notice::NoPeers { handle: Handle(1), why: NoPeers::Refused(QueryError::Limited) });
    let kept = api_state.why_to_keep(Handle(1)).expect("new");
    assert_eq!((api_state.why_to_keep(Handle(1)), api_state.why_to_keep(Handle(2))), (None, None));
    let later = ApiState::new(StatusLine::default(), |_| true);
    later.restored(
        &DownloadRecord { state: DownloadState::Completed, ..record(1) },
        9,
        &BTreeMap::from([(SourceName::Edge, 9)]),
    );
    later.restored_why(Handle(1), &kept);
    assert_eq!(told(&later), Some(WithoutPeers::Limited));
    api_state.saving(&Save::Forget { handle: Handle(1) });
    assert_eq!(api_state.why_to_keep(Handle(1)), None);
    put(DownloadState::Completed, 0);
    assert_eq!(told(&api_state), Some(WithoutPeers::HereAlready));
}

#[test]
fn the_disk_that_is_full_is_named() {
    let told = |client: StatusLine, no_room: Option<&str>| {
        let api_state = ApiState::new(client, |_| true);
        api_state.saving(&Save::Download(record(1)));
        if let Some(why) = no_room {
            api_state.no_room(Handle(1), why.into());
        }
        let state = DownloadState::Failed(FailReason::NoSpace);
        api_state.notice(Notice::Download(DownloadStatus { state, ..Entry::new(&record(1)).status }));
        api_state.status().downloads.into_iter().find_map(|line| line.failure).expect("it failed")
    };
    let client = StatusLine { state_dir: "/state".into(), ..StatusLine::default() };
    let failure = told(client.clone(), None);
    assert_eq!(failure.reason, "the disk is full: there is no room left in the client's directory, /state");
    assert!(failure.next_step.contains("run the same get again"), "{}", failure.next_step);
    let failure = told(StatusLine { background: true, ..client }, Some("the disk of the output"));
    assert_eq!((failure.code, &failure.reason[..]), (Code::Disk, "the disk is full: the disk of the output"));
    assert!(failure.next_step.contains("goes on by itself"), "{}", failure.next_step);
}

#[test]
fn a_user_may_name_an_edge_by_any_name_that_leads_to_it() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let api_state = ApiState::new(StatusLine::default(), |_| true);
    let origin = |host: &str| Origin { host: host.into(), port: 1 };
    api_state.edge_news(News::Edges(vec![origin("own")]));
    let (names, mut given) = swarmedge_ground::mailbox::mailbox(1);
    api_state.identify_by(names);
    let hears = api_state.clone();
    std::thread::spawn(move || {
        while let Some(name) = futures_lite::future::block_on(given.recv()) {
            let own = match name.host.as_str() {
                "other" => Some(origin("own")),
                "foreign" => Some(origin("foreign")),
                _ => None,
            };
            hears.edge_news(News::Name { name, own });
        }
    });
    let is_taken = |name: &str| api_state.expect_edge(name, PATIENCE).is_ok();
    assert!(is_taken("own:1") && is_taken("other:1") && is_taken("other:1"));
    assert!(!is_taken("foreign:1"), "an edge of the same operator that no bootstrap names");
    let refusal = api_state.expect_edge("nobody:1", PATIENCE).expect_err("no edge answers there");
    assert!(refusal.reason.ends_with("whose edges are own:1"), "{refusal:?}");
}

#[test]
fn a_usage_record_that_could_not_be_saved_is_not_waited_for() {
    let api_state = ApiState::new(StatusLine::default(), |_| true);
    let usage = |n| UsageRecord {
        id: RecordId::numbered(n),
        reporter: Guid::numbered(1),
        side: Side::Downloader,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        seq: n,
        state: UsageState::Completed,
        edge_bytes: 5,
        peers: List::default(),
        elapsed_ms: 1,
        cause: None,
    };
    api_state.saving(&Save::Usage(usage(1)));
    api_state.saving(&Save::Usage(usage(2)));
    assert_eq!(api_state.status().usage_unreported, 2);
    api_state.usage_not_saved(RecordId::numbered(1));
    api_state.saving(&Save::UsageDone(vec![RecordId::numbered(2)]));
    assert_eq!(api_state.status().usage_unreported, 0);
}
