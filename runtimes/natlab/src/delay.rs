//! Delays TCP connections. The lab's kernel need not have netem, so a proxy inside a peer's namespace delays the
//! peer's connection to its CN.

use crate::lab::Lab;
use crate::run::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listening address of the proxy inside its namespace.
const LISTEN: &str = "127.0.0.1:61999";

/// A running proxy; dropping the value kills it.
#[derive(Debug)]
pub struct Delay(Child);

impl Drop for Delay {
    fn drop(&mut self) {
        // the proxy may have ended already
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Delay {
    /// Delays the bytes that `node` receives on connections to `server` by `by`. The proxy itself connects to
    /// `instead`, another address of the same server, so that its own redirect rule does not match. `tool` is the
    /// binary with the command `delay-tcp`.
    pub fn start(
        lab: &Lab,
        node: &str,
        (server, instead): (SocketAddr, IpAddr),
        by: Duration,
        tool: &Path,
    ) -> Result<Self, Error> {
        let port = LISTEN.rsplit(':').next().unwrap_or_default();
        let rules = format!(
            "table ip late {{}}\ndelete table ip late\ntable ip late {{\n\
             chain output {{ type nat hook output priority -100;\n\
             ip daddr {} tcp dport {} redirect to :{port}\n}}\n}}\n",
            server.ip(),
            server.port()
        );
        lab.script(node, &format!("nft -f - <<'RULES'\n{rules}RULES\n"))?;
        let to = SocketAddr::new(instead, server.port()).to_string();
        let tool = tool.to_str().ok_or_else(|| Error::new("this program's path is not UTF-8"))?;
        let mut command = lab.command(node, tool)?;
        command.args(["delay-tcp", &to, &by.as_millis().to_string()]);
        let child = command.stdin(Stdio::null()).spawn().map_err(|e| Error::new(format!("start a proxy: {e}")))?;
        let delay = Self(child);
        let until = Instant::now() + Duration::from_secs(5);
        while lab.script(node, &format!("ss -Hlnt sport = :{port}\n"))?.trim().is_empty() {
            if Instant::now() > until {
                return Err(Error::new(format!("the proxy in {node} does not listen")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(delay)
    }
}

/// Runs the proxy for ever: forwards bytes from `to` after the delay `by`, and bytes to `to` at once.
pub fn serve(to: SocketAddr, by: Duration) -> Result<(), Error> {
    let listener = TcpListener::bind(LISTEN).map_err(|e| Error::new(format!("listen on {LISTEN}: {e}")))?;
    for near in listener.incoming().flatten() {
        thread::spawn(move || drop(carry(&near, to, by)));
    }
    Ok(())
}

fn carry(near: &TcpStream, to: SocketAddr, by: Duration) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    let [near_in, near_out] = [near.try_clone()?, near.try_clone()?];
    let [far_in, far_out] = [far.try_clone()?, far];
    near_out.set_nodelay(true)?;
    far_out.set_nodelay(true)?;
    thread::spawn(move || pump(near_in, far_out, Duration::ZERO));
    pump(far_in, near_out, by);
    Ok(())
}

/// Forwards bytes when `by` has passed since their arrival, and then the end of the stream.
fn pump(mut from: TcpStream, mut to: TcpStream, by: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (came, bytes) in receiver {
            thread::sleep((came + by).saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now(), buffer[..n].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    drop(writer.join());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_arrive_late_and_in_order() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = server.local_addr().expect("its address");
        let near = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(near.local_addr().expect("its address")).expect("connects");
        let (inner, _) = near.accept().expect("accepts");
        let by = Duration::from_millis(120);
        thread::spawn(move || carry(&inner, to, by));
        let (mut far, _) = server.accept().expect("accepts");
        let began = Instant::now();
        far.write_all(b"abc").expect("writes");
        drop(far);
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("reads");
        assert_eq!(got, b"abc");
        assert!(began.elapsed() >= by);
    }
}
