//! Scenarios in which a policy is published anew while there are copies and downloads of the version.

use super::*;

/// An object so large that one transfer of it runs under two policies.
const LONG: Object = Object { path: "long", size: 32 * MIB, edge_rate: 0, upload_rate: MIB, uploads_max: 0 };
/// Upload rate of the new policy, bytes a second.
const SLOW: u64 = MIB / 16;
/// Time over which the receiver counts the bytes from peers.
const SPAN: Duration = Duration::from_secs(15);
/// Tolerated bytes of pieces that were begun before a span and end in it.
const BEGUN: u64 = 4 * MIB;

/// Returns the bytes of [`LONG`] that the client has from peers; an error unless the download runs.
fn running(rig: &mut dyn Rig, client: u8) -> Result<u64, String> {
    let s = rig.status(client, LONG.path);
    let running = s.filter(|s| s.progress == Progress::Running);
    running.map(|s| s.peer_bytes).ok_or_else(|| format!("client{client} does not download: {s:?}"))
}

/// Checks that a lower upload rate takes effect within a minute on a transfer under way, by the receiver's count of
/// bytes, and that the uploader then obeys the next policy, too.
pub(super) fn changed(rig: &mut dyn Rig) -> Result<(), String> {
    rig.publish(&LONG);
    rig.start_client(0, HONEST);
    rig.command(0, Command::Get(LONG.path));
    let done =
        |r: &mut dyn Rig, c| r.status(c, LONG.path).is_some_and(|s| s.progress == Progress::Completed && s.right);
    need(rig.run_until(LIMIT, &mut |r| done(r, 0)), || "the first client does not complete".into())?;
    let crawling = Object { edge_rate: MIB / 32, ..LONG };
    rig.publish(&crawling);
    rig.start_client(1, HONEST);
    rig.command(1, Command::Get(LONG.path));
    let begun = |r: &mut dyn Rig| r.status(1, LONG.path).is_some_and(|s| s.peer_bytes >= MIB);
    need(rig.run_until(LIMIT, &mut |r| begun(r)), || "nothing comes from the peer".into())?;
    rig.publish(&Object { upload_rate: SLOW, ..crawling });
    let mut counted = Vec::new();
    let enough = SLOW * SPAN.as_secs() + BEGUN;
    // at most four spans, which together take a minute
    while counted.last().is_none_or(|bytes| *bytes > enough) {
        need(counted.len() < 4, || format!("bytes from peers in spans of {SPAN:?}, of a minute: {counted:?}"))?;
        let before = running(rig, 1)?;
        rig.run_until(SPAN, &mut |_| false);
        counted.push(running(rig, 1)? - before);
    }
    rig.publish(&Object { upload_rate: 0, ..crawling });
    need(rig.run_until(LIMIT, &mut |r| done(r, 1)), || "the rate stays low under the next policy".into())
}
