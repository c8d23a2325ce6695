//! Sealing keys by epoch. A sealing key is the secret with which edges encrypt grants for CNs and edges; each key
//! rotation begins a new epoch. A server seals grants with the present epoch's key and also opens grants of the
//! preceding and the following epoch, so servers may learn of a rotation at different times.
//!
//! Invariant: a key seals only after it has been the next key for a whole epoch. So among servers that are at most one
//! rotation apart, each can open every grant that another one seals.

/// The epochs whose sealing keys a server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epochs {
    /// Epoch before the last key rotation, whose grants are still opened; `None` before the first rotation.
    pub previous: Option<u32>,
    /// Epoch whose key seals new grants.
    pub current: u32,
    /// Epoch after the next key rotation; grants from servers that have rotated already are opened. `None` if its key
    /// is not known.
    pub next: Option<u32>,
}

impl Epochs {
    /// Epochs of the sealing keys in a new deployment.
    pub const FIRST: Self = Self { previous: None, current: 1, next: Some(2) };

    /// Returns the epochs after a key rotation. If there was no next epoch, the rotation only adds one and keeps the
    /// current key.
    #[must_use]
    pub const fn rotated(self) -> Self {
        match self.next {
            Some(next) => Self { previous: Some(self.current), current: next, next: next.checked_add(1) },
            None => Self { next: self.current.checked_add(1), ..self },
        }
    }

    /// Returns whether this server can open grants sealed in this epoch.
    #[must_use]
    pub fn opens(self, epoch: u32) -> bool {
        self.current == epoch || self.previous == Some(epoch) || self.next == Some(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::certs::tests::{ROOT, cert, fake_sign, fake_verify};
    use super::super::grants::{Lifetimes, SKEW_MS, check, decide};
    use super::super::{Trust, certs::tests::trust};
    use super::*;
    use crate::content::{Access, Policy};
    use crate::ids::{Guid, ProviderId, PublicKey, ReqId, VersionId};
    use crate::machine::Rng;
    use crate::role::edge::io::{Denial, GrantAsked, ObjectFacts, Renewal};
    use crate::wire::records::{Grant, ServerRole, SignedGrant, SigningContext};
    use crate::wire::{Text, Wire as _};
    use alloc::string::String;
    use alloc::{format, vec, vec::Vec};
    use core::net::{IpAddr, Ipv4Addr};
    use proptest::prelude::*;

    const LIVES: Lifetimes = Lifetimes { valid_ms: 900_000, renew_ms: 600_000, whole_ms: 3_000_000 };
    const EDGE_KEY: PublicKey = PublicKey([3; 32]);

    #[test]
    fn a_rotation_without_a_known_next_key_switches_nothing() {
        let lone = Epochs { previous: None, current: 5, next: None };
        assert_eq!(lone.rotated(), Epochs { previous: None, current: 5, next: Some(6) });
        assert_eq!(lone.rotated().rotated(), Epochs { previous: Some(5), current: 6, next: Some(7) });
        assert!(!lone.rotated().rotated().rotated().opens(5), "two switches later it is gone");
    }

    /// Events of a random test: two edges and a CN, which load rotated sealing keys at different times, and a client
    /// with a download.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// Time advances by this number of milliseconds.
        Tick(u64),
        /// The operator rotates the sealing keys, if every server has loaded the previous rotation.
        Rotate,
        /// The server with this index reads the sealing keys again, and so learns of a rotation.
        Load(usize),
        /// The client gets its first grant from the edge with this index.
        Ask(usize),
        /// The client renews its grant at the edge with this index.
        Renew(usize),
        /// The client sends its grant to the CN with a query.
        Query,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            prop_oneof![1_u64..60_000, Just(900_000), Just(899_999), 600_000_u64..1_600_000].prop_map(Act::Tick),
            Just(Act::Rotate),
            (0_usize..3).prop_map(Act::Load),
            (0_usize..2).prop_map(Act::Ask),
            (0_usize..2).prop_map(Act::Renew),
            Just(Act::Query),
        ];
        prop::collection::vec(act, 1..60)
    }

