//! Delays packets that cross the core. The lab's kernel need not have netem, so a program inside the core's namespace
//! gets each forwarded packet through NFQUEUE and releases it when its time has come.

use crate::lab::Lab;
use crate::run::Error;
use nfq::{Queue, Verdict};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum number of packets held at a time; further ones are dropped, as by a router with a full queue.
const HELD_MAX: u32 = 65_536;
/// Number of bytes of each packet that are copied out of the kernel, since NFQUEUE wants a number; none is used.
const COPIED: u16 = 64;
/// Interval at which the queue is polled.
const STEP: Duration = Duration::from_micros(300);
/// Line that the program prints once packets are being delayed.
const READY: &str = "delaying";

/// The running program that delays packets. When the value is dropped, the program ends and nothing crosses the core
/// any more.
#[derive(Debug)]
pub struct Latency(Child);

impl Drop for Latency {
    fn drop(&mut self) {
        // the program may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Latency {
    /// Delays every packet that crosses the core by `one_way`, so the round trip between any two sites grows by twice
    /// as much. `tool` is the program that has the command `delay-packets`.
    pub fn start(lab: &Lab, one_way: Duration, tool: &Path) -> Result<Self, Error> {
        let hold = |iptables| format!("{iptables} -w -t mangle -A FORWARD -j NFQUEUE --queue-num 0\n");
        lab.script("core", &(hold("iptables") + &hold("ip6tables")))?;
        let tool = tool.to_str().ok_or_else(|| Error::new("this program's path is not UTF-8"))?;
        let mut command = lab.command("core", tool)?;
        command.args(["delay-packets", &one_way.as_micros().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|e| Error::new(format!("start what delays packets: {e}")))?;
        let said = child.stdout.take().map(io::BufReader::new).map(io::BufRead::lines).and_then(|mut l| l.next());
        let latency = Self(child);
        match said {
            Some(Ok(line)) if line == READY => Ok(latency),
            Some(_) | None => Err(Error::new("packets cannot be delayed: NFQUEUE does not work here")),
        }
    }
}

/// Holds each packet that the kernel queues for the time `by`; never returns unless it fails.
pub fn serve(by: Duration) -> Result<(), Error> {
    hold(by).map_err(|e| Error::new(format!("NFQUEUE: {e}")))
}

fn hold(by: Duration) -> io::Result<()> {
    let mut queue = Queue::open()?;
    queue.bind(0)?;
    queue.set_copy_range(0, COPIED)?;
    queue.set_recv_gso(0, true)?;
    queue.set_queue_max_len(0, HELD_MAX)?;
    queue.set_nonblocking(true);
    println!("{READY}");
    let mut held: VecDeque<(Instant, nfq::Message)> = VecDeque::new();
    loop {
        match queue.recv() {
            Ok(packet) => held.push_back((Instant::now() + by, packet)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(STEP),
            Err(e) => return Err(e),
        }
        while held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, mut packet)) = held.pop_front() else { break };
            packet.set_verdict(Verdict::Accept);
            queue.verdict(packet)?;
        }
    }
}
