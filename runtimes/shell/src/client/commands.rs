//! The commands that speak to the client of this machine. `get` starts one for itself where none runs.

use super::config::has_another_bundle;
use super::local::Call;
use super::progress::{Progress, clock};
use super::protocol::{
    Answer, CachedLine, DownloadLine, Request, State, StatusLine, edge_in_url, parse_url, token_in_url,
};
use super::{ClientConfig, process};
use crate::edge::api::Token;
use crate::error::{Code, Error};
use crate::nat::NatLine;
use crate::rt::Start;
use crate::terminal::Interrupt;
use crate::terminal::out::{note, print_json, say};
use crate::terminal::units::{bytes, percent};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use swarmedge_core::role::client::START_WITHIN;

/// How often a waiting `get` looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a client that has just started is asked what it has observed.
const OBSERVED_TRIES: u32 = 20;
/// How long a `get` of its own waits for the ledger.
const REPORT_WITHIN: Duration = Duration::from_secs(15);
/// How long it waits for a control plane, which not every deployment has.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
/// It says that it waits after so long.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// How long a client that is starting elsewhere may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What `get` is told.
#[derive(Clone, Debug)]
pub struct Get {
    /// The object: `https://edge/PROVIDER/PATH`, `swarmedge://PROVIDER/PATH` or `PROVIDER/PATH`.
    pub url: String,
    /// The provider's token; by default the one in the URL.
    pub token: Option<String>,
    /// Where the file goes; by default the last part of the path, in the current directory.
    pub output: Option<PathBuf>,
    /// Replace a file that is there.
    pub force: bool,
    /// JSON lines on standard output instead of progress.
    pub json: bool,
    /// The install bundle, where no client has run before.
    pub bundle: Option<PathBuf>,
    /// The client's directory.
    pub state: PathBuf,
}

