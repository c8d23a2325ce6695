//! Unit tests; those named `loom_` explore every schedule under `swarmedge_loom`.

#[cfg(not(swarmedge_loom))]
mod plain {
    use super::super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn values_come_out_in_order_and_then_the_end() {
        let (tx, mut rx) = mailbox(4);
        (0..3).for_each(|n| tx.try_send(n).expect("room"));
        drop(tx);
        let all = block_on(async {
            let mut all = Vec::new();
            while let Some(n) = rx.recv().await {
                all.push(n);
            }
            all
        });
        assert_eq!(all, [0, 1, 2]);
    }

    #[test]
    fn a_full_mailbox_makes_senders_wait_in_order() {
        let (tx, mut rx) = mailbox(1);
        tx.try_send(0).expect("room");
        assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)));
        let (mut first, mut second) = (Box::pin(tx.send(1)), Box::pin(tx.send(2)));
        block_on(async {
            assert!(poll_once(&mut first).await.is_none());
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(rx.try_recv(), Some(0));
            assert!(poll_once(&mut second).await.is_none(), "the first waited longer");
        });
    }

    #[test]
    fn a_dropped_waiter_passes_its_room_on() {
        let (tx, mut rx) = mailbox(1);
        tx.try_send(0).expect("room");
        let (mut first, mut second) = (Box::pin(tx.send(1)), Box::pin(tx.send(2)));
        block_on(async {
            assert!(poll_once(&mut first).await.is_none());
            assert!(poll_once(&mut second).await.is_none());
            assert_eq!(rx.try_recv(), Some(0));
            drop(first);
            assert_eq!(poll_once(&mut second).await, Some(Ok(())));
            assert_eq!(rx.try_recv(), Some(2));
        });
    }

    #[test]
    fn a_reserved_place_is_kept_and_given_back() {
        let (tx, mut rx) = mailbox(1);
        let permit = tx.reserve().expect("room");
        assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)));
        permit.send(1);
        assert_eq!(rx.try_recv(), Some(1));
        drop(tx.reserve().expect("room"));
        assert_eq!(tx.try_send(2), Ok(()));
    }

    #[test]
    fn a_permit_outlives_its_senders() {
        let (tx, mut rx) = mailbox(1);
        let permit = tx.reserve().expect("room");
        drop(tx);
        assert!(block_on(poll_once(rx.recv())).is_none(), "the end has not come yet");
        permit.send(7);
        assert_eq!(block_on(rx.recv()), Some(7));
        assert_eq!(block_on(rx.recv()), None);
    }

    #[test]
    fn everyone_learns_that_the_receiver_has_gone() {
        let (tx, rx) = mailbox(1);
        tx.try_send(0).expect("room");
        let mut waiting = Box::pin(tx.send(1));
        assert!(block_on(poll_once(&mut waiting)).is_none());
        let permit_less = tx.reserve();
        assert!(matches!(permit_less, Err(TrySendError::Full(()))));
        drop(rx);
        assert_eq!(block_on(waiting), Err(Closed));
        assert_eq!(tx.try_send(2), Err(TrySendError::Closed(2)));
        assert!(tx.is_closed());
    }
}

#[cfg(swarmedge_loom)]
mod explored {
    use super::super::*;
    use loom::future::block_on;
    use loom::thread;

    /// Explores the schedules of three threads with at most two preemptions, in seconds instead of hours. These find
    /// nearly all errors that more preemptions would find (CHESS, Musuvathi and Qadeer 2007).
    fn bounded(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    }

    #[test]
    fn loom_no_value_and_no_wake_up_is_lost() {
        bounded(|| {
            let (tx, mut rx) = mailbox(1);
            let other = tx.clone();
            let a = thread::spawn(move || block_on(tx.send(1)).expect("open"));
            let b = thread::spawn(move || block_on(other.send(2)).expect("open"));
            let mut sum = 0;
            while let Some(n) = block_on(rx.recv()) {
                sum += n;
            }
            assert_eq!(sum, 3);
            a.join().expect("no panic");
            b.join().expect("no panic");
        });
    }

    #[test]
    fn loom_a_waiting_sender_sees_the_receiver_go() {
        loom::model(|| {
            let (tx, rx) = mailbox(1);
            tx.try_send(1).expect("room");
            let waits = thread::spawn(move || block_on(tx.send(2)));
            drop(rx);
            assert_eq!(waits.join().expect("no panic"), Err(Closed));
        });
    }

    #[test]
    fn loom_a_dropped_permit_frees_its_room_for_a_waiting_sender() {
        loom::model(|| {
            let (tx, mut rx) = mailbox(1);
            let permit = tx.reserve().expect("room");
            let waits = thread::spawn(move || block_on(tx.send(2)));
            drop(permit);
            assert_eq!(block_on(rx.recv()), Some(2));
            assert_eq!(waits.join().expect("no panic"), Ok(()));
            assert_eq!(block_on(rx.recv()), None);
        });
    }
}
