//! The objects whose stored content is damaged: reported in the log, by metric and in `/healthz` until repaired.

use super::catalogue::ObjectKey;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};
use swarmedge_core::content::verdicts::FileIdentity;
use swarmedge_core::ids::{PieceIndex, VersionId};
use swarmedge_ground::health::{Cause, Health};

/// Least time between two log lines about one object.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Interval between checks of a damaged file that has not changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Most damaged pieces of a version that are remembered. Others are found when they are read.
const PIECES_MAX: usize = 4096;
/// Most objects that `/healthz` names.
const NAMED_MAX: usize = 8;
/// Name under which `/healthz` reports damaged content.
const PART: &str = "edge's content";

/// Damage of a version's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The content file is shorter or longer than the version.
    Length {
        /// Length of the file, bytes.
        stored: u64,
        /// Size of the version, bytes.
        size: u64,
    },
    /// A file of the version cannot be read.
    Unreadable(String),
    /// Some pieces differ from the published ones.
    Pieces(BTreeSet<PieceIndex>),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { stored, size } => write!(f, "the file has {stored} bytes instead of {size}"),
            Self::Unreadable(why) => f.write_str(why),
            Self::Pieces(pieces) => {
                let some: Vec<_> = pieces.iter().take(NAMED_MAX).map(ToString::to_string).collect();
                let more = pieces.len().saturating_sub(some.len());
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                write!(f, "wrong bytes in piece {}{more}", some.join(", "))
            }
        }
    }
}

/// A damaged version.
#[derive(Debug)]
struct Entry {
    key: ObjectKey,
    what: What,
    /// Time of the last log line about this version.
    said: Option<Instant>,
    /// Number of reports since that line, which were not logged.
    left_out: u64,
    /// State of the content file at the last check, and the time of that check.
    looked: Option<(Option<FileIdentity>, Instant)>,
}

/// The damaged versions.
#[derive(Debug)]
pub struct Damage {
    health: Health,
    table: RefCell<BTreeMap<VersionId, Entry>>,
}

impl Damage {
    /// Creates an empty list, which reports later damage to `health`.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self { health, table: RefCell::default() }
    }

    /// Notes that a version is damaged. The log gets at most one line a minute for each version.
    pub fn note(&self, id: VersionId, key: &ObjectKey, what: What) {
        let mut table = self.table.borrow_mut();
        let entry = table.entry(id).or_insert_with(|| Entry {
            key: key.clone(),
            what: what.clone(),
            said: None,
            left_out: 0,
            looked: None,
        });
        match (&mut entry.what, what) {
            (What::Pieces(known), What::Pieces(new)) => {
                known.extend(new);
                while known.len() > PIECES_MAX {
                    known.pop_last();
                }
            }
            (known, new) => *known = new,
        }
        if entry.said.is_some_and(|said| said.elapsed() < LINE_EVERY) {
            entry.left_out += 1;
        } else {
            entry.said = Some(Instant::now());
            let (object, left_out) = (name(&entry.key), std::mem::take(&mut entry.left_out));
            let what = &entry.what;
            tracing::error!(
                object,
                version = %id,
                left_out,
                "stored content is damaged: {what}; what is damaged is not served (publish the same file again, which \
                 repairs it)"
            );
        }
        drop(table);
        self.tell();
    }

    /// Notes that a damaged piece was repaired.
    pub fn mended(&self, id: VersionId, piece: PieceIndex) {
        let mut table = self.table.borrow_mut();
        let Some(Entry { what: What::Pieces(pieces), .. }) = table.get_mut(&id) else { return };
        pieces.remove(&piece);
        let over = pieces.is_empty();
        drop(table);
        if over { self.clear(id) } else { self.tell() }
    }

    /// Notes that no damage of a version is known any more.
    pub fn clear(&self, id: VersionId) {
        let removed = self.table.borrow_mut().remove(&id);
        if let Some(entry) = removed {
            tracing::warn!(object = name(&entry.key), version = %id, "stored content is right again, or withdrawn");
            self.tell();
        }
    }

    /// Returns the damage of a version; `None` if none is known.
    #[must_use]
    pub fn of(&self, id: VersionId) -> Option<What> {
        self.table.borrow().get(&id).map(|entry| entry.what.clone())
    }

    /// Returns the damaged versions.
    #[must_use]
    pub fn versions(&self) -> Vec<VersionId> {
        self.table.borrow().keys().copied().collect()
    }

    /// Returns whether a damaged version is to be checked now, since its file has changed or the last check was a
    /// minute ago; if so, notes this check.
    pub fn is_due(&self, id: VersionId, identity: Option<FileIdentity>) -> bool {
        let mut table = self.table.borrow_mut();
        let Some(entry) = table.get_mut(&id) else { return false };
        let same = |(looked, at): (Option<FileIdentity>, Instant)| looked == identity && at.elapsed() < LOOK_EVERY;
        if entry.looked.is_some_and(same) {
            return false;
        }
        entry.looked = Some((identity, Instant::now()));
        true
    }

    fn tell(&self) {
        let table = self.table.borrow();
        metrics::gauge!("swarmedge_edge_objects_damaged")
            .set(f64::from(u32::try_from(table.len()).unwrap_or(u32::MAX)));
        if table.is_empty() {
            return self.health.clear(PART);
        }
        let named = table.iter().take(NAMED_MAX);
        let named: Vec<_> = named.map(|(id, e)| format!("{} (version {id}): {}", name(&e.key), e.what)).collect();
        let more = table.len().saturating_sub(named.len());
        let more = if more == 0 { String::new() } else { format!("; and {more} more objects") };
        let why = format!("{}{more} (publish it again: the same file repairs it)", named.join("; "));
        self.health.warn(PART, Cause::ContentDamaged, why);
    }
}

