use super::*;
use crate::machine::Rng as _;
use crate::seeded::Seeded;
use alloc::vec;

fn pair() -> (Mux, Mux) {
    (Mux::new(Side::Dials), Mux::new(Side::Accepts))
}

/// Passes all waiting frames to the other end, in chunks of `cut` bytes.
fn pass(from: &mut Mux, to: &mut Mux, cut: usize) {
    while let Some(frame) = from.next_frame() {
        frame.chunks(cut).for_each(|part| to.received(part).expect("an honest peer"));
        from.check();
        to.check();
    }
}

fn put(mux: &mut Mux, id: StreamId, bytes: &[u8]) {
    let mut bytes = Bytes::copy_from_slice(bytes);
    mux.write(id, &mut bytes).expect("open");
    assert!(bytes.is_empty(), "it has room");
}

fn all(mux: &mut Mux, id: StreamId) -> (Vec<u8>, Read) {
    let mut text = Vec::new();
    loop {
        match mux.read(id) {
            Read::Bytes(bytes) => text.extend_from_slice(&bytes),
            end => return (text, end),
        }
    }
}

/// Returns the message in a frame.
fn message(frame: &[u8]) -> MuxMsg {
    Framed::decode(&frame[4..]).expect("own").expect("known").msg
}

fn send(mux: &mut Mux, msg: &MuxMsg) -> Result<(), Violation> {
    mux.received(&frame(msg))
}

fn data(stream: StreamId, len: usize) -> MuxMsg {
    MuxMsg::Data(StreamData { stream, bytes: Blob::new(vec![7; len]).expect("short") })
}

#[test]
fn a_stream_works_both_ways_however_its_bytes_are_cut() {
    for cut in [1, 3, 100_000] {
        let (mut a, mut b) = pair();
        let id = a.open().expect("a stream");
        put(&mut a, id, b"question");
        a.finish(id).expect("open");
        pass(&mut a, &mut b, cut);
        assert_eq!(b.accept(), Some(id));
        assert_eq!(all(&mut b, id), (b"question".to_vec(), Read::End));
        put(&mut b, id, &[5; 150_000]);
        b.finish(id).expect("open");
        pass(&mut b, &mut a, cut);
        assert_eq!(all(&mut a, id), (vec![5; 150_000], Read::End));
        assert_eq!((a.open_streams(), b.open_streams()), (0, 0));
        assert_eq!((a.read(id), b.write(id, &mut Bytes::from_static(b"x"))), (Read::Gone, Err(Stopped)));
    }
}

