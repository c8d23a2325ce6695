//! The kinds of faults, the roles that can meet each, and the order in which a run injects them.

use super::preload::{Call, EIO, EMFILE, ENOSPC, SHORT};

/// A process of a deployment, by its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Edge,
    Ledger,
    Cn,
    Dn,
    Stun,
    /// The client that holds the object and uploads it.
    Seeder,
    /// A client that downloads while the fault lasts.
    Downloader,
}

impl Role {
    pub(crate) const ALL: [Self; 7] =
        [Self::Edge, Self::Ledger, Self::Cn, Self::Dn, Self::Stun, Self::Seeder, Self::Downloader];

    /// Returns the name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Ledger => "ledger",
            Self::Cn => "cn",
            Self::Dn => "dn",
            Self::Stun => "stun",
            Self::Seeder => "seeder",
            Self::Downloader => "downloader",
        }
    }
}

/// Fault that a process meets for some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Calls fail with this error, or write only half.
    Call(Call, u64),
    /// The process is killed with SIGKILL and started again.
    Kill,
    /// The process is stopped with SIGSTOP, and goes on with SIGCONT.
    Stop,
    /// The wall clock jumps forward by hours, and back again.
    Ahead,
    /// The wall clock jumps back by hours, and forward again.
    Behind,
}

/// A fault, its name in the table, and the roles that can meet it.
pub(crate) type Kind = (Fault, &'static str, &'static [Role]);

use Role::{Cn, Dn, Downloader, Edge, Ledger, Seeder, Stun};

/// Every role: each process accepts connections, and reads the clock.
const EVERY: &[Role] = &Role::ALL;
/// Roles that write files: their records, what they have downloaded, or only their log.
const WRITERS: &[Role] = EVERY;
/// Roles with a database, which they sync.
const KEEPERS: &[Role] = &[Edge, Ledger, Cn, Seeder, Downloader];
/// Roles that open files while they run: content, and what SIGHUP makes servers read again.
const OPENERS: &[Role] = &[Edge, Ledger, Cn, Dn, Stun, Seeder, Downloader];
/// Roles that create, rename or link files while they run.
const NAMERS: &[Role] = &[Downloader];

/// Every kind of fault.
pub(crate) const KINDS: [Kind; 15] = [
    (Fault::Call(Call::Write, ENOSPC), "write ENOSPC", WRITERS),
    (Fault::Call(Call::Write, EIO), "write EIO", WRITERS),
    (Fault::Call(Call::Write, SHORT), "write short", WRITERS),
    (Fault::Call(Call::Sync, ENOSPC), "sync ENOSPC", KEEPERS),
    (Fault::Call(Call::Sync, EIO), "sync EIO", KEEPERS),
    (Fault::Call(Call::Rename, ENOSPC), "rename ENOSPC", NAMERS),
    (Fault::Call(Call::Rename, EIO), "rename EIO", NAMERS),
    (Fault::Call(Call::Open, ENOSPC), "open ENOSPC", NAMERS),
    (Fault::Call(Call::Open, EIO), "open EIO", OPENERS),
    (Fault::Call(Call::Open, EMFILE), "open EMFILE", OPENERS),
    (Fault::Call(Call::Socket, EMFILE), "socket EMFILE", EVERY),
    (Fault::Kill, "kill -9", EVERY),
    (Fault::Stop, "SIGSTOP", EVERY),
    (Fault::Ahead, "clock ahead", EVERY),
    (Fault::Behind, "clock behind", EVERY),
];

impl Fault {
    /// Returns the name in the table.
    pub(crate) fn name(self) -> &'static str {
        KINDS.iter().find(|(fault, ..)| *fault == self).map_or("?", |(_, name, _)| name)
    }
}

/// A role and a fault that it can meet.
pub(crate) type Case = (Role, Fault);

/// Repeatable random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns the random numbers of one attempt at one fault, whichever thread takes it.
    pub(crate) fn split(&self, fault: u64, attempt: u64) -> Self {
        let mut of_fault = Self(self.0 ^ fault);
        Self(of_fault.next() ^ attempt)
    }

    /// Draws a number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// Returns every role with every fault that it can meet.
pub(crate) fn cases() -> Vec<Case> {
    KINDS.iter().flat_map(|(fault, _, roles)| roles.iter().map(move |role| (*role, *fault))).collect()
}

/// Returns the cases of a run of so many faults in random order: first each case once, then each again, and so on.
pub(crate) fn plan(faults: usize, random: &mut Random) -> Vec<Case> {
    let mut planned = Vec::new();
    while planned.len() < faults {
        let mut round = cases();
        for i in (1..round.len()).rev() {
            let j = usize::try_from(random.below(i as u64 + 1)).unwrap_or(0);
            round.swap(i, j);
        }
        planned.extend(round);
    }
    planned.truncate(faults);
    planned
}
