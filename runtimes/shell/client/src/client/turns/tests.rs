#[cfg(not(swarmedge_loom))]
mod usual {
    use super::super::*;

    #[test]
    fn who_has_waited_longest_goes_next_and_the_same_wish_joins() {
        let turns = Turns::new(2);
        let (a, b) = (turns.ask('a', 1), turns.ask('b', 1));
        let (mut c, d) = (turns.ask('c', 1), turns.ask('d', 1));
        let joined = turns.ask('a', 1);
        let stands = |place: &QueueSlot<char, i32>| place.look().0;
        assert_eq!(
            [&a, &b, &c, &d, &joined].map(stands),
            [Turn::Come, Turn::Come, Turn::Behind, Turn::Behind, Turn::Come]
        );
        drop(a);
        assert_eq!(stands(&c), Turn::Behind, "the other still follows");
        drop(joined);
        assert_eq!([&c, &d].map(stands), [Turn::Come, Turn::Behind]);
        assert_eq!(c.leave(|| "last"), Some("last"));
        assert_eq!(c.leave(|| "again"), None);
        assert_eq!((stands(&d), turns.count()), (Turn::Come, 2));
    }

    #[test]
    fn an_object_goes_to_one_place_at_a_time() {
        let turns = Turns::new(9);
        let (mut one, two) = (turns.ask('a', 1), turns.ask('a', 2));
        assert_eq!(two.look().0, Turn::Elsewhere(1));
        let joined = turns.ask('a', 1);
        assert_eq!(one.leave(|| ()), None, "another follows it");
        drop(joined);
        assert_eq!(two.look().0, Turn::Come);
    }

    #[test]
    fn a_get_to_the_same_output_joins_and_another_output_waits() {
        let turns = Turns::new(9);
        let two = turns.ask('a', 2);
        let one = turns.ask('a', 1);
        assert_eq!([two.look().0, one.look().0], [Turn::Come, Turn::Elsewhere(2)]);
        // a download that nobody follows goes there
        two.let_pass(1);
        assert_eq!([two.look().0, one.look().0], [Turn::Elsewhere(1), Turn::Come]);
        two.come_back();
        assert_eq!([two.look().0, one.look().0], [Turn::Elsewhere(1), Turn::Come]);
        drop(one);
        assert_eq!(two.look().0, Turn::Come);
    }
}

#[cfg(swarmedge_loom)]
mod explored {
    use super::super::*;
    use loom::thread;

    const PATIENCE: Duration = Duration::from_secs(3600);

    fn await_turn(place: &QueueSlot<char, i32>) {
        while let (Turn::Behind | Turn::Elsewhere(_), seen) = place.look() {
            place.wait(seen, PATIENCE);
        }
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Told {
        Get,
        Pause,
    }

    /// Rule: the last command to leave pauses the download; it is never paused while another command waits for it.
    #[test]
    fn loom_who_joins_a_download_that_another_leaves_is_not_paused() {
        loom::model(|| {
            let turns = Turns::new(1);
            let machine = Arc::new(Mutex::new(vec![Told::Get]));
            let mut leaves = turns.ask('a', 1);
            let theirs = Arc::clone(&machine);
            let other = thread::spawn(move || {
                leaves.leave(|| theirs.lock().expect("no panic").push(Told::Pause));
            });
            let joins = turns.ask('a', 1);
            await_turn(&joins);
            machine.lock().expect("no panic").push(Told::Get);
            other.join().expect("no panic");
            assert!(machine.lock().expect("no panic").last() == Some(&Told::Get));
        });
    }

    #[test]
    fn loom_of_two_who_leave_exactly_one_is_the_last() {
        loom::model(|| {
            let turns = Turns::new(1);
            let (mut one, mut two) = (turns.ask('a', 1), turns.ask('a', 1));
            let other = thread::spawn(move || one.leave(|| ()).is_some());
            let last = two.leave(|| ()).is_some();
            assert_ne!(other.join().expect("no panic"), last);
        });
    }

    #[test]
    fn loom_every_turn_comes() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(|| {
            let turns = Arc::new(Turns::new(1));
            let wishes = [('a', 1), ('b', 1), ('a', 2)];
            let all = wishes.map(|(what, to)| {
                let turns = Arc::clone(&turns);
                thread::spawn(move || await_turn(&turns.ask(what, to)))
            });
            all.into_iter().for_each(|one| one.join().expect("no panic"));
            assert_eq!(turns.count(), 0);
        });
    }
}
