//! Measurement of processes: wall time, and processor time and memory from `/proc`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::terminal::Interrupt;
use swarmedge_ground::terminal::units::per_second;

/// Unit of processor time in `/proc` on Linux.
const TICK: Duration = Duration::from_millis(10);
/// Interval at which a running program's memory is read.
const MEMORY_EVERY: Duration = Duration::from_millis(5);

/// Measurements of one transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Time from the start of the command to the finished file.
    pub wall: Duration,
    /// Processor time of the receiving side.
    pub client_cpu: Duration,
    /// Processor time of the sending side.
    pub server_cpu: Duration,
    /// Peak resident memory of the receiving side, in bytes.
    pub client_rss: u64,
    /// Bytes that the client got from peers.
    pub peer_bytes: u64,
}

/// Returns the processor time used by a process with all its threads.
#[must_use]
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    fields(&stat, 11, 12)
}

/// Returns the processor time of this process's children that have ended and been waited for.
#[must_use]
pub fn cpu_of_ended_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    fields(&stat, 13, 14)
}

/// Adds two tick counts of a `stat` line. Fields are numbered from the one after the program's name, which may hold
/// spaces.
fn fields(stat: &str, a: usize, b: usize) -> Duration {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let all: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |i: usize| all.get(i).and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    TICK.saturating_mul(ticks(a).saturating_add(ticks(b)))
}

/// Returns the peak resident memory of a process, in bytes.
#[must_use]
pub fn rss_peak_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Runs a program to its end and measures it; `server` lists processes whose processor time counts as sending side.
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
            None => std::thread::sleep(MEMORY_EVERY),
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

/// Returns whether a program of this name is on the PATH.
#[must_use]
pub fn is_installed(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(name).is_file())
}

/// Reads a file once to bring it into the page cache, so that disk reads do not distort the measurement.
pub fn warm(path: &Path) -> Result<(), Error> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
    Ok(())
}

/// One kind of transfer, with its samples of all rounds.
#[derive(Clone, Debug, Default)]
pub struct TransferKind {
    /// Name of the kind of transfer in the table.
    pub name: String,
    /// One sample per round.
    pub samples: Vec<Sample>,
}

impl TransferKind {
    /// Returns the median of a figure over the rounds.
    #[must_use]
    pub fn median<T: Ord + Copy + Default>(&self, of: impl Fn(&Sample) -> T) -> T {
        let mut all: Vec<T> = self.samples.iter().map(of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// Returns the rate in bytes per second, from the median time.
    #[must_use]
    pub fn rate(&self, size: u64) -> u64 {
        per_second(size, self.median(|s| s.wall))
    }

    /// Returns the median processor time in ms per 10^9 bytes, of the receiving and of the sending side.
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
        let kind =
            TransferKind { name: "x".into(), samples: vec![sample(900, 10), sample(1000, 30), sample(5000, 20)] };
        assert_eq!(kind.rate(1_000_000), 1_000_000);
        assert_eq!(kind.cpu_ms_per_gb(1_000_000_000).0, 20);
        assert_eq!(TransferKind::default().rate(1), 1000);
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