#[test]
fn the_oldest_ready_request_is_answered_first() {
    let (mut a, mut b) = pair();
    let ids = [a.open(), a.open(), a.open()].map(|id| id.expect("a stream"));
    pass(&mut a, &mut b, 1000);
    let [control, first, second] = ids;
    put(&mut b, second, &[2; 60_000]);
    put(&mut b, first, &[1; 60_000]);
    let sent = |b: &mut Mux| match message(&b.next_frame().expect("a frame")) {
        MuxMsg::Data(data) => (data.stream, data.bytes.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(sent(&mut b), (first, MUX_DATA_MAX));
    put(&mut b, control, b"have");
    assert_eq!(sent(&mut b), (control, 4), "control goes between the frames of a request");
    assert_eq!(sent(&mut b), (first, 60_000 - MUX_DATA_MAX));
    assert_eq!(sent(&mut b), (second, MUX_DATA_MAX), "the first waits for its disk");
    put(&mut b, first, &[1; 5]);
    assert_eq!(sent(&mut b), (first, 5));
}

#[test]
fn a_cancelled_request_sends_nothing_after_the_next_frame() {
    let (mut a, mut b) = pair();
    let id = a.open().expect("a stream");
    pass(&mut a, &mut b, 1000);
    put(&mut b, id, &[1; 200_000]);
    a.received(&b.next_frame().expect("data")).expect("fits");
    a.stop(id, 3);
    a.finish(id).expect("open");
    assert_eq!(a.read(id), Read::Gone);
    // bytes under way at the moment of cancelling are discarded
    a.received(&b.next_frame().expect("data")).expect("fits");
    pass(&mut a, &mut b, 1000);
    assert_eq!(b.write(id, &mut Bytes::from_static(b"x")), Err(Stopped));
    assert_eq!(message(&b.next_frame().expect("an end")), MuxMsg::Reset(StreamEnd { stream: id, code: 3 }));
    assert_eq!(b.next_frame(), None);
    assert_eq!((a.open_streams(), b.open_streams(), a.unread()), (0, 0, 0));
}

#[test]
fn a_reset_code_reaches_a_late_reader() {
    let (mut a, mut b) = pair();
    let id = a.open().expect("a stream");
    put(&mut a, id, b"question");
    a.finish(id).expect("open");
    pass(&mut a, &mut b, 1000);
    put(&mut b, id, &[1; 10]);
    pass(&mut b, &mut a, 1000);
    b.reset(id, 4);
    b.stop(id, 4);
    pass(&mut b, &mut a, 1000);
    assert_eq!(all(&mut a, id), (vec![], Read::Reset(4)));
    assert_eq!((a.open_streams(), b.open_streams()), (0, 0));
}

#[test]
fn unread_bytes_stop_the_sender_until_they_are_read() {
    // with a first frame of odd length the window ends within a frame
    for first in [0, 5] {
        let (mut a, mut b) = pair();
        let id = a.open().expect("a stream");
        pass(&mut a, &mut b, 1000);
        put(&mut b, id, &vec![1; first]);
        pass(&mut b, &mut a, 1 << 20);
        let mut written = first;
        loop {
            let mut bytes = Bytes::from(vec![1; MUX_UNSENT_MAX]);
            b.write(id, &mut bytes).expect("open");
            written += MUX_UNSENT_MAX - bytes.len();
            let before = a.unread();
            pass(&mut b, &mut a, 1 << 20);
            if a.unread() == before {
                break;
            }
        }
        assert_eq!(a.unread(), MUX_UNREAD_MAX);
        assert_eq!(written, MUX_UNREAD_MAX + MUX_UNSENT_MAX, "then it may not write either");
        let (read, end) = all(&mut a, id);
        assert_eq!((read.len(), end), (MUX_UNREAD_MAX, Read::Nothing));
        pass(&mut a, &mut b, 1000);
        pass(&mut b, &mut a, 1 << 20);
        assert_eq!(a.unread(), MUX_UNSENT_MAX);
    }
}

#[test]
fn a_stream_that_is_over_before_it_is_accepted_takes_no_other_with_it() {
    let (mut a, mut b) = pair();
    let [first, second, third] = [a.open(), a.open(), a.open()].map(|id| id.expect("a stream"));
    a.reset(second, 1);
    a.stop(second, 1);
    pass(&mut a, &mut b, 1000);
    assert_eq!([b.accept(), b.accept(), b.accept()], [Some(first), Some(third), None]);
}

#[test]
fn frames_that_no_honest_peer_sends_are_violations() {
    let fresh = || {
        let mut mux = Mux::new(Side::Accepts);
        send(&mut mux, &MuxMsg::Open(0)).expect("the first");
        mux
    };
    let after = |msgs: &[MuxMsg]| {
        let mut mux = fresh();
        let (last, before) = msgs.split_last().expect("one");
        before.iter().for_each(|msg| send(&mut mux, msg).expect("still honest"));
        send(&mut mux, last)
    };
    let end = |stream| StreamEnd { stream, code: 1 };
    assert_eq!(after(&[MuxMsg::Open(2)]), Err(Violation::OutOfTurn));
    assert_eq!(after(&[MuxMsg::Open(0)]), Err(Violation::OutOfTurn));
    assert_eq!(send(&mut Mux::new(Side::Dials), &MuxMsg::Open(0)), Err(Violation::OutOfTurn));
    assert_eq!(after(&[data(1, 1)]), Err(Violation::NoStream));
    assert_eq!(after(&[data(0, 0)]), Err(Violation::Window));
    assert_eq!(after(&[MuxMsg::Finish(0), data(0, 1)]), Err(Violation::NoStream));
    assert_eq!(after(&[MuxMsg::Reset(end(0)), MuxMsg::Finish(0)]), Err(Violation::NoStream));
    assert_eq!(after(&[MuxMsg::Stop(end(5))]), Err(Violation::NoStream));
    assert_eq!(after(&[MuxMsg::Taken(1)]), Err(Violation::Taken));
    let full: Vec<_> = (0..=MUX_UNREAD_MAX / MUX_DATA_MAX).map(|_| data(0, MUX_DATA_MAX)).collect();
    assert_eq!(after(&full), Err(Violation::Window));
    let many: Vec<_> = (1..=257).map(MuxMsg::Open).collect();
    assert_eq!(after(&many), Err(Violation::TooMany));
    let pings = vec![MuxMsg::Ping; MUX_NOTES_MAX + 1];
    assert_eq!(after(&pings), Err(Violation::Flood));
    let mut mux = fresh();
    assert_eq!(mux.received(&[0, 1, 0, 1, 0]), Err(Violation::Frame(DecodeError::TooLong)));
    assert_eq!(fresh().received(&[0, 0, 0, 1, 77]), Err(Violation::Frame(DecodeError::UnknownType(77))));
    assert_eq!(fresh().received(&[0, 0, 0, 1, 177]), Ok(()), "a later version's, to be skipped");
}

#[test]
fn opening_and_ending_streams_without_reading_is_a_flood() {
    let mut mux = Mux::new(Side::Accepts);
    let flood = (0..).find_map(|id| {
        let opened = send(&mut mux, &MuxMsg::Open(id)).and_then(|()| send(&mut mux, &MuxMsg::Finish(id)));
        mux.accept().into_iter().for_each(|id| mux.reset(id, 1));
        opened.err().map(|e| (id, e))
    });
    let (id, why) = flood.expect("it ends");
    assert_eq!(why, Violation::Flood);
    assert!(id as usize <= MUX_NOTES_MAX);
}

#[test]
fn a_close_carries_a_code_and_ends_every_stream() {
    let (mut a, mut b) = pair();
    let id = a.open().expect("a stream");
    pass(&mut a, &mut b, 1000);
    put(&mut b, id, &[1; 100_000]);
    b.close(9);
    pass(&mut b, &mut a, 1000);
    assert_eq!((a.closed(), b.closed(), a.read(id), a.unread()), (Some(9), Some(9), Read::Gone, 0));
    assert!(a.touched().contains(&id), "who waits for it is woken");
    assert_eq!(a.next_frame(), None);
}

#[test]
fn no_second_ping_is_sent_before_the_answer() {
    let (mut a, mut b) = pair();
    a.ping();
    a.ping();
    pass(&mut a, &mut b, 1000);
    assert_eq!(message(&b.next_frame().expect("an answer")), MuxMsg::Pong);
    assert_eq!(b.next_frame(), None);
    send(&mut a, &MuxMsg::Pong).expect("expected");
    a.ping();
    assert_eq!(a.next_frame().as_deref().map(message), Some(MuxMsg::Ping));
}

/// Two honest ends open, write, read, stop and reset streams at random over a slow line. Neither side sees a violation,
/// every bound holds, and the bytes read are a prefix of those written.
#[test]
fn honest_ends_never_violate_the_protocol() {
    for seed in 0..10 {
        let mut rng = Seeded::new(seed);
        let (mut a, mut b) = pair();
        let mut lines: [VecDeque<u8>; 2] = Default::default();
        let (mut ids, mut read) = (Vec::new(), BTreeMap::<StreamId, usize>::new());
        for _ in 0..1_000 {
            let pick = |rng: &mut Seeded, ids: &[StreamId]| {
                let n = u32::try_from(ids.len()).expect("few");
                if n == 0 { 0 } else { ids[rng.below(n) as usize] }
            };
            let id = pick(&mut rng, &ids);
            match rng.below(9) {
                0 => ids.extend(a.open()),
                1 => ids.extend(b.accept().filter(|id| !ids.contains(id))),
                2 => {
                    let mut bytes = Bytes::from(vec![u8::try_from(id % 251).expect("a byte"); 40_000]);
                    let _ = b.write(id, &mut bytes);
                }
                3 => a.stop(id, 1),
                4 => _ = a.finish(id),
                5 => _ = b.finish(id),
                6 => b.reset(id, 2),
                _ => {
                    if let Read::Bytes(bytes) = a.read(id) {
                        assert!(bytes.iter().all(|byte| u32::from(*byte) == id % 251), "another stream's bytes");
                        *read.entry(id).or_default() += bytes.len();
                    }
                    b.read(id);
                }
            }
            for (i, mux) in [&mut a, &mut b].into_iter().enumerate() {
                if lines[i].len() < 100_000 {
                    lines[i].extend(mux.next_frame().into_iter().flatten());
                }
            }
            for (i, mux) in [&mut b, &mut a].into_iter().enumerate() {
                let n = lines[i].len().min(rng.below(60_000) as usize);
                let part: Vec<u8> = lines[i].drain(..n).collect();
                assert_eq!(mux.received(&part), Ok(()), "seed {seed}");
                assert!(mux.unread() <= MUX_UNREAD_MAX && mux.open_streams() <= MUX_STREAMS_MAX);
            }
        }
        assert!(read.values().sum::<usize>() > 0, "something was read");
    }
}
