//! The CLI commands that talk to the client running on this machine, over its local API.

use super::config::has_another_bundle;
use super::local::Call;
use super::offline::{ask, no_client};
use super::progress::clock;
use super::protocol::{Answer, CachedLine, Request, State, StatusLine, download_named, version_named};
use std::path::{Path, PathBuf};
use std::time::Duration;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::nat::NatLine;
use swarmedge_ground::reach::Reach;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::terminal::units::{bytes, percent};

/// Pause between two requests for the NAT findings of a client that has just started.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Number of requests for the NAT findings before `nat` gives up.
const OBSERVED_TRIES: u32 = 20;
/// Returns the client's default directory: `swarmedge` in the user's directory for state (XDG Base Directory).
pub fn default_state_dir() -> Result<PathBuf, Error> {
    let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    dir("XDG_STATE_HOME")
        .or_else(|| dir("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("swarmedge"))
        .ok_or_else(|| Error::usage("no home directory is known").next("name the client's directory with --state"))
}

/// Refuses a bundle that differs from the one a running client was started with: it would not take effect.
pub(super) fn refuse_another_bundle(state: &Path, bundle: &Path) -> Result<(), Error> {
    if !has_another_bundle(state, bundle)? || Call::ask(state, &Request::Status)?.is_none() {
        return Ok(());
    }
    Err(Error::usage(format!("the client that runs in {} was given another bundle", state.display()))
        .next("end it, or name another directory with --state"))
}

/// Refuses a proxy other than that of a running client: it would not take effect.
pub(super) fn refuse_another_proxy(state: &Path, reach: &Reach) -> Result<(), Error> {
    let Some(Answer::Status(line)) = Call::ask(state, &Request::Status)? else { return Ok(()) };
    if line.proxy == reach.shown() {
        return Ok(());
    }
    let theirs = line.proxy.map_or_else(|| "no proxy".into(), |proxy| format!("the proxy {proxy}"));
    Err(Error::usage(format!("the client that runs in {} uses {theirs}", state.display()))
        .next("end it, or name another directory with --state"))
}

/// Sends one request to the running client and prints its answer; `done` is the text for success.
fn tell(state: &Path, json: bool, request: &Request, done: &str) -> Result<(), Error> {
    let answer = ask(state, request)?;
    if json { print_json(&answer) } else { say!("{done}") }
}

/// Returns the number of the download that the user names in a command.
fn numbered(state: &Path, name: &str) -> Result<u32, Error> {
    let Some(Answer::Status(status)) = Call::ask(state, &Request::Status)? else { return Err(no_client()) };
    Ok(download_named(name, &status.downloads)?)
}

/// Runs `pause`: stops a download and keeps its pieces.
pub fn pause(state: &Path, json: bool, name: &str) -> Result<(), Error> {
    let download = numbered(state, name)?;
    let done = format!("download {download} is paused; `resume {download}` lets it go on");
    tell(state, json, &Request::Pause { download }, &done)
}

/// Runs `resume`: continues a paused download.
pub fn resume(state: &Path, json: bool, name: &str) -> Result<(), Error> {
    let download = numbered(state, name)?;
    tell(state, json, &Request::Resume { download }, &format!("download {download} goes on"))
}

/// Runs `cancel`: ends a download and deletes its pieces.
pub fn cancel(state: &Path, json: bool, name: &str) -> Result<(), Error> {
    let download = numbered(state, name)?;
    tell(state, json, &Request::Cancel { download }, &format!("download {download} is cancelled and forgotten"))
}

/// Runs `uploads on|off`: allows or forbids uploads. Where no client runs, the choice is stored for the next start.
pub fn uploads(state: &Path, json: bool, on: bool) -> Result<(), Error> {
    let done = if on { "uploads are on" } else { "uploads are off; downloads are as fast as before" };
    tell(state, json, &Request::Uploads { on }, done)
}

/// Runs `cache remove`: stops sharing the version named by `name`, and deletes it.
pub fn cache_remove(state: &Path, json: bool, name: &str) -> Result<(), Error> {
    let Some(Answer::Cache { versions }) = Call::ask(state, &Request::CacheList)? else { return Err(no_client()) };
    let version = version_named(name, &versions)?;
    let done = format!("version {} is removed", version.get(..12).unwrap_or(&version));
    tell(state, json, &Request::CacheRemove { version }, &done)
}

/// Runs `cache list`: prints the cached versions.
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
    let expired = if line.expired { "  (expired: no longer shared)" } else { "" };
    say!("{}  {:>10}  {have:>7}  {url}{expired}", line.version, bytes(line.size_bytes))
}

/// Returns the running client's NAT findings; `None` if no client runs or its first observation takes too long.
pub fn nat(state: &Path) -> Result<Option<NatLine>, Error> {
    for _ in 0..OBSERVED_TRIES {
        match ask(state, &Request::Nat) {
            Ok(Answer::Nat { nat: Some(line) }) => return Ok(Some(line)),
            // the client has just started and has observed nothing yet
            Ok(_) => std::thread::sleep(LOOK_EVERY),
            Err(e) if e.code() == Code::Unreachable => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Runs `status`: prints the client's status and downloads. If no client runs, prints the figures stored in the state
/// directory, and the exit code shows that.
pub fn status(state: &Path, json: bool) -> Result<(), Error> {
    let answer = ask(state, &Request::Status)?;
    let Answer::Status(line) = &answer else { return print_json(&answer) };
    if json {
        print_json(&answer)?
    } else {
        print_status(line)?
    }
    match line.running {
        true => Ok(()),
        false if json => Err(Error::told(Code::Unreachable)),
        false => Err(no_client()),
    }
}

fn print_status(line: &StatusLine) -> Result<(), Error> {
    let uploads = if line.uploads { "on" } else { "off" };
    if line.running {
        let control =
            if line.control_connected { "connected" } else { "not connected (nobody new is met until it is)" };
        let (guid, version, runtime) = (&line.guid, &line.client_version, &line.runtime);
        say!("client {guid} ({version}, {runtime}), up {}", clock(line.uptime_s))?;
        say!("control plane {control}; uploads {uploads}, {} sent", bytes(line.uploaded_bytes))?;
    } else {
        say!("client {} does not run; uploads {uploads} when it does", line.guid)?;
    }
    if let Some(why) = &line.outdated {
        say!("{why}")?;
    }
    if line.copies_refused > 0 {
        let refused = "the control plane refuses their holder's tickets; download them again to share them";
        say!("{} copies are offered to nobody: {refused}", line.copies_refused)?;
    }
    if let Some(proxy) = &line.proxy {
        say!("edges and control plane through the proxy {proxy}; peers directly")?;
    }
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
    fn commands_say_how_to_start_a_client_where_none_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = status(dir.path(), true).expect_err("none runs");
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.to_string().contains("client run"), "{error}");
    }
}
