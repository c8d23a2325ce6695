//! What a process has used, as `/proc` tells it.

use crate::error::{Code, Error};
use crate::terminal::Interrupt;
use crate::terminal::units::per_second;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Linux counts processor time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);
/// How often a running program's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// From the command to the finished file.
    pub wall: Duration,
    /// Processor time of the receiving side.
    pub client_cpu: Duration,
    /// Processor time of the sending side.
    pub server_cpu: Duration,
    /// The most memory that the receiving side held, bytes.
    pub client_rss: u64,
    /// Bytes from peers, of the whole.
    pub peer_bytes: u64,
}

/// Processor time that a process has used, its threads included.
#[must_use]
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    fields(&stat, 11, 12)
}

/// Processor time of this process's children that have ended and been waited for.
#[must_use]
pub fn cpu_of_ended_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    fields(&stat, 13, 14)
}

/// The sum of two tick counts; fields are numbered from the one after the program's name (which may hold spaces).
fn fields(stat: &str, a: usize, b: usize) -> Duration {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let all: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |i: usize| all.get(i).and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    TICK.saturating_mul(ticks(a).saturating_add(ticks(b)))
}

/// The most memory that a process has held, bytes.
#[must_use]
pub fn rss_peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Runs a program to its end.
pub fn program(name: &str, args: &[&str], server: &[u32], interrupt: &Interrupt) -> Result<Sample, Error> {
    let servers = || server.iter().map(|pid| cpu_of(*pid)).sum::<Duration>();
    let (server_before, ended_before) = (servers(), cpu_of_ended_children());
    let began = Instant::now();
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::io(format_args!("start {name}"), &e))?;
    let mut client_rss = 0;
    let status = loop {
        client_rss = client_rss.max(rss_peak_of(child.id()));
        match child.try_wait().map_err(|e| Error::io(format_args!("wait for {name}"), &e))? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK_EVERY),
        }
        if let Err(stop) = interrupt.check() {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(stop);
        }
    };
    let wall = began.elapsed();
    if !status.success() {
        return Err(Error::new(Code::Failed, format!("{name} {} ended with {status}", args.join(" "))));
    }
    let client_cpu = cpu_of_ended_children().saturating_sub(ended_before);
    let server_cpu = servers().saturating_sub(server_before);
    Ok(Sample { wall, client_cpu, server_cpu, client_rss, peer_bytes: 0 })
}

/// Whether a program can be started.
#[must_use]
pub fn is_installed(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(name).is_file())
}

/// Brings a file into the page cache: files that lie idle are read slowly the first time.
pub fn warm(path: &Path) -> Result<(), Error> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
    Ok(())
}

/// One way to transfer, over all its rounds.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// What it is.
    pub name: String,
    /// One a round.
    pub samples: Vec<Sample>,
}

impl Way {
    /// The median of a figure.
    #[must_use]
    pub fn median<T: Ord + Copy + Default>(&self, of: impl Fn(&Sample) -> T) -> T {
        let mut all: Vec<T> = self.samples.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// Bytes a second, median.
    #[must_use]
    pub fn rate(&self, size: u64) -> u64 {
        per_second(size, self.median(|s| s.wall))
    }

    /// Milliseconds of processor time for 10^9 bytes, median: receiving side, sending side.
    #[must_use]
    pub fn cpu_ms_per_gb(&self, size: u64) -> (u64, u64) {
        let per_gb = |cpu: Duration| {
            let ms = cpu.as_millis().saturating_mul(1_000_000_000) / u128::from(size.max(1));
            u64::try_from(ms).unwrap_or(u64::MAX)
        };
        (per_gb(self.median(|s| s.client_cpu)), per_gb(self.median(|s| s.server_cpu)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_a_name_with_spaces_and_brackets() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 7 3 20 0";
        assert_eq!(fields(stat, 11, 12), Duration::from_secs(3));
        assert_eq!(fields(stat, 13, 14), Duration::from_millis(100));
        assert_eq!(fields("", 11, 12), Duration::ZERO);
        assert!(rss_peak_of(std::process::id()) > 0);
    }

    #[test]
    fn a_median_is_of_each_figure_by_itself() {
        let sample = |ms: u64, cpu_ms: u64| Sample {
            wall: Duration::from_millis(ms),
            client_cpu: Duration::from_millis(cpu_ms),
            ..Sample::default()
        };
        let way = Way { name: "x".into(), samples: vec![sample(900, 10), sample(1000, 30), sample(5000, 20)] };
        assert_eq!(way.rate(1_000_000), 1_000_000);
        assert_eq!(way.cpu_ms_per_gb(1_000_000_000).0, 20);
        assert_eq!(Way::default().rate(1), 1000);
    }

    #[test]
    fn a_program_is_measured_and_its_failure_named() {
        let args = ["-c", "exit 0"];
        let sample = program("/bin/sh", &args, &[], &Interrupt::never()).expect("runs");
        assert!(sample.wall > Duration::ZERO);
        assert!(program("/bin/sh", &["-c", "exit 3"], &[], &Interrupt::never()).is_err());
        assert!(is_installed("sh") && !is_installed("no-such-program-here"));
    }
}
