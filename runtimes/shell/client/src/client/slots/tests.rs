#[cfg(not(swarmedge_loom))]
mod usual {
    use super::super::*;

    const SOON: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(120);

    #[test]
    fn two_shutdowns_are_both_answered_by_whichever_the_machine_answers() {
        for told in [0, 1] {
            let slots = Slots::new();
            let reqs = [slots.open_shutdown().expect("runs"), slots.open_shutdown().expect("runs")];
            slots.answer(reqs[told], Ok(None));
            assert!(slots.is_over());
            assert_eq!(reqs.map(|req| slots.wait(req, PATIENCE)), [Waited::Answered(Ok(None)); 2]);
            assert_eq!((slots.open(), slots.open_shutdown()), (None, None));
        }
    }

    #[test]
    fn the_end_of_the_machine_ends_what_waits_and_keeps_what_was_answered() {
        let slots = Slots::new();
        let (done, left) = (slots.open().expect("runs"), slots.open().expect("runs"));
        assert_eq!(slots.wait(slots.open().expect("runs"), SOON), Waited::Silent);
        slots.answer(done, Ok(Some(Handle(7))));
        slots.close();
        assert_eq!(slots.wait(done, PATIENCE), Waited::Answered(Ok(Some(Handle(7)))));
        assert_eq!(slots.wait(left, PATIENCE), Waited::Over);
        assert!(slots.lock().waited.is_empty());
    }
}

#[cfg(swarmedge_loom)]
mod explored {
    use super::super::*;
    use loom::future::block_on;
    use loom::sync::{Arc, mpsc};
    use loom::thread;

    const PATIENCE: Duration = Duration::from_secs(3600);

    /// A machine that carries out its commands in order and answers none after a shutdown, as the client's machine
    /// does.
    struct Machine(thread::JoinHandle<mpsc::Receiver<(ReqId, bool)>>);

    impl Machine {
        fn start(slots: Arc<Slots>, commands: mpsc::Receiver<(ReqId, bool)>) -> Self {
            Self(thread::spawn(move || {
                while let Ok((req, shuts_down)) = commands.recv() {
                    slots.answer(req, Ok(None));
                    if shuts_down {
                        break;
                    }
                }
                commands
            }))
        }

        /// Consumes all remaining messages, as loom requires at a model's end.
        fn end(self) {
            let commands = self.0.join().expect("no panic");
            while commands.try_recv().is_ok() {}
        }
    }

    fn bounded(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    }

    #[test]
    fn loom_two_shutdowns_at_once_are_both_answered() {
        bounded(|| {
            let slots = Arc::new(Slots::new());
            let (tx, rx) = mpsc::channel();
            let ends = [tx.clone(), tx].map(|tx| {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    let Some(req) = slots.open_shutdown() else { return };
                    // nobody takes it once the machine has ended
                    let _ = tx.send((req, true));
                    assert_eq!(slots.wait(req, PATIENCE), Waited::Answered(Ok(None)));
                })
            });
            let machine = Machine::start(slots, rx);
            ends.into_iter().for_each(|end| end.join().expect("no panic"));
            machine.end();
        });
    }

    #[test]
    fn loom_a_command_beside_a_shutdown_waits_for_no_answer_that_cannot_come() {
        bounded(|| {
            let slots = Arc::new(Slots::new());
            let (tx, rx) = mpsc::channel();
            let (theirs, to) = (Arc::clone(&slots), tx.clone());
            let command = thread::spawn(move || {
                let Some(req) = theirs.open() else { return };
                let _ = to.send((req, false));
                assert_ne!(theirs.wait(req, PATIENCE), Waited::Silent);
            });
            if let Some(req) = slots.open_shutdown() {
                let _ = tx.send((req, true));
            }
            drop(tx);
            let machine = Machine::start(slots, rx);
            command.join().expect("no panic");
            machine.end();
        });
    }

    #[test]
    fn loom_the_first_shutdown_wakes_who_waits_for_it() {
        loom::model(|| {
            let slots = Arc::new(Slots::new());
            let theirs = Arc::clone(&slots);
            let asks = thread::spawn(move || theirs.open_shutdown().is_some());
            block_on(slots.shutdown_asked());
            assert!(slots.is_shutdown_asked() && asks.join().expect("no panic"));
        });
    }
}
