//! Scenarios of edges that fail or cannot write their counts.

use super::*;

pub(super) fn edge_alone(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    wants(rig, 1);
    let s = completes(rig, 1)?;
    need(s.peer_bytes == 0, || format!("peers without a control plane: {s:?}"))
}

pub(super) fn edge_outage(rig: &mut dyn Rig) -> Result<(), String> {
    rig.publish(&FILM);
    wants(rig, 0);
    half_way(rig, 0)?;
    rig.crash(Name(Role::Edge, 0));
    rig.run_until(Duration::from_secs(5), &mut |_| false);
    let s = rig.status(0, FILM.path);
    need(s.is_some_and(|s| s.progress == Progress::Running), || format!("5 s without an edge ended it: {s:?}"))?;
    rig.restart(Name(Role::Edge, 0));
    completes(rig, 0).map(drop)
}

/// Checks that a download continues by itself after a long outage of its only source, the edge, and fetches no piece
/// twice, even if its grant has become too old to be renewed.
pub(super) fn long_outage(rig: &mut dyn Rig) -> Result<(), String> {
    rig.publish(&FILM);
    wants(rig, 0);
    half_way(rig, 0)?;
    rig.crash(Name(Role::Edge, 0));
    let outage = rig.long_outage();
    rig.run_until(outage, &mut |_| false);
    let s = rig.status(0, FILM.path);
    need(s.is_some_and(|s| s.progress == Progress::Running), || format!("{outage:?} without an edge ended it: {s:?}"))?;
    rig.restart(Name(Role::Edge, 0));
    let done = |r: &mut dyn Rig| r.status(0, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    let completed = rig.run_until(LIMIT, &mut |r| done(r));
    need(completed, || format!("it did not go on: {:?}", rig.status(0, FILM.path)))?;
    // the sum of the bytes under both grants
    let told = |t: Totals| t.completed == 1 && t.edge_bytes == FILM.size;
    let good = rig.run_until(LIMIT, &mut |r| told(r.totals(FILM.path)));
    need(good, || format!("the ledger has {:?}", rig.totals(FILM.path)))
}

/// Checks that a client which starts while every edge is down fetches a version granted before from a peer.
pub(super) fn start_without_edge(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    rig.publish(&CRAWLING);
    wants(rig, 1);
    half_way(rig, 1)?;
    rig.crash(Name(Role::Client, 1));
    rig.crash(Name(Role::Edge, 0));
    rig.restart(Name(Role::Client, 1));
    from_peers(rig, 1).map(drop)
}

/// Checks that a download gets bytes from an edge, from a second edge after the first has crashed, and from a peer.
pub(super) fn edge_fails_over(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    // the peer is too slow to deliver all that the first edge had not delivered
    rig.publish(&Object { upload_rate: MIB / 8, ..FILM });
    wants(rig, 1);
    let both = |s: Status| s.edge_bytes > 0 && s.peer_bytes > 0 || s.progress != Progress::Running;
    rig.run_until(LIMIT, &mut |r| r.status(1, FILM.path).is_some_and(both));
    half_way(rig, 1)?;
    rig.crash(Name(Role::Edge, 0));
    // let transfers under way arrive
    rig.run_until(Duration::from_millis(200), &mut |_| false);
    let before = rig.status(1, FILM.path);
    let s = completes(rig, 1)?;
    need(s.peer_bytes > 0 && before.is_some_and(|b| s.edge_bytes > b.edge_bytes), || {
        format!("not from a peer and then the other edge: {before:?}, then {s:?}")
    })?;
    // the restarted edge reports its counts
    rig.restart(Name(Role::Edge, 0));
    let (edge, peer) = (FILM.size + s.edge_bytes, s.peer_bytes);
    let told = |t: Totals| (t.completed, t.edge_bytes, t.peer_bytes, t.agreed_bytes) == (2, edge, peer, peer);
    // the downloader's own report includes the bytes of the last seconds before the edge's crash
    let counted = |t: Totals| t.edge_unique_bytes >= edge;
    let good = rig.run_until(LIMIT, &mut |r| told(r.totals(FILM.path)) && counted(r.totals(FILM.path)));
    let t = rig.totals(FILM.path);
    need(good, || format!("{edge} bytes from edges and {peer} from a peer, but the ledger has {t:?}"))?;
    need(t.billed_bytes == peer && peer + t.edge_unique_bytes <= 2 * FILM.size, || {
        format!("two downloads, billed otherwise: {t:?}")
    })
}

/// Checks downloads while the edge's full disk keeps it from counting: half of one download, and all of another.
pub(super) fn uncounted(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, HONEST)])?;
    wants(rig, 1);
    half_way(rig, 1)?;
    rig.spool_refuses(0, true);
    // bytes fetched before the client had to disconnect its peers are counted for the old download
    let done = |r: &mut dyn Rig| r.status(1, FILM.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    let completed = rig.run_until(LIMIT, &mut |r| done(r));
    need(completed, || format!("client1 did not complete: {:?}", rig.status(1, FILM.path)))?;
    wants(rig, 2);
    let s = completes(rig, 2)?;
    need(s.peer_bytes == 0, || format!("peers, though nobody could be billed for them: {s:?}"))?;
    rig.spool_refuses(0, false);
    rig.run_until(Duration::from_secs(5), &mut |_| false);
    rig.publish(&CRAWLING);
    wants(rig, 3);
    let s = from_peers(rig, 3)?;
    let told = |t: Totals| t.peer_bytes >= s.peer_bytes && t.billed_bytes >= s.peer_bytes;
    let good = rig.run_until(LIMIT, &mut |r| told(r.totals(FILM.path)));
    let t = rig.totals(FILM.path);
    need(good, || format!("{} bytes from peers, but the ledger has {t:?}", s.peer_bytes))?;
    // four clients have the object, and one of them got it without being counted
    need(t.billed_bytes <= t.peer_bytes && t.billed_bytes + t.edge_unique_bytes <= 3 * FILM.size, || {
        format!("billed for what was not counted: {t:?}")
    })
}