/// The client's directory unless told otherwise: `swarmedge` in the user's directory for state (XDG).
pub fn default_state_dir() -> Result<PathBuf, Error> {
    let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    dir("XDG_STATE_HOME")
        .or_else(|| dir("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("swarmedge"))
        .ok_or_else(|| Error::usage("no home directory is known").next("name the client's directory with --state"))
}

/// Downloads an object and waits for its end. Ctrl-C pauses it.
pub fn get<R: Start>(options: &Get) -> Result<(), Error> {
    let object = parse_url(&options.url)?;
    let output = output_path(options.output.as_deref(), &object.path)?;
    let request = Request::Get {
        provider: object.provider.0,
        path: object.path,
        output: output.display().to_string(),
        force: options.force,
        edge: edge_in_url(&options.url)?,
        token: options.token.clone().map(Token).or_else(|| token_in_url(&options.url)),
    };
    options.bundle.as_deref().map_or(Ok(()), |bundle| refuse_another_bundle(&options.state, bundle))?;
    let interrupt = Interrupt::listen()?;
    let (mut call, own) = match Call::open(&options.state, &request)? {
        Some(call) => (call, None),
        None => start_and_call::<R>(options, &request)?,
    };
    let result = follow(&mut call, &request, options, &interrupt);
    drop(call);
    match own {
        Some(own) => {
            own.settle(options, &interrupt);
            own.stop(&options.state).and(result)
        }
        None => result,
    }
}

/// A client that runs goes on with the bundle that it was given, whatever `get` names.
pub(super) fn refuse_another_bundle(state: &Path, bundle: &Path) -> Result<(), Error> {
    if !has_another_bundle(state, bundle)? || Call::ask(state, &Request::Status)?.is_none() {
        return Ok(());
    }
    Err(Error::usage(format!("the client that runs in {} was given another bundle", state.display()))
        .next("end it, or name another directory with --state"))
}

fn output_path(given: Option<&Path>, object_path: &str) -> Result<PathBuf, Error> {
    let name = match given {
        Some(path) => path.to_owned(),
        None => match object_path.rsplit('/').next() {
            Some(name) if !["", ".", ".."].contains(&name) => PathBuf::from(name),
            Some(_) | None => return Err(Error::usage("the URL names no file").next("name one with -o")),
        },
    };
    let path = std::path::absolute(&name).map_err(|e| Error::io(format!("find {}", name.display()), &e))?;
    if path.to_str().is_none() {
        return Err(Error::usage(format!("{} is not UTF-8", path.display())).next("name another file with -o"));
    }
    Ok(path)
}

/// Shows a download until it is at rest.
fn follow(call: &mut Call, request: &Request, options: &Get, interrupt: &Interrupt) -> Result<(), Error> {
    let mut progress = Progress::new(options.json);
    let started = Instant::now();
    let (mut download, mut pausing, mut before) = (None, false, None);
    let mut patience_told = false;
    loop {
        if interrupt.check().is_err() && !pausing {
            // not accepted yet: nothing to pause
            let Some(download) = download else { return Err(paused(None)) };
            pausing = true;
            Call::ask(&options.state, &Request::Pause { download })?;
        }
        let answer = match call.next(LOOK_EVERY) {
            Ok(Some(answer)) => answer,
            Err(None) => continue,
            Err(Some(error)) => return Err(error),
            Ok(None) => {
                let next = "run the same get again: it goes on where it was";
                return Err(Error::new(Code::Unreachable, "the client has ended").next(next));
            }
        };
        progress.show(&answer);
        if matches!(answer, Answer::Trouble(_)) && before.is_none_or(|got| got == 0) && !patience_told {
            patience_told = true;
            progress.remark(&format!("a download that has not begun is given up after {} s", START_WITHIN.as_secs()));
        }
        if let Answer::Download(line) = &answer {
            before.get_or_insert(line.edge_bytes.saturating_add(line.peer_bytes));
        }
        match answer {
            Answer::Again => *call = call_again(&options.state, request)?,
            Answer::Accepted { download: handle } => download = handle,
            Answer::Error(failure) => return Err(failure.into()),
            Answer::Download(line) => match line.state {
                State::Completed => {
                    progress.finish(&line, before.unwrap_or(0), started.elapsed());
                    return Ok(());
                }
                State::Paused => return Err(paused(Some(&line))),
                State::Failed => {
                    let failure = line.failure.map(Error::from);
                    return Err(failure.unwrap_or_else(|| Error::failed("the download failed")));
                }
                State::Starting | State::Running => {}
            },
            Answer::SourceDropped { .. }
            | Answer::Trouble(_)
            | Answer::Status(_)
            | Answer::Why { .. }
            | Answer::Nat { .. }
            | Answer::Cache { .. } => {}
        }
    }
}

/// Sends a request again to a client that begins anew.
fn call_again(state: &Path, request: &Request) -> Result<Call, Error> {
    let until = Instant::now() + ANSWERS_WITHIN;
    loop {
        match Call::open(state, request) {
            Ok(Some(call)) => return Ok(call),
            Ok(None) | Err(_) if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
            Ok(None) => return Err(no_client()),
            Err(error) => return Err(error),
        }
    }
}

fn paused(line: Option<&DownloadLine>) -> Error {
    let at = line.map_or_else(String::new, |l| format!(" at {}", percent(l.durable_bytes, l.size_bytes)));
    Error::new(Code::Interrupted, format!("paused{at}; nothing verified is lost")).next("the same get resumes")
}

/// A client that runs for one command, on a thread of its own.
struct OwnClient(JoinHandle<Result<(), Error>>);

impl OwnClient {
    /// Gives the ledger time to acknowledge what was downloaded, and says so if that takes long.
    fn settle(&self, options: &Get, interrupt: &Interrupt) {
        let began = Instant::now();
        let mut said = options.json;
        while let Ok(Some(Answer::Status(line))) = Call::ask(&options.state, &Request::Status)
            && line.usage_unreported > 0
        {
            let within = if line.control_connected { REPORT_WITHIN } else { CONNECTED_WITHIN };
            if began.elapsed() >= within || interrupt.check().is_err() {
                if !options.json {
                    note!("the ledger has not acknowledged what was downloaded: the next start of the client sends it");
                }
                return;
            }
            if began.elapsed() >= SILENT_FOR && !said {
                said = true;
                note!("waiting up to {} s for the ledger to acknowledge what was downloaded", within.as_secs());
            }
            std::thread::sleep(LOOK_EVERY / 4);
        }
    }

    /// Ends it.
    fn stop(self, state: &Path) -> Result<(), Error> {
        // if it has ended by itself, its result says why
        let asked = Call::ask(state, &Request::Shutdown);
        match self.0.join() {
            Ok(result) => result.and(asked.map(drop)),
            Err(_) => Err(Error::failed("the client broke down").next("run the same get again")),
        }
    }
}

fn start_and_call<R: Start>(options: &Get, request: &Request) -> Result<(Call, Option<OwnClient>), Error> {
    let config = ClientConfig::load(&options.state, options.bundle.as_deref())?;
    let (ready, is_ready) = mpsc::channel();
    let run = move || {
        let started = move || {
            // whoever waited has given up, or knows already
            let _ = ready.send(());
        };
        process::run_on::<R, _>(&config, started, |_| Ok(std::future::pending()))
    };
    let thread = std::thread::Builder::new().name("client".into()).spawn(run);
    let own = OwnClient(thread.map_err(|e| Error::io("start a thread", &e))?);
    // ends at once when the client could not start: then the sender is gone
    if is_ready.recv().is_ok() {
        let call = Call::open(&options.state, request);
        return match call {
            Ok(Some(call)) => Ok((call, Some(own))),
            other => Err(own.stop(&options.state).and(other.map(drop)).err().unwrap_or_else(no_client)),
        };
    }
    let failed = own.stop(&options.state).err().unwrap_or_else(no_client);
    // another client may hold the directory, and be about to listen or to end
    let until = Instant::now() + ANSWERS_WITHIN;
    while failed.code() == Code::Unreachable && Instant::now() < until {
        if let Some(call) = Call::open(&options.state, request)? {
            return Ok((call, None));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(failed)
}

fn no_client() -> Error {
    Error::new(Code::Unreachable, "no client runs here").next("start one with `client run`, or name its --state")
}

/// Asks the running client for one answer.
pub(super) fn ask(state: &Path, request: &Request) -> Result<Answer, Error> {
    Call::ask(state, request)?.ok_or_else(no_client)
}

/// Carries out one request and prints its answer.
fn tell(state: &Path, json: bool, request: &Request, done: &str) -> Result<(), Error> {
    let answer = ask(state, request)?;
    if json { print_json(&answer) } else { say!("{done}") }
}

/// `pause`: stops a download and keeps what is there.
pub fn pause(state: &Path, json: bool, download: u32) -> Result<(), Error> {
    let done = format!("download {download} is paused; `resume {download}` lets it go on");
    tell(state, json, &Request::Pause { download }, &done)
}

/// `resume`: lets it go on.
pub fn resume(state: &Path, json: bool, download: u32) -> Result<(), Error> {
    tell(state, json, &Request::Resume { download }, &format!("download {download} goes on"))
}

/// `cancel`: gives it up and forgets what is there.
pub fn cancel(state: &Path, json: bool, download: u32) -> Result<(), Error> {
    tell(state, json, &Request::Cancel { download }, &format!("download {download} is cancelled and forgotten"))
}

/// `uploads on|off`.
pub fn uploads(state: &Path, json: bool, on: bool) -> Result<(), Error> {
    let done = if on { "uploads are on" } else { "uploads are off; downloads are as fast as before" };
    tell(state, json, &Request::Uploads { on }, done)
}

/// `cache remove`: stops sharing a version and deletes it.
pub fn cache_remove(state: &Path, json: bool, version: &str) -> Result<(), Error> {
    tell(state, json, &Request::CacheRemove { version: version.to_owned() }, "removed")
}

/// `cache list`.
pub fn cache_list(state: &Path, json: bool) -> Result<(), Error> {
    let answer = ask(state, &Request::CacheList)?;
    let Answer::Cache { versions } = &answer else { return print_json(&answer) };
    match versions.as_slice() {
        _ if json => print_json(&answer),
        [] => say!("nothing is cached"),
        all => all.iter().try_for_each(print_cached),
    }
}

fn print_cached(line: &CachedLine) -> Result<(), Error> {
    let have = percent(line.pieces.into(), line.pieces_total.into());
    let url = line.url.as_deref().unwrap_or("-");
    say!("{}  {:>10}  {have:>7}  {url}", line.version, bytes(line.size_bytes))
}

/// What the running client says of its way to the Internet; `None` if none runs, or it has not found out in time.
pub fn nat(state: &Path) -> Result<Option<NatLine>, Error> {
    for _ in 0..OBSERVED_TRIES {
        match ask(state, &Request::Nat) {
            Ok(Answer::Nat { nat: Some(line) }) => return Ok(Some(line)),
            // it has just started
            Ok(_) => std::thread::sleep(LOOK_EVERY),
            Err(e) if e.code() == Code::Unreachable => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// `status`.
pub fn status(state: &Path, json: bool) -> Result<(), Error> {
    let answer = ask(state, &Request::Status)?;
    if let (Answer::Status(line), false) = (&answer, json) { print_status(line) } else { print_json(&answer) }
}

fn print_status(line: &StatusLine) -> Result<(), Error> {
    let control = if line.control_connected { "connected" } else { "not connected (the edge alone delivers)" };
    let uploads = if line.uploads { "on" } else { "off" };
    say!("client {} ({}, {}), up {}", line.guid, line.client_version, line.runtime, clock(line.uptime_s))?;
    say!("control plane {control}; uploads {uploads}, {} sent", bytes(line.uploaded_bytes))?;
    for d in &line.downloads {
        let got = percent(d.durable_bytes, d.size_bytes);
        let peers = percent(d.peer_bytes, d.peer_bytes.saturating_add(d.edge_bytes));
        let (state, size) = (d.state.name(), bytes(d.size_bytes));
        say!("{:>4}  {state:<9}  {got:>7} of {size:<9}  {peers:>7} from peers  {}", d.download, d.url)?;
        if d.state == State::Running {
            let eta = d.eta_s.map_or_else(String::new, |s| format!(", {} left", clock(s)));
            say!("      {}/s from {} peers and the edge{eta}", bytes(d.rate_bytes_per_s), d.peers)?;
        }
        if let Some(failure) = &d.failure {
            say!("      {}", Error::from(failure.clone()))?;
        }
    }
    if line.downloads.is_empty() { say!("no downloads") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_after_the_last_part_of_the_path() {
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(output_path(None, "a/b.iso"), Ok(here.join("b.iso")));
        assert_eq!(output_path(Some(Path::new("/x/y")), "a/b.iso"), Ok(PathBuf::from("/x/y")));
        for bad in ["a/", "a/..", ""] {
            assert_eq!(output_path(None, bad).expect_err(bad).code(), Code::Usage);
        }
    }

    #[test]
    fn commands_say_how_to_start_a_client_where_none_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = status(dir.path(), true).expect_err("none runs");
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.to_string().contains("client run"), "{error}");
    }
}
