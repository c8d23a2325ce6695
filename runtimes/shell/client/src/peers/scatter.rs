//! The many UDP sockets of birthday probing. Each is opened at its first use and all are closed together; the one
//! over which the peer was reached replaces the main socket for that peer.

use super::Peers;
use std::io;
use std::net::SocketAddr;
use swarmedge_core::ids::IntroId;
use swarmedge_core::nat::connectivity::{Scatter, Scattered, is_check};
use swarmedge_core::role::client::io::Input;
use swarmedge_ground::nat::udp::Udp;
use swarmedge_ground::quic::bind_udp;
use swarmedge_ground::rt::Rt;

impl<R: Rt> Peers<R> {
    /// Performs a command for the many sockets of birthday probing.
    pub(super) fn scatter(&self, what: Scatter) {
        match what {
            Scatter::Send { intro, socket, to, bytes } => {
                if let Err(error) = self.send_scattered((intro, socket), to, &bytes) {
                    // as good as lost on its way
                    tracing::debug!(%to, %error, "no datagram could be sent");
                }
            }
            Scatter::Adopt { intro, socket, to } => {
                let mut state = self.0.state.borrow_mut();
                if let Some(udp) = state.scattered.get_mut(&intro).and_then(|all| all.remove(&socket)) {
                    udp.close();
                    self.0.endpoint.adopt(to, udp.both());
                }
            }
            Scatter::Gather(intro) => {
                let all = self.0.state.borrow_mut().scattered.remove(&intro);
                all.into_iter().flatten().for_each(|(_, udp)| udp.close());
            }
        }
    }

    fn send_scattered(&self, (intro, socket): (IntroId, u16), to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let open = self.0.state.borrow().scattered.get(&intro).and_then(|all| all.get(&socket)).cloned();
        let udp = match open {
            Some(udp) => udp,
            None => {
                let beside = SocketAddr::new(self.0.endpoint.local_addr()?.ip(), 0);
                let udp = Udp::wrap(&self.0.rt, bind_udp(beside)?)?;
                let inbox = self.0.inbox.clone();
                self.0.rt.spawn(udp.clone().receive(self.0.rt.clone(), move |from, _, datagram| {
                    if is_check(datagram) {
                        let bytes = datagram.to_vec();
                        // with a full mailbox it is lost, as UDP does
                        let _ = inbox.try_send(Input::Scattered(Scattered { intro, socket, from, bytes }));
                    }
                }));
                self.0.state.borrow_mut().scattered.entry(intro).or_default().insert(socket, udp.clone());
                udp
            }
        };
        udp.send(bytes, to)
    }
}
