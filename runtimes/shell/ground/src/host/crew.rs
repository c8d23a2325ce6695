//! Runs the servers of one process, each on a thread with its own runtime, so that a busy one delays no other.

use super::{Lives, Server};
use crate::error::Error;
use crate::http::Signal;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::rt::{Rt, Start};
use futures_lite::future::or;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::thread::{self, JoinHandle};

/// Capacity of the mailboxes between [`run`] and a server's thread: at most two messages are queued in each
/// direction.
const MESSAGES_MAX: usize = 2;

type Opening = Pin<Box<dyn Future<Output = Result<Server, Error>>>>;
type Open<R> = Box<dyn FnOnce(R, Signal) -> Opening + Send>;

/// A server that [`run`] is to open and run on its own thread.
pub struct Member<R> {
    name: &'static str,
    open: Open<R>,
    stops_last: bool,
}

impl<R: Rt> Member<R> {
    /// Makes a member whose thread has this name and opens the server with `open`. The server stops when its signal is
    /// set.
    pub fn new<F>(name: &'static str, open: impl FnOnce(R, Signal) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Server, Error>> + 'static,
    {
        Self { name, open: Box::new(move |rt, stop| Box::pin(open(rt, stop))), stops_last: false }
    }

    /// Has the open server add to `lives` what it can take from changed files.
    #[must_use]
    pub fn reporting(mut self, lives: &Lives) -> Self
    where
        R: 'static,
    {
        let (open, name, lives) = (self.open, self.name, lives.clone());
        self.open = Box::new(move |rt, stop| {
            let opening = open(rt, stop);
            Box::pin(async move {
                let mut server = opening.await?;
                lives.add(name, server.take_live());
                Ok(server)
            })
        });
        self
    }

    /// Makes this member stop only after all others have ended, because they hand records over to it (the ledger).
    #[must_use]
    pub fn stopping_last(mut self) -> Self {
        self.stops_last = true;
        self
    }
}

impl<R> fmt::Debug for Member<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({})", self.name)
    }
}

/// Opens the members one after another, then runs them until `stop_requested` is set. If one cannot be opened, those
/// that are open end, and none runs. If a running one fails, the others are stopped. Returns the error of the first
/// member that has one; members with [`Member::stops_last`] are stopped after the others, and count after them.
pub async fn run<R: Start>(members: Vec<Member<R>>, stop_requested: Signal) -> Result<(), Error> {
    let mut threads = Vec::new();
    for member in members {
        let mut thread = Thread::start(member)?;
        match thread.news.recv().await {
            Some(News::Opened) => threads.push(thread),
            Some(News::Ended(Err(error))) => return Err(error),
            Some(News::Ended(Ok(()))) | None => return Err(thread.lost()),
        }
    }
    let (mut last, mut others): (Vec<_>, Vec<_>) = threads.into_iter().partition(|t| t.stops_last);
    let stop = Signal::default();
    let stopping_last = Signal::default();
    let work = async {
        let ended = work_through(&mut others, &stop, &stop).await;
        // if the others end early, or there are none, those that stop last run on until `stop` is set
        stop.wait().await;
        stopping_last.set();
        ended
    };
    let last_work = work_through(&mut last, &stopping_last, &stop);
    let forwarding_stop = async {
        stop_requested.wait().await;
        stop.set();
        std::future::pending().await
    };
    let working = futures_lite::future::zip(work, last_work);
    let (others, last) = or(working, forwarding_stop).await;
    others.and(last)
}

/// Runs these servers until `stop` is set; sets `failed` when one fails. Returns the first error in their order.
async fn work_through(threads: &mut [Thread], stop: &Signal, failed: &Signal) -> Result<(), Error> {
    let mut all: Pin<Box<dyn Future<Output = Result<(), Error>> + '_>> = Box::pin(async { Ok(()) });
    for thread in threads {
        let next = thread.work(stop, failed);
        all = Box::pin(async move {
            let (before, this) = futures_lite::future::zip(all, next).await;
            before.and(this)
        });
    }
    all.await
}

/// Handle to a server's thread. Dropping it ends a server that is open but not running, and joins the thread.
struct Thread {
    name: &'static str,
    stops_last: bool,
    orders: Option<Sender<Order>>,
    news: Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

/// Command to a server's thread.
enum Order {
    Run,
    Stop,
}

/// Report of a server's thread.
enum News {
    /// The server is open and waits for [`Order::Run`].
    Opened,
    /// The server has ended, or could not be opened.
    Ended(Result<(), Error>),
}

impl Thread {
    fn start<R: Start>(member: Member<R>) -> Result<Self, Error> {
        let Member { name, open, stops_last } = member;
        let (orders, orders_rx) = mailbox(MESSAGES_MAX);
        let (news_tx, news) = mailbox(MESSAGES_MAX);
        let main = move || {
            let opened = news_tx.clone();
            let served = || R::block_on(move |rt| serve(rt, open, orders_rx, opened));
            let ended = catch_unwind(AssertUnwindSafe(served)).unwrap_or_else(|_| Err(panicked(name)));
            // there is room for both messages; the send fails only if `run` has given up
            let _ = news_tx.try_send(News::Ended(ended));
        };
        let thread = thread::Builder::new().name(name.into()).spawn(main);
        let thread = thread.map_err(|e| Error::io(format_args!("start a thread for {name}"), &e))?;
        Ok(Self { name, stops_last, orders: Some(orders), news, thread: Some(thread) })
    }

