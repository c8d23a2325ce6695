//! Manifest of a version: provider, path, layout, and the Merkle root of each piece.

use super::Layout;
use crate::codec::{DecodeError, Reader, Text, Wire};
use crate::ids::{Digest, PieceIndex, ProviderId, VersionId};
use crate::limits;
use alloc::vec::Vec;
use sha2::Digest as _;

/// A version's manifest. The SHA-256 of its canonical encoding is the [`VersionId`]. A manifest may be larger than a
/// frame, since it travels over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// The provider that publishes the object.
    pub provider: ProviderId,
    /// The object's path within the provider, without a leading slash.
    pub path: Text<{ limits::PATH_LEN_MAX }>,
    layout: Layout,
    roots: Vec<Digest>,
}

/// The first bytes of an encoded manifest.
const MAGIC: [u8; 4] = *b"SEM1";

impl Manifest {
    /// Creates a manifest; `None` unless there is exactly one root for each piece.
    #[must_use]
    pub fn new(
        provider: ProviderId,
        path: Text<{ limits::PATH_LEN_MAX }>,
        layout: Layout,
        roots: Vec<Digest>,
    ) -> Option<Self> {
        (roots.len() == layout.pieces() as usize).then_some(Self { provider, path, layout, roots })
    }

    /// Size and piece length of the version.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the Merkle root of a piece (BEP 52: 16 KiB leaves; see [`super::merkle`]); `None` past the end.
    #[must_use]
    pub fn root(&self, piece: PieceIndex) -> Option<Digest> {
        self.roots.get(piece.0 as usize).copied()
    }

    /// Merkle roots of all pieces, in order.
    #[must_use]
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// Computes the version id: SHA-256 of the manifest's encoding.
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
