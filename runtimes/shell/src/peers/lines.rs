//! Lines: TCP connections with peers before anybody has shown a key. Which of them becomes a connection, and whose part
//! this client has in its handshake, the machine says.

use super::Peers;
use super::accept::{FIRST_TIMEOUT, GREETINGS_MAX, serve_connection, shake_hands};
use super::dial::DIAL_TIMEOUT;
use super::util::within;
use crate::mailbox::Permit;
use crate::rt::Rt;
use futures_lite::io::AsyncWriteExt as _;
use std::collections::VecDeque;
use std::net::SocketAddr;
use swarmedge_core::ids::LineId;
use swarmedge_core::nat::connectivity::{Line, LineEvent};
use swarmedge_core::role::client::io::Input;

impl<R: Rt> Peers<R> {
    pub(super) fn line(&self, what: Line, local: &mut VecDeque<Input>) {
        match what {
            Line::Call { line, to } => match self.0.inbox.reserve() {
                Ok(permit) => self.0.rt.spawn(call(self.clone(), line, to, permit)),
                Err(_) => local.push_back(Input::Line(LineEvent::Failed(line))),
            },
            Line::Serve { line, shows } => {
                if let Some((tcp, from)) = self.take_line(line) {
                    self.0.rt.spawn(serve(self.clone(), tcp, from, shows));
                }
            }
            Line::HangUp(line) => drop(self.take_line(line)),
        }
    }

    /// A line, to be used.
    pub(super) fn take_line(&self, line: LineId) -> Option<(R::Tcp, SocketAddr)> {
        self.0.lines.borrow_mut().remove(&line)
    }

    /// Somebody has shown a check on a listening port: the machine says what that is worth.
    pub(super) async fn shown(&self, tcp: R::Tcp, from: SocketAddr, bytes: Vec<u8>) {
        if self.0.lines.borrow().len() >= GREETINGS_MAX {
            return;
        }
        let line = LineId(self.0.state.borrow_mut().number());
        self.0.lines.borrow_mut().insert(line, (tcp, from));
        if self.0.inbox.send(Input::Line(LineEvent::Shown { line, from, bytes })).await.is_err() {
            self.take_line(line);
        }
    }
}

async fn call<R: Rt>(peers: Peers<R>, line: LineId, to: SocketAddr, permit: Permit<Input>) {
    let event = match within(&peers.0.rt, DIAL_TIMEOUT, peers.0.rt.connect(to)).await {
        Some(Ok(tcp)) => {
            peers.0.lines.borrow_mut().insert(line, (tcp, to));
            LineEvent::Open(line)
        }
        refused => {
            tracing::debug!(%to, error = ?refused.and_then(Result::err), "a downloader is not reached");
            LineEvent::Failed(line)
        }
    };
    permit.send(Input::Line(event));
}

/// Shows which introduction this is about; then the downloader begins, as one that has come by itself.
async fn serve<R: Rt>(peers: Peers<R>, mut tcp: R::Tcp, from: SocketAddr, shows: Vec<u8>) {
    peers.0.state.borrow_mut().greeting += 1;
    let greeting = async {
        tcp.write_all(&shows).await.ok()?;
        tcp.flush().await.ok()?;
        shake_hands(&peers, tcp, from).await
    };
    let greeted = within(&peers.0.rt, FIRST_TIMEOUT, greeting).await.flatten();
    peers.0.state.borrow_mut().greeting -= 1;
    if let Some((link, key)) = greeted {
        serve_connection(peers, link, key).await;
    }
}
