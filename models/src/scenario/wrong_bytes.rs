//! Scenarios in which a seeder sends wrong bytes.

use super::{CRAWLING, ClientOptions, FILM, HONEST, LIMIT, Rig, begin, from_peers, need, wants};

/// Lets a seeder send wrong bytes though its store has the right ones: it costs a downloader one piece at most.
pub(super) fn corrupting_seeder(rig: &mut dyn Rig) -> Result<(), String> {
    begin(rig, &[(0, ClientOptions { corrupts: true, ..HONEST })])?;
    rig.publish(&CRAWLING);
    wants(rig, 2);
    // no other peer can deliver until the wrong bytes were found
    rig.run_until(LIMIT, &mut |r| r.status(2, FILM.path).is_some_and(|s| s.wasted_bytes > 0));
    begin(rig, &[(1, HONEST)])?;
    let s = from_peers(rig, 2)?;
    need(s.wasted_bytes > 0, || format!("the corrupting seeder was never asked: {s:?}"))?;
    need(s.wasted_bytes <= 64 * 1024, || format!("more than one piece was wasted: {s:?}"))
}

/// Lets a seeder's stored copy rot unseen: the downloader blames it, and the seeder drops the copy.
pub(super) fn rotten_seeder(rig: &mut dyn Rig) -> Result<(), String> {
    // a store that had given the file a second name would hash it before it serves it
    begin(rig, &[(0, ClientOptions { copies: true, ..HONEST })])?;
    rig.rot(0);
    rig.publish(&CRAWLING);
    wants(rig, 2);
    let dropped = rig.run_until(LIMIT, &mut |r| !r.holds(0, FILM.path));
    need(dropped, || format!("a blamed seeder keeps its rotten copy: {:?}", rig.status(2, FILM.path)))?;
    begin(rig, &[(1, HONEST)])?;
    let s = from_peers(rig, 2)?;
    need(s.wasted_bytes > 0, || format!("the rotten copy was never served: {s:?}"))?;
    rig.publish(&CRAWLING);
    wants(rig, 3);
    // blocks that came twice, from edge and peer, are wasted too: only what the seeder holds tells
    let s = from_peers(rig, 3)?;
    need(!rig.holds(0, FILM.path), || format!("the seeder has its rotten copy again: {s:?}"))?;
    need(rig.holds(1, FILM.path), || "an honest seeder lost its copy".into())?;
    let one = rig.run_until(LIMIT, &mut |r| r.blamed() == 1);
    need(one, || format!("the ledger shows {} blamed copies", rig.blamed()))
}