fn name(key: &ObjectKey) -> String {
    format!("{}/{}", key.0, key.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::ProviderId;
    use swarmedge_ground::health::View;

    fn pieces(of: &[u32]) -> What {
        What::Pieces(of.iter().map(|p| PieceIndex(*p)).collect())
    }

    #[test]
    fn health_names_object_and_piece_until_all_are_right() {
        let health = Health::default();
        let damage = Damage::new(health.of("edge"));
        let (id, other, key) = (VersionId::numbered(1), VersionId::numbered(2), (ProviderId(7), "a/b".to_owned()));
        damage.note(id, &key, pieces(&[3]));
        damage.note(id, &key, pieces(&[3, 9]));
        damage.note(other, &key, What::Length { stored: 5, size: 9 });
        let told = health.told(View::Operator);
        let why = &told[0].why;
        for part in ["7/a/b", &id.to_string(), "piece 3, 9", "5 bytes instead of 9", "publish it again"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(!told[0].failing, "the rest is served");
        let strangers = &health.of("edge").told(View::Strangers)[0];
        assert_eq!((&strangers.part[..], &strangers.why[..]), ("edge's content", "stored content is damaged"));
        damage.clear(other);
        damage.mended(id, PieceIndex(3));
        assert_eq!(damage.of(id), Some(pieces(&[9])));
        damage.mended(id, PieceIndex(9));
        assert_eq!((health.told(View::Operator), damage.versions()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_damaged_file_is_looked_at_again_when_it_changes() {
        let damage = Damage::new(Health::default());
        let id = VersionId::numbered(1);
        let [old, new] = [1, 2].map(|n| Some(FileIdentity([n; 7])));
        assert!(!damage.is_due(id, old), "nothing is wrong with it");
        damage.note(id, &(ProviderId(7), "a".to_owned()), pieces(&[3]));
        let due = [old, old, new, None, None].map(|identity| damage.is_due(id, identity));
        assert_eq!(due, [true, false, true, true, false]);
    }

    #[test]
    fn a_wholly_damaged_version_is_remembered_in_bounded_memory() {
        let damage = Damage::new(Health::default());
        let (id, key) = (VersionId::numbered(1), (ProviderId(7), "a".to_owned()));
        (0..5000).for_each(|piece| damage.note(id, &key, pieces(&[piece])));
        let Some(What::Pieces(known)) = damage.of(id) else { panic!("pieces are damaged") };
        assert_eq!(known.len(), PIECES_MAX);
    }
}
