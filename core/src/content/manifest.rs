//! The manifest of a version: what it is called, how it is cut, and the Merkle root of each piece.

use super::Layout;
use crate::codec::{DecodeError, Reader, Text, Wire};
use crate::ids::{Digest, PieceIndex, ProviderId, VersionId};
use crate::limits;
use alloc::vec::Vec;
use sha2::Digest as _;

/// A version's manifest. Its canonical encoding's SHA-256 is the [`VersionId`]. It may be larger than a frame: it
/// travels over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// Who publishes.
    pub provider: ProviderId,
    /// The object's path within the provider, without a leading slash.
    pub path: Text<{ limits::PATH_LEN_MAX }>,
    layout: Layout,
    roots: Vec<Digest>,
}

/// First bytes of a manifest.
const MAGIC: [u8; 4] = *b"SEM1";

impl Manifest {
    /// `None` if there is not one root a piece.
    #[must_use]
    pub fn new(
        provider: ProviderId,
        path: Text<{ limits::PATH_LEN_MAX }>,
        layout: Layout,
        roots: Vec<Digest>,
    ) -> Option<Self> {
        (roots.len() == layout.pieces() as usize).then_some(Self { provider, path, layout, roots })
    }

    /// How it is cut.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The Merkle root of a piece (BEP 52: 16 KiB leaves; see [`super::merkle`]).
    #[must_use]
    pub fn root(&self, piece: PieceIndex) -> Option<Digest> {
        self.roots.get(piece.0 as usize).copied()
    }

    /// All roots in order.
    #[must_use]
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// The name of exactly these bytes.
    #[must_use]
    pub fn version(&self) -> VersionId {
        VersionId(sha2::Sha256::digest(self.to_bytes()).into())
    }
}

impl Wire for Manifest {
    const MIN_LEN: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        MAGIC.encode(out);
        self.provider.encode(out);
        self.path.encode(out);
        self.layout.size().encode(out);
        self.layout.piece_len().encode(out);
        self.roots.iter().for_each(|r| r.encode(out));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if <[u8; 4]>::decode(r)? != MAGIC {
            return Err(DecodeError::Invalid);
        }
        let provider = Wire::decode(r)?;
        let path = Wire::decode(r)?;
        let layout = Layout::new(Wire::decode(r)?, Wire::decode(r)?).ok_or(DecodeError::Invalid)?;
        if r.rest().len() < layout.pieces() as usize * Digest::LEN {
            return Err(DecodeError::Truncated);
        }
        let roots = layout.iter().map(|_| Digest::decode(r)).collect::<Result<_, _>>()?;
        Ok(Self { provider, path, layout, roots })
    }
}
