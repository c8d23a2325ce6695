//! The command `get`: downloads through the client that runs on this machine, or starts one in this process if none
//! runs. If that client ends before the download, `get` continues with the next client, whichever process starts it.

use super::commands::{refuse_another_bundle, refuse_another_proxy};
use super::config::ClientConfig;
use super::local::Call;
use super::own::{OwnClient, Started};
use super::progress::Progress;
use super::protocol::{Answer, DownloadLine, Request, State, edge_in_url, parse_url, token_in_url};
use crate::store::data_file;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use swarmedge_core::role::client::START_WITHIN;
use swarmedge_ground::edge_api::Token;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::files::ownership::mode_of_new_files;
use swarmedge_ground::reach::Reach;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::out::print_bytes;
use swarmedge_ground::terminal::units::percent;
use swarmedge_ground::terminal::visible::is_hidden;

/// Interval at which a waiting `get` checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Interval of attempts to reach a client that is starting.
const CALL_EVERY: Duration = Duration::from_millis(50);
/// Interval of attempts to start a client while another process has the state directory locked.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Time-out for a process that has the state directory locked and does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Time-out for a client that restarts under a new key.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);
/// Time that `get` waits for the background client to restart before it starts a client itself.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// Time-out for pausing a download after Ctrl-C.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// The options of the command `get`.
#[derive(Clone, Debug)]
pub struct Get {
    /// The object: `https://edge/PROVIDER/PATH`, `swarmedge://PROVIDER/PATH` or `PROVIDER/PATH`.
    pub url: String,
    /// The provider's token; by default the one in the URL.
    pub token: Option<String>,
    /// The path of the file, or `-` for standard output; by default the last part of the URL's
    /// path, in the current directory.
    pub output: Option<PathBuf>,
    /// Whether to replace an existing file.
    pub force: bool,
    /// Whether to print JSON lines on standard output instead of progress.
    pub json: bool,
    /// The install bundle; needed where no client has run before.
    pub bundle: Option<PathBuf>,
    /// The client's state directory.
    pub state: PathBuf,
    /// The proxy to use (`--proxy`), or `off`; by default the environment's.
    pub proxy: Option<String>,
}

impl Get {
    /// Returns whether the object goes to standard output.
    fn prints(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }
}

/// Downloads an object and waits for its end. Ctrl-C pauses it, unless others wait for it too.
pub fn get<R: Start>(options: &Get) -> Result<(), Error> {
    let object = parse_url(&options.url)?;
    if options.json && options.prints() {
        return Err(Error::usage("--json and -o - would both write to standard output")
            .next("name a file with -o, or leave --json out"));
    }
    let output = if options.prints() { PathBuf::new() } else { output_path(options.output.as_deref(), &object.path)? };
    let request = Request::Get {
        provider: object.provider.0,
        path: object.path,
        output: output.display().to_string(),
        mode: mode_of_new_files(),
        force: options.force,
        edge: edge_in_url(&options.url)?,
        token: options.token.clone().map(Token).or_else(|| token_in_url(&options.url)),
    };
    options.bundle.as_deref().map_or(Ok(()), |bundle| refuse_another_bundle(&options.state, bundle))?;
    let reach = Reach::chosen(options.proxy.as_deref())?;
    options.proxy.as_ref().map_or(Ok(()), |_| refuse_another_proxy(&options.state, &reach))?;
    let interrupt = Interrupt::listen()?;
    let mut way = Way { options, request, reach, interrupt, own: None };
    let result = way.go::<R>().and_then(|shown| way.end(shown));
    match way.own {
        Some(own) => {
            // a full disk is reported at once: usage records not yet sent are sent at the client's next start
            if !result.as_ref().is_err_and(|error| error.code() == Code::Disk) {
                own.settle(options.json, &way.interrupt);
            }
            own.stop().and(result)
        }
        None => result,
    }
}

/// Returns the path of the finished file: the one that the user gave, or the object's own name in this directory.
fn output_path(given: Option<&Path>, object_path: &str) -> Result<PathBuf, Error> {
    let name = match given {
        Some(path) => path.to_owned(),
        None => PathBuf::from(own_name(object_path)?),
    };
    let path = std::path::absolute(&name).map_err(|e| Error::io(format!("find {}", name.display()), &e))?;
    if path.to_str().is_none() {
        return Err(Error::usage(format!("{} is not UTF-8", path.display())).next("name another file with -o"));
    }
    Ok(path)
}

/// Returns the name of the file where the user names none: the last part of the object's path.
fn own_name(object_path: &str) -> Result<&str, Error> {
    match object_path.rsplit('/').next() {
        Some(name) if name.contains(is_hidden) => {
            let why = format!("the URL's file name {name:?} has characters that nobody sees");
            Err(Error::usage(why).next("name a file with -o"))
        }
        Some(name) if !["", ".", ".."].contains(&name) => Ok(name),
        Some(_) | None => Err(Error::usage("the URL names no file").next("name one with -o")),
    }
}

