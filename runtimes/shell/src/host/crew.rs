//! Servers of one process, each on a thread with a runtime of its own: one that has much to do holds up no other.

use super::Server;
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

/// What a thread tells of its server: that it is open, that it has ended.
const NEWS: usize = 2;

type Opening = Pin<Box<dyn Future<Output = Result<Server, Error>>>>;
type Open<R> = Box<dyn FnOnce(R, Signal) -> Opening + Send>;

/// A server that is to run.
pub struct Member<R> {
    name: &'static str,
    open: Open<R>,
    stops_last: bool,
}

impl<R: Rt> Member<R> {
    /// The server that `open` gives, on a thread of this name. It stops when the signal is set.
    pub fn new<F>(name: &'static str, open: impl FnOnce(R, Signal) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<Server, Error>> + 'static,
    {
        Self { name, open: Box::new(move |rt, stop| Box::pin(open(rt, stop))), stops_last: false }
    }

    /// The same, told to stop only when all others have ended: they hand over to it.
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

/// Opens all, one after another, then runs them until `told` is set. An error while one is opened ends all; the failure
/// of one that runs stops the others. The first error counts, in the order of `members`, of those that stop last at the
/// end.
pub async fn run<R: Start>(members: Vec<Member<R>>, told: Signal) -> Result<(), Error> {
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
        // those that stop last are not stopped by the others' absence, but by their end after all were told to
        stop.wait().await;
        stopping_last.set();
        ended
    };
    let last_work = work_through(&mut last, &stopping_last, &stop);
    let telling = async {
        told.wait().await;
        stop.set();
        std::future::pending().await
    };
    let working = futures_lite::future::zip(work, last_work);
    let (others, last) = or(working, telling).await;
    others.and(last)
}

/// Lets these servers run until `stop` is set; sets `failed` where one fails. Gives the first error of all.
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

/// A server's thread, as the others see it. Dropping it ends a server that does not run yet, and waits for the thread.
struct Thread {
    name: &'static str,
    stops_last: bool,
    orders: Option<Sender<Order>>,
    news: Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Run,
    Stop,
}

enum News {
    Opened,
    Ended(Result<(), Error>),
}

impl Thread {
    fn start<R: Start>(member: Member<R>) -> Result<Self, Error> {
        let Member { name, open, stops_last } = member;
        let (orders, taken) = mailbox(NEWS);
        let (tells, news) = mailbox(NEWS);
        let main = move || {
            let opened = tells.clone();
            let served = || R::block_on(move |rt| serve(rt, open, taken, opened));
            let ended = catch_unwind(AssertUnwindSafe(served)).unwrap_or_else(|_| Err(panicked(name)));
            // there is room for both news; whoever started this may have given up
            let _ = tells.try_send(News::Ended(ended));
        };
        let thread = thread::Builder::new().name(name.into()).spawn(main);
        let thread = thread.map_err(|e| Error::io(format_args!("start a thread for {name}"), &e))?;
        Ok(Self { name, stops_last, orders: Some(orders), news, thread: Some(thread) })
    }

    /// Lets the server run until `stop` is set, or by itself to its end.
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
            tracing::error!(role = self.name, %error, "failed");
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
            // how it ended was told before
            let _ = thread.join();
        }
    }
}

fn panicked(name: &str) -> Error {
    Error::failed(format_args!("the thread of {name} has panicked"))
}

/// The whole life of one server, on its own thread.
async fn serve<R: Rt>(rt: R, open: Open<R>, mut orders: Receiver<Order>, opened: Sender<News>) -> Result<(), Error> {
    let stop = Signal::default();
    let server = open(rt.clone(), stop.clone()).await?;
    let _ = opened.try_send(News::Opened);
    drop(opened);
    if !matches!(orders.recv().await, Some(Order::Run)) {
        return Ok(());
    }
    rt.spawn(async move {
        // an end without a word is one too
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

    type Said = Arc<Mutex<Vec<String>>>;

    fn say(said: &Said, what: &str) {
        said.lock().expect("nobody has panicked").push(what.to_owned());
    }

    /// Tells on which thread it is open and when it has stopped; fails where it is told `fails`.
    fn server(said: &Said, name: &'static str, fails: bool) -> Member<TestRt> {
        let said = Arc::clone(said);
        Member::new(name, async move |_, stop: Signal| {
            say(&said, &format!("{name} opens on {}", thread::current().name().unwrap_or_default()));
            let run = async move {
                if !fails {
                    stop.wait().await;
                }
                say(&said, &format!("{name} ends"));
                if fails { Err(Error::new(Code::Disk, "no more")) } else { Ok(()) }
            };
            Ok(Server::new("127.0.0.1:1".parse().expect("an address"), None, run))
        })
    }

    fn play(members: Vec<Member<TestRt>>, is_told: bool) -> Result<(), Error> {
        TestRt::block_on(move |_| async move {
            let told = Signal::default();
            if is_told {
                told.set();
            }
            run(members, told).await
        })
    }

    fn ends(said: &Said) -> Vec<String> {
        said.lock().expect("nobody has panicked").iter().filter(|s| s.ends_with("ends")).cloned().collect()
    }

    #[test]
    fn each_opens_in_order_on_its_own_thread_and_whom_others_need_stops_last() {
        let said = Said::default();
        let members = vec![server(&said, "books", false).stopping_last(), server(&said, "shop", false)];
        assert_eq!(play(members, true), Ok(()));
        let heard = said.lock().expect("nobody has panicked").clone();
        assert_eq!(heard, ["books opens on books", "shop opens on shop", "shop ends", "books ends"]);
    }

    #[test]
    fn one_alone_that_stops_last_runs_until_it_is_told() {
        let said = Said::default();
        assert_eq!(play(vec![server(&said, "books", false).stopping_last()], true), Ok(()));
        assert_eq!(ends(&said), ["books ends"]);
    }

    #[test]
    fn who_fails_stops_all_others_and_is_named() {
        for fails in ["books", "shop"] {
            let said = Said::default();
            let one = |name| server(&said, name, name == fails);
            let failed = play(vec![one("books").stopping_last(), one("shop"), one("door")], false);
            assert_eq!(failed, Err(Error::failed(format!("{fails}: no more"))));
            assert_eq!(ends(&said).len(), 3, "{said:?}");
        }
    }

    #[test]
    fn an_error_while_one_opens_ends_all_before_any_runs_and_is_told_as_it_is() {
        let said = Said::default();
        let refusal = || Error::new(Code::Usage, "no such key").next("make one");
        let bad = Member::new("bad", async move |_, _| Err(refusal()));
        let failed = play(vec![server(&said, "books", false), bad, server(&said, "shop", false)], false);
        assert_eq!(failed, Err(refusal()));
        let heard = said.lock().expect("nobody has panicked").clone();
        assert_eq!(heard, ["books opens on books"], "what was open is not run, what comes later not opened");
    }

    #[test]
    fn a_panic_in_one_thread_stops_the_others_in_order() {
        let said = Said::default();
        let bad = Member::new("bad", async move |_, _| {
            Ok(Server::new("127.0.0.1:1".parse().expect("an address"), None, async { panic!("a bug") }))
        });
        let failed = play(vec![server(&said, "books", false).stopping_last(), bad], false).expect_err("a bug");
        assert!(failed.to_string().contains("bad"), "{failed}");
        assert_eq!(ends(&said), ["books ends"]);
    }
}
