//! Defects that can be seeded into a [simulated month](super), each of which must break one of the month's promises.

/// A defect seeded into the simulated month, which must break one of its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Seeded defect: the larger of the downloader's claim and the uploader's receipt is billed. Too much is billed:
    /// one lying side is enough to bill bytes that nobody delivered.
    LargerClaim,
    /// Seeded defect: billed peer bytes are not limited to the version's size less the edges' bytes. Too much is
    /// billed: a clique, whose members sign receipts for one another, bills more than each download could have taken.
    NoClamp,
    /// Seeded defect: bytes over introductions that no CN has recorded are billed. Too much is billed: clients can
    /// invent introductions.
    Lenient,
    /// Seeded defect: uploaders' records are lost, and the receipts with them. Too little is billed: a downloader's
    /// claim without a receipt bills nothing.
    BillsNothing,
    /// Seeded defect: detection does not know which of the offered peers delivered bytes. The bills are unchanged, but
    /// too few members of cliques are found.
    BlindToBytes,
    /// Seeded defect: detection finds every client guilty that takes bytes from one peer three times, also on a LAN.
    /// The bills are unchanged, but honest clients are found guilty.
    BytesAreGuilt,
    /// Seeded defect: every installation's history of starts is classified as unforked. The bills are unchanged, but
    /// clones and restored backups are not found.
    NoPatterns,
}

impl Defect {
    /// All defects that can be seeded.
    pub const ALL: [Self; 7] = [
        Self::LargerClaim,
        Self::NoClamp,
        Self::Lenient,
        Self::BillsNothing,
        Self::BlindToBytes,
        Self::BytesAreGuilt,
        Self::NoPatterns,
    ];

    /// Returns the defect's name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LargerClaim => "larger-claim",
            Self::NoClamp => "no-clamp",
            Self::Lenient => "lenient",
            Self::BillsNothing => "bills-nothing",
            Self::BlindToBytes => "blind-to-bytes",
            Self::BytesAreGuilt => "bytes-are-guilt",
            Self::NoPatterns => "no-patterns",
        }
    }

    /// Returns a description of the defect for people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::LargerClaim => "the larger of both claims is billed",
            Self::NoClamp => "bytes that edges sent are billed again as bytes from peers",
            Self::Lenient => "introductions are billed that no CN has recorded",
            Self::BillsNothing => "honest bytes are not billed",
            Self::BlindToBytes => "detection does not see from which introduced peers clients took bytes",
            Self::BytesAreGuilt => "who takes from the same peer again and again is found guilty, LAN or not",
            Self::NoPatterns => "clones and restored backups are taken for straight histories",
        }
    }

    /// Returns the text of the promise that the defect must break; see
    /// [`Outcome::broken_promises`](super::Outcome::broken_promises).
    #[must_use]
    pub const fn breaks(self) -> &'static str {
        match self {
            Self::LargerClaim => "bytes were billed that nobody delivered",
            Self::NoClamp => "a clique was billed beyond its ceilings",
            Self::Lenient => "bytes were billed of introductions that no CN has made",
            Self::BillsNothing => "honest bytes were not billed",
            Self::BlindToBytes => "fewer than 95 % of the cliques' members were found",
            Self::BytesAreGuilt => "more than 0.1 % of the honest clients were found guilty",
            Self::NoPatterns => "an installation was taken for what it is not",
        }
    }
}