/// The state of a `get` command, which may use several clients (processes) one after another.
struct Way<'a> {
    options: &'a Get,
    request: Request,
    reach: Reach,
    interrupt: Interrupt,
    /// The client that this `get` has started, if any.
    own: Option<OwnClient>,
}

impl Way<'_> {
    /// Continues the download with one client after another until it is complete.
    fn go<R: Start>(&mut self) -> Result<Shown, Error> {
        let mut shown = Shown::new(self.options.json);
        let mut patience = Duration::ZERO;
        loop {
            let mut call = self.reach::<R>(patience)?;
            shown.own = self.own.is_some();
            let Some(lost) = shown.follow(&mut call, &self.interrupt)? else { return Ok(shown) };
            patience = lost;
            if self.own.is_none() {
                shown.progress.remark("the client that was downloading has ended: another goes on");
            }
            self.interrupt.sleep(CALL_EVERY).map_err(|_| paused(None))?;
        }
    }

    /// Prints the object, if it goes to standard output, and the outcome of the download.
    fn end(&self, shown: Shown) -> Result<(), Error> {
        match &shown.last {
            Some(line) if self.options.prints() && !self.print(line)? => shown.progress.clear(),
            Some(_) | None => shown.finish(),
        }
        Ok(())
    }

    /// Prints the verified bytes of a complete download. Returns whether the reader took all of them.
    fn print(&self, line: &DownloadLine) -> Result<bool, Error> {
        let gone = |error: &std::io::Error| Error::io("read what was downloaded", error).next("run the same get again");
        let path = data_file(&self.options.state, line.version.as_deref().unwrap_or_default());
        let file = File::open(path).map_err(|e| gone(&e))?;
        let len = line.size_bytes;
        let (done, copied) = mpsc::channel();
        // the reader of standard output may be slow, and Ctrl-C must end the copying too
        let copying =
            std::thread::Builder::new().name("stdout".into()).spawn(move || done.send(print_bytes(file, len)));
        copying.map_err(|e| Error::io("start a thread", &e))?;
        loop {
            match copied.recv_timeout(LOOK_EVERY) {
                Ok(printed) => return printed,
                Err(RecvTimeoutError::Timeout) if self.interrupt.check().is_err() => {
                    let error = Error::new(Code::Interrupted, "interrupted while printing; all of it is here");
                    return Err(error.next("the same get prints it again"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::failed("the printing thread broke down")),
            }
        }
    }

    /// Hands the request to the running client. After `patience` without one, starts a client in this process. Only one
    /// client can lock the directory: if another process was first, the request goes to its client.
    fn reach<R: Start>(&mut self, patience: Duration) -> Result<Call, Error> {
        let mut next_try = Instant::now() + patience;
        let mut taken: Option<(Error, Instant)> = None;
        loop {
            self.interrupt.check().map_err(|_| paused(None))?;
            // a client whose queue is full is waited for
            let until = Instant::now() + ANSWERS_WITHIN;
            match Call::reach(&self.options.state, &self.request, &self.interrupt, until) {
                Ok(None) => {}
                Ok(Some(call)) => return Ok(call),
                Err(error) if error.code() == Code::Interrupted => return Err(paused(None)),
                Err(error) => return Err(error),
            }
            if let Some(own) = self.own.take_if(|own| own.has_ended()) {
                own.stop()?;
            }
            if self.own.is_none() && Instant::now() >= next_try {
                let config = ClientConfig::load(&self.options.state, self.options.bundle.as_deref())?;
                let config = ClientConfig { one_shot: true, reach: self.reach.clone(), ..config };
                match OwnClient::start::<R>(config, &self.interrupt)? {
                    Started::Ready(own) => {
                        self.own = Some(own);
                        continue;
                    }
                    Started::Stopped => return Err(paused(None)),
                    Started::Taken(by) => {
                        let until = taken.take_if(|(before, _)| *before == by).map(|(_, until)| until);
                        let until = until.unwrap_or_else(|| Instant::now() + ANSWERS_WITHIN);
                        if Instant::now() >= until {
                            return Err(by);
                        }
                        taken = Some((by, until));
                        next_try = Instant::now() + TRY_EVERY;
                    }
                }
            }
            self.interrupt.sleep(CALL_EVERY).map_err(|_| paused(None))?;
        }
    }
}

/// The display of a `get`'s progress, and the figures received last.
struct Shown {
    progress: Progress,
    started: Instant,
    /// Bytes that were fetched before this `get`, once known.
    before: Option<u64>,
    last: Option<DownloadLine>,
    /// Whether the client runs in this process, only for this `get`.
    own: bool,
    patience_told: bool,
    /// Deadline for the client to pause the download, after Ctrl-C was pressed.
    leaving: Option<Instant>,
}

impl Shown {
    fn new(json: bool) -> Self {
        let (progress, started) = (Progress::new(json), Instant::now());
        Self { progress, started, before: None, last: None, own: false, patience_told: false, leaving: None }
    }

    /// Shows a download until it is complete: `None`. If the client ends before that, returns how long to wait for
    /// another client.
    fn follow(&mut self, call: &mut Call, interrupt: &Interrupt) -> Result<Option<Duration>, Error> {
        loop {
            if self.leaving.is_none() && interrupt.check().is_err() {
                call.leave();
                self.leaving = Some(Instant::now() + LEAVES_WITHIN);
            }
            if self.leaving.is_some_and(|until| Instant::now() >= until) {
                return Err(paused(self.last.as_ref()));
            }
            let answer = match call.next(LOOK_EVERY) {
                Ok(Some(answer)) => answer,
                Err(None) => continue,
                Err(Some(error)) => return Err(error),
                Ok(None) => return self.lost(BACK_WITHIN),
            };
            self.progress.show(&answer);
            match answer {
                Answer::Download(line) => match self.take(line)? {
                    State::Completed => return Ok(None),
                    State::Starting | State::Running | State::Paused | State::Failed => {}
                },
                Answer::Error(failure) => return Err(failure.into()),
                Answer::Again => return self.lost(AGAIN_WITHIN),
                Answer::Over { one_shot } => {
                    return self.lost(if one_shot { Duration::ZERO } else { BACK_WITHIN });
                }
                Answer::Left => return Err(left(self.last.as_ref())),
                Answer::Trouble(_) => self.tell_patience(),
                Answer::Accepted { .. }
                | Answer::SourceDropped { .. }
                | Answer::Waiting { .. }
                | Answer::Status(_)
                | Answer::Why { .. }
                | Answer::Nat { .. }
                | Answer::Cache { .. } => {}
            }
        }
    }

    /// Returns how long to wait for another client, or the error "paused" after Ctrl-C. Called when the client has
    /// ended.
    fn lost(&self, patience: Duration) -> Result<Option<Duration>, Error> {
        if self.leaving.is_some() { Err(paused(self.last.as_ref())) } else { Ok(Some(patience)) }
    }

    fn take(&mut self, line: DownloadLine) -> Result<State, Error> {
        // the figure decreases if earlier bytes turn out to be damaged
        let got = line.edge_bytes.saturating_add(line.peer_bytes);
        self.before = Some(self.before.map_or(got, |before| before.min(got)));
        let line = self.last.insert(line);
        match line.state {
            State::Paused => Err(paused(Some(line))),
            State::Failed => {
                let failure = line.failure.clone().map(Error::from);
                Err(failure.unwrap_or_else(|| Error::failed("the download failed")))
            }
            state @ (State::Starting | State::Running | State::Completed) => Ok(state),
        }
    }

    fn tell_patience(&mut self) {
        if std::mem::replace(&mut self.patience_told, true) {
            return;
        }
        // bytes that an earlier `get` has fetched do not count: this `get` may still be given up
        let before = self.before.unwrap_or(0);
        let begun = self.last.as_ref().is_some_and(|line| {
            line.state != State::Starting || line.edge_bytes.saturating_add(line.peer_bytes) > before
        });
        let within = START_WITHIN.as_secs();
        self.progress.remark(&match (self.own, begun) {
            (true, false) => format!("a download that has not begun is given up after {within} s"),
            (true, true) => "it goes on when an edge answers again; Ctrl-C pauses it".to_owned(),
            (false, _) => "the client goes on when an edge answers again; Ctrl-C pauses the download".to_owned(),
        });
    }

    /// Prints the outcome of the download.
    fn finish(self) {
        if let Some(line) = &self.last {
            self.progress.finish(line, self.before.unwrap_or(0), self.started.elapsed());
        }
    }
}

/// Returns the error for a download paused by Ctrl-C.
pub(super) fn paused(line: Option<&DownloadLine>) -> Error {
    let at = line.map_or_else(String::new, |l| format!(" at {}", percent(l.durable_bytes, l.size_bytes)));
    Error::new(Code::Interrupted, format!("paused{at}; nothing verified is lost")).next("the same get resumes")
}

/// Returns the error for Ctrl-C where other `get` commands wait for the same download, which goes on.
fn left(line: Option<&DownloadLine>) -> Error {
    match line {
        None => paused(None),
        Some(line) => {
            let at = percent(line.durable_bytes, line.size_bytes);
            let what = format!("interrupted at {at}; another get goes on with this download");
            Error::new(Code::Interrupted, what).next("the same get joins it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_after_the_last_part_of_the_path() {
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(output_path(None, "a/b.iso"), Ok(here.join("b.iso")));
        assert_eq!(output_path(Some(Path::new("/x/y")), "a/b.iso"), Ok(PathBuf::from("/x/y")));
        for bad in ["a/", "a/..", "", "a/x\u{202e}gnp.exe"] {
            assert_eq!(output_path(None, bad).expect_err(bad).code(), Code::Usage);
        }
    }
}
