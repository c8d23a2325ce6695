//! Identifiers: newtypes that are `Copy`, ordered and hashable. Those of fixed-size bytes are printed in hexadecimal,
//! the numeric ones in decimal.

use core::fmt;

/// Declares fixed-size byte identifiers.
macro_rules! byte_ids {
    ($($(#[$doc:meta])* $name:ident [$len:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length of the identifier in bytes.
            pub const LEN: usize = $len;
            /// Returns the identifier's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// Makes an identifier for tests and models: zeros, ending in `n`.
            #[must_use]
            pub fn numbered(n: u32) -> Self {
                let mut b = [0; $len];
                b[$len - 4..].copy_from_slice(&n.to_be_bytes());
                Self(b)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:", stringify!($name))?;
                // both ends are shown: real identifiers differ in their head, numbered ones in their tail
                self.0[..2].iter().chain(&self.0[$len - 2..]).try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl core::str::FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                let mut b = [0; $len];
                parse_hex(s, &mut b)?;
                Ok(Self(b))
            }
        }
    )*};
}

byte_ids! {
    /// A client's identity: the first 16 bytes of SHA-256 of its Ed25519 public key.
    Guid[16];
    /// Random identifier of one start of a client. A client's login names its last five starts.
    SecondaryGuid[20];
    /// An Ed25519 public key of 32 bytes.
    PublicKey[32];
    /// An Ed25519 signature of 64 bytes.
    Signature[64];
    /// A SHA-256 digest of 32 bytes.
    Digest[32];
    /// Name of one version of an object: SHA-256 of its manifest's canonical encoding. Knowing it gives no access.
    VersionId[32];
    /// One download of one version by one client. The edge draws the id at random with the first grant.
    DownloadId[16];
    /// One introduction of a downloader to an uploader.
    IntroId[16];
    /// One record for the ledger, which stores each id once.
    RecordId[16];
}

/// Error for text that is not a hexadecimal identifier of the right length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a hexadecimal identifier of the right length")
    }
}

impl core::error::Error for ParseIdError {}

fn parse_hex(s: &str, out: &mut [u8]) -> Result<(), ParseIdError> {
    let s = s.as_bytes();
    if s.len() != out.len() * 2 {
        return Err(ParseIdError);
    }
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(ParseIdError);
    for (o, pair) in out.iter_mut().zip(s.chunks_exact(2)) {
        *o = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(())
}

/// Declares newtypes of integers as identifiers.
macro_rules! number_ids {
    ($($(#[$doc:meta])* $name:ident($int:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub struct $name(pub $int);
        impl $name {
            /// Returns the present value and increases it by one.
            pub fn step(&mut self) -> Self {
                let now = *self;
                self.0 = self.0.wrapping_add(1);
                now
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )*};
}

number_ids! {
    /// A content provider's number.
    ProviderId(u32);
    /// Index of a piece within a version, from 0.
    PieceIndex(u32);
    /// A connection of this process, of any kind. The state machine that dials chooses the number; for accepted
    /// connections the shell chooses it, with the top bit set.
    ConnId(u64);
    /// Number of a command from a state machine to the shell, repeated in the answer.
    ReqId(u64);
    /// One transfer of blocks, received or sent.
    XferId(u64);
    /// A TCP connection with a peer before its TLS handshake. The state machine that dials chooses the number; for
    /// accepted connections the shell chooses it, with the top bit set.
    RawTcpId(u64);
    /// Number by which a client's user refers to a download.
    Handle(u32);
    /// A client's session at a CN, unique while that CN runs.
    SessionId(u64);
}

/// Ranges of connection numbers by purpose, distinguished by the highest set bit, so that no number is used twice in
/// a process. A client's connections to peers have smaller numbers than all of these.
impl ConnId {
    /// First number of connections that the shell has accepted; accepted streams and raw TCP connections have the
    /// same range.
    pub const ACCEPTED: Self = Self(1 << 63);
    /// First number of a client's connections to CNs.
    pub const CONTROL: Self = Self(1 << 62);
    /// First number of a server's connections to the ledger.
    pub const LEDGER: Self = Self(1 << 61);
    /// First number of a CN's connections to DNs; each DN has 2³² numbers, in the order in which the CN lists the
    /// DNs.
    pub const DIRECTORY: Self = Self(1 << 60);
}

impl ReqId {
    /// First number of a user's commands; a state machine numbers its own commands to the shell from 0.
    pub const COMMAND: Self = Self(1 << 32);
}

impl XferId {
    /// Returns the number of transfer `n` of the download with this handle.
    #[must_use]
    pub fn of(handle: Handle, n: u32) -> Self {
        Self(u64::from(handle.0) << 32 | u64::from(n))
    }

    /// Returns the handle of the download to which the transfer belongs.
    #[must_use]
    pub const fn handle(self) -> Handle {
        Handle((self.0 >> 32) as u32)
    }
}

impl Guid {
    /// Computes the GUID of a public key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(key.0);
        let mut guid = [0; 16];
        guid.copy_from_slice(&hash[..16]);
        Self(guid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn hexadecimal_identifiers_parse_back_and_others_are_refused() {
        let id = Digest::numbered(0xdead_beef);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00".parse::<Digest>(), Err(ParseIdError));
        assert_eq!("zz".repeat(32).parse::<Digest>(), Err(ParseIdError));
    }
}