    /// Runs the server until it ends by itself or because `stop` was set.
    async fn work(&mut self, stop: &Signal, failed: &Signal) -> Result<(), Error> {
        if let Some(orders) = &self.orders {
            let _ = orders.try_send(Order::Run);
        }
        let orders = self.orders.take();
        let stopping = async {
            stop.wait().await;
            if let Some(orders) = orders {
                let _ = orders.try_send(Order::Stop);
            }
            std::future::pending().await
        };
        let ended = match or(self.news.recv(), stopping).await {
            Some(News::Ended(ended)) => ended,
            Some(News::Opened) | None => Err(self.lost()),
        };
        ended.map_err(|error| {
            tracing::error!(role = self.name, %error, "server failed");
            failed.set();
            Error::failed(format_args!("{}: {error}", self.name))
        })
    }

    fn lost(&self) -> Error {
        panicked(self.name)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // the result was reported as `News::Ended` before
            let _ = thread.join();
        }
    }
}

fn panicked(name: &str) -> Error {
    Error::failed(format_args!("the thread of {name} has panicked"))
}

/// Opens and runs one server on its own thread, following orders.
async fn serve<R: Rt>(rt: R, open: Open<R>, mut orders: Receiver<Order>, opened: Sender<News>) -> Result<(), Error> {
    let stop = Signal::default();
    let server = open(rt.clone(), stop.clone()).await?;
    let _ = opened.try_send(News::Opened);
    drop(opened);
    if !matches!(orders.recv().await, Some(Order::Run)) {
        return Ok(());
    }
    rt.spawn(async move {
        // a closed mailbox means stop too
        let _ = orders.recv().await;
        stop.set();
    });
    server.run().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::rt::testing::TestRt;
    use std::sync::{Arc, Mutex};

    type Events = Arc<Mutex<Vec<String>>>;

    fn say(events: &Events, what: &str) {
        events.lock().expect("nobody has panicked").push(what.to_owned());
    }

    /// Makes a server that records its thread's name and its end in `events`; it fails at once if `fails`.
    fn server(events: &Events, name: &'static str, fails: bool) -> Member<TestRt> {
        let events = Arc::clone(events);
        Member::new(name, async move |_, stop: Signal| {
            say(&events, &format!("{name} opens on {}", thread::current().name().unwrap_or_default()));
            let run = async move {
                if !fails {
                    stop.wait().await;
                }
                say(&events, &format!("{name} ends"));
                if fails { Err(Error::new(Code::Disk, "no more")) } else { Ok(()) }
            };
            Ok(Server::new("127.0.0.1:1".parse().expect("an address"), None, run))
        })
    }

    fn play(members: Vec<Member<TestRt>>, stopped: bool) -> Result<(), Error> {
        TestRt::block_on(move |_| async move {
            let stop_requested = Signal::default();
            if stopped {
                stop_requested.set();
            }
            run(members, stop_requested).await
        })
    }

    fn ends(events: &Events) -> Vec<String> {
        events.lock().expect("nobody has panicked").iter().filter(|s| s.ends_with("ends")).cloned().collect()
    }

    #[test]
    fn members_open_in_order_on_own_threads_and_the_marked_one_stops_last() {
        let events = Events::default();
        let members = vec![server(&events, "books", false).stopping_last(), server(&events, "shop", false)];
        assert_eq!(play(members, true), Ok(()));
        let recorded = events.lock().expect("nobody has panicked").clone();
        assert_eq!(recorded, ["books opens on books", "shop opens on shop", "shop ends", "books ends"]);
    }

    #[test]
    fn a_single_member_that_stops_last_runs_until_the_signal() {
        let events = Events::default();
        assert_eq!(play(vec![server(&events, "books", false).stopping_last()], true), Ok(()));
        assert_eq!(ends(&events), ["books ends"]);
    }

    #[test]
    fn a_failing_server_stops_all_others_and_is_named() {
        for fails in ["books", "shop"] {
            let events = Events::default();
            let one = |name| server(&events, name, name == fails);
            let failed = play(vec![one("books").stopping_last(), one("shop"), one("door")], false);
            assert_eq!(failed, Err(Error::failed(format!("{fails}: no more"))));
            assert_eq!(ends(&events).len(), 3, "{events:?}");
        }
    }

    #[test]
    fn an_error_while_one_opens_is_returned_before_any_runs() {
        let events = Events::default();
        let refusal = || Error::new(Code::Usage, "no such key").next("make one");
        let bad = Member::new("bad", async move |_, _| Err(refusal()));
        let failed = play(vec![server(&events, "books", false), bad, server(&events, "shop", false)], false);
        assert_eq!(failed, Err(refusal()));
        let recorded = events.lock().expect("nobody has panicked").clone();
        assert_eq!(recorded, ["books opens on books"], "the open one does not run, the later one does not open");
    }

    #[test]
    fn a_panic_in_one_thread_stops_the_others_in_order() {
        let events = Events::default();
        let bad = Member::new("bad", async move |_, _| {
            Ok(Server::new("127.0.0.1:1".parse().expect("an address"), None, async { panic!("a bug") }))
        });
        let failed = play(vec![server(&events, "books", false).stopping_last(), bad], false).expect_err("a bug");
        assert!(failed.to_string().contains("bad"), "{failed}");
        assert_eq!(ends(&events), ["books ends"]);
    }
}