    /// Seeded defects, each of which the random test must find.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Tooth {
        /// Seeded defect: a rotation makes edges seal with a key that other servers do not have yet.
        SwitchesAtOnce,
        /// Seeded defect: the CN does not check whether a grant has expired.
        NoClock,
        /// Seeded defect: the CN does not check the edge's signature of a grant.
        NoSignature,
        /// Seeded defect: a renewal raises the maximum of billed bytes from peers to that of the object's present
        /// policy.
        Widens,
    }

    struct Counter(u8);
    impl Rng for Counter {
        fn below(&mut self, _: u32) -> u32 {
            0
        }
        fn nonce(&mut self) -> [u8; 16] {
            self.0 = self.0.wrapping_add(1);
            [self.0; 16]
        }
    }

    struct World {
        now_ms: u64,
        file: Epochs,
        /// Epochs of the sealing keys that edges 0 and 1 and the CN (index 2) have.
        servers: [Epochs; 3],
        held: Option<(u32, SignedGrant)>,
        first: Option<Grant>,
        rng: Counter,
        tooth: Option<Tooth>,
    }

    impl World {
        fn new(tooth: Option<Tooth>) -> Self {
            let first = Epochs::FIRST;
            let (held, rng) = (None, Counter(0));
            Self { now_ms: 10_000_000, file: first, servers: [first; 3], held, first: None, rng, tooth }
        }

        fn asked(&self, renew: Option<Renewal>) -> GrantAsked {
            let key = PublicKey::numbered(1);
            // a changed size stands for anything that an edge may know differently later
            let size = if renew.is_some() { 200 } else { 100 };
            GrantAsked {
                req: ReqId(1),
                guid: Guid::of(&key),
                key,
                download_key: PublicKey::numbered(2),
                object: ObjectFacts {
                    provider: ProviderId(5),
                    path: Text::new("a").expect("short"),
                    version: VersionId::numbered(3),
                    size,
                    access: Access::Public,
                    policy: Policy::default(),
                },
                token: None,
                version: None,
                renew,
                from: IpAddr::V4(Ipv4Addr::LOCALHOST),
                time_ms: self.now_ms,
                nonce: [0; 16],
            }
        }

        fn grant(&mut self, edge: usize, renews: bool) -> Result<(), String> {
            let epochs = self.servers[edge];
            let renew = match (&self.held, renews) {
                (None, true) => return Ok(()),
                (Some((epoch, signed)), true) => Some(Renewal {
                    grant: epochs.opens(*epoch).then(|| signed.clone()),
                    proven: true,
                    edge_only: false,
                }),
                (_, false) => None,
            };
            let old = renew.as_ref().and_then(|r| r.grant.clone()).map(|s| s.grant);
            let asked = self.asked(renew);
            let decided = decide(&trust(), LIVES, self.now_ms, &mut self.rng, &asked);
            let mut grant = match (decided, old) {
                (Ok(decision), _) => decision.grant,
                (Err(Denial::GrantExpired), Some(old))
                    if self.now_ms <= (old.expires_ms + LIVES.renew_ms).min(old.began_ms + LIVES.whole_ms) =>
                {
                    return Err(format!("a good grant was not renewed at {}", self.now_ms));
                }
                (Err(_), _) => return Ok(()),
            };
            if renews && self.tooth == Some(Tooth::Widens) {
                grant.max_peer_bytes = 200;
            }
            match &self.first {
                Some(first) if renews => {
                    let fixed = Grant { issued_ms: grant.issued_ms, expires_ms: grant.expires_ms, ..first.clone() };
                    if grant != fixed {
                        return Err(format!("a renewal changed {first:?} to {grant:?}"));
                    }
                }
                _ => self.first = Some(grant.clone()),
            }
            let signature = fake_sign(&EDGE_KEY, SigningContext::Grant, &grant.to_bytes());
            let signed = SignedGrant { grant, signature, cert: cert(ServerRole::Edge, EDGE_KEY) };
            self.held = Some((epochs.current, signed));
            Ok(())
        }

        fn query(&self) -> Result<(), String> {
            let Some((epoch, signed)) = &self.held else { return Ok(()) };
            let cn = self.servers[2];
            let trust = match self.tooth {
                Some(Tooth::NoSignature) => Trust { root: ROOT, verify: |_, _, _, _| true },
                _ => Trust { root: ROOT, verify: fake_verify },
            };
            let at = |now_ms| check(&trust, signed, now_ms).is_ok();
            let accepted = match self.tooth {
                Some(Tooth::NoClock) => at(signed.grant.issued_ms),
                _ => at(self.now_ms),
            };
            let g = &signed.grant;
            let timely = self.now_ms + SKEW_MS >= g.issued_ms && self.now_ms < g.expires_ms;
            if accepted && !timely {
                return Err(format!("a grant until {} was accepted at {}", g.expires_ms, self.now_ms));
            }
            // sealed by a server at most one rotation away from the CN
            let near = epoch.abs_diff(cn.current) <= 1;
            if timely && near && !(accepted && cn.opens(*epoch)) {
                return Err(format!("a CN with {cn:?} refused a good grant of epoch {epoch}"));
            }
            let mut forged = signed.clone();
            forged.grant.max_peer_bytes += 1;
            if check(&trust, &forged, self.now_ms).is_ok() {
                return Err("a CN accepted what no edge signed".into());
            }
            Ok(())
        }

        fn act(&mut self, act: Act) -> Result<(), String> {
            match act {
                Act::Tick(ms) => self.now_ms += ms,
                Act::Rotate => {
                    if self.servers.iter().all(|s| *s == self.file) {
                        let rotated = self.file.rotated();
                        let fresh = rotated.current + 1;
                        self.file = match self.tooth {
                            Some(Tooth::SwitchesAtOnce) => {
                                Epochs { previous: Some(self.file.current), current: fresh, next: Some(fresh + 1) }
                            }
                            _ => rotated,
                        };
                    }
                }
                Act::Load(server) => self.servers[server] = self.file,
                Act::Ask(edge) => self.grant(edge, false)?,
                Act::Renew(edge) => self.grant(edge, true)?,
                Act::Query => self.query()?,
            }
            let newest = self.servers.iter().map(|s| s.current).max().unwrap_or(0);
            let opened = self.servers.iter().all(|s| s.opens(newest));
            if opened { Ok(()) } else { Err(format!("a gap: {:?}", self.servers)) }
        }
    }

    fn play(tooth: Option<Tooth>, acts: &[Act]) -> Result<(), String> {
        let mut world = World::new(tooth);
        acts.iter().try_for_each(|act| world.act(*act))
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(2_000))]

        #[test]
        fn grants_hold_over_clock_ticks_and_rotations(acts in acts()) {
            prop_assert_eq!(play(None, &acts), Ok(()));
        }
    }

    #[test]
    fn each_seeded_defect_is_found() {
        let late = vec![Act::Ask(0), Act::Tick(900_000), Act::Query];
        let switched = vec![Act::Rotate, Act::Load(0), Act::Ask(0), Act::Query];
        for (tooth, acts) in [
            (Tooth::SwitchesAtOnce, switched),
            (Tooth::NoClock, late),
            (Tooth::NoSignature, vec![Act::Ask(0), Act::Query]),
            (Tooth::Widens, vec![Act::Ask(0), Act::Tick(1), Act::Renew(1)]),
        ] {
            assert!(play(Some(tooth), &acts).is_err());
            assert_eq!(play(None, &acts), Ok(()));
        }
    }
}
