//! Removes labs: when they are dropped, when a signal ends the process, and those left by processes that were killed.

use crate::run::{Error, run};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// Prefix of every namespace's name.
const PREFIX: &str = "selab";
/// Directory of the state files, which let other processes use a lab.
const STATE_DIR: &str = "/run/swarmedge-natlab";
/// Time that processes inside a lab have to end before they are killed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names of labs that this process must remove.
static OWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Lock that is held for reading while a lab is being built, and for writing while a signal removes all labs.
static MAKING: RwLock<()> = RwLock::new(());
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Returns a unique name for a lab. It contains this process's id, so that other processes can tell when nobody is
/// left to remove the lab.
pub(crate) fn own_name() -> String {
    format!("p{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Returns the id of the process that made a lab, from the lab's name; `None` if the name has none.
fn owner(lab: &str) -> Option<u32> {
    lab.strip_prefix('p')?.split_once('x')?.0.parse().ok()
}

/// Returns the network namespace of a lab's node.
#[must_use]
pub fn namespace(lab: &str, node: &str) -> String {
    format!("{PREFIX}-{lab}-{node}")
}

/// Returns the state file of a lab.
pub(crate) fn state_file(lab: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{lab}.json"))
}

/// Registers a lab, so that a signal which ends this process removes it. The removal waits until the returned guard
/// is dropped, so that a lab does not grow while it is removed.
pub(crate) fn making(lab: &str) -> RwLockReadGuard<'static, ()> {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _nobody = MAKING.write().unwrap_or_else(PoisonError::into_inner);
                let own = std::mem::take(&mut *OWN.lock().unwrap_or_else(PoisonError::into_inner));
                own.iter().for_each(|lab| drop(remove(lab)));
                std::process::exit(128 + signal);
            }
        });
    });
    let making = turn();
    OWN.lock().unwrap_or_else(PoisonError::into_inner).insert(lab.to_owned());
    making
}

/// Waits until no signal is removing labs; if one ends the process, it waits for ever.
pub(crate) fn turn() -> RwLockReadGuard<'static, ()> {
    MAKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Unregisters a lab: this process no longer removes it.
pub(crate) fn release(lab: &str) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).remove(lab);
}

/// Returns all lab namespaces on this machine, as (lab, namespace).
fn namespaces() -> Result<Vec<(String, String)>, Error> {
    let text = run("ip", &["netns", "list"], "")?;
    let names = text.lines().filter_map(|l| l.split_whitespace().next());
    let ours = names.filter_map(|ns| {
        let (lab, _) = ns.strip_prefix(PREFIX)?.strip_prefix('-')?.split_once('-')?;
        Some((lab.to_owned(), ns.to_owned()))
    });
    Ok(ours.collect())
}

/// Returns the names of all labs on this machine.
pub fn labs() -> Result<Vec<String>, Error> {
    let found: BTreeSet<_> = namespaces()?.into_iter().map(|(lab, _)| lab).collect();
    Ok(found.into_iter().collect())
}

/// Removes labs whose processes no longer exist.
pub(crate) fn sweep() -> Result<(), Error> {
    let left = labs()?;
    let gone = |lab: &&String| owner(lab).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    left.iter().filter(gone).try_for_each(|lab| remove(lab))
}

/// Kills all processes inside a lab and removes its namespaces. Changes nothing outside of these.
pub fn remove(lab: &str) -> Result<(), Error> {
    let all: Vec<_> = namespaces()?.into_iter().filter(|(of, _)| of == lab).map(|(_, ns)| ns).collect();
    for signal in ["-TERM", "-KILL"] {
        let mut inside = processes(&all);
        if inside.is_empty() {
            break;
        }
        let pids: Vec<&str> = inside.iter().map(String::as_str).collect();
        // a process may have ended by itself meanwhile
        drop(run("kill", &[&[signal], &pids[..]].concat(), ""));
        let until = Instant::now() + PATIENCE;
        while !inside.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            inside = processes(&all);
        }
    }
    let batch: String = all.iter().map(|ns| format!("netns del {ns}\n")).collect();
    let removed = run("ip", &["-force", "-batch", "-"], &batch);
    drop(std::fs::remove_file(state_file(lab)));
    // the directory is only removed when empty, that is with the last lab
    drop(std::fs::remove_dir(STATE_DIR));
    removed.map(drop)
}

fn processes(namespaces: &[String]) -> BTreeSet<String> {
    let pids = |ns: &String| run("ip", &["netns", "pids", ns], "").unwrap_or_default();
    namespaces.iter().flat_map(|ns| pids(ns).split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_labs_name_contains_its_process_id() {
        let (one, two) = (own_name(), own_name());
        assert_ne!(one, two);
        assert_eq!(owner(&one), Some(std::process::id()));
        assert_eq!(owner("paris"), None);
        assert_eq!(owner("lab0"), None);
    }
}
