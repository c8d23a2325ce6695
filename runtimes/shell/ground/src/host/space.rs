//! Watches the space left on the file systems that a server writes to, and warns before they are full. A failed write
//! is reported by the code that writes, since a full file system may still have room within its files.

use crate::health::{Cause, Health};
use crate::rt::Rt;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Interval between checks of the file systems.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Space below which a file system counts as full, bytes.
const FULL_BELOW: u64 = 1 << 20;
/// Space below which a file system counts as nearly full, bytes; on small ones, a twentieth of their size if less.
const NEARLY_FULL_BELOW: u64 = 2 << 30;

/// Space of a file system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    total: u64,
    left: u64,
    writable: bool,
}

impl Space {
    fn of(path: &Path) -> Option<Self> {
        let found = statvfs(path).ok()?;
        Some(Self {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            left: found.f_bavail.saturating_mul(found.f_frsize),
            writable: !found.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    const fn trouble(self) -> Option<Cause> {
        let share = self.total / 20;
        let few = if share < NEARLY_FULL_BELOW { share } else { NEARLY_FULL_BELOW };
        match self.left {
            _ if !self.writable => None,
            left if left < FULL_BELOW => Some(Cause::DiskFull),
            left if left < few => Some(Cause::DiskNearlyFull),
            _ => None,
        }
    }
}

/// A place that a server writes to: its name in `/healthz` and metrics, and a path on its file system.
pub type Place = (&'static str, PathBuf);

/// Reports the space left at these places by metric, and in `health` while it is little, as long as the runtime runs.
/// If a path does not exist, its directory is examined instead.
pub async fn watch<R: Rt>(rt: R, health: Health, places: Vec<Place>) {
    loop {
        for (part, path) in &places {
            let path = path.clone();
            let space = rt.blocking(move || Space::of(&path).or_else(|| Space::of(path.parent()?))).await;
            // a place that cannot be examined is reported by the code that writes there
            if let Some(space) = space {
                report(&health, part, space);
            }
        }
        rt.sleep_until(rt.now() + LOOK_EVERY).await;
    }
}

fn report(health: &Health, part: &'static str, space: Space) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("swarmedge_disk_left_bytes", "part" => part).set(space.left as f64);
    let Some(cause) = space.trouble() else { return health.clear(part) };
    let word = if cause == Cause::DiskFull { "full" } else { "nearly full" };
    let mib = space.left >> 20;
    health.warn(part, cause, format!("it is {word}, {mib} MiB are left (free some space on that file system)"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::View;

    #[test]
    fn little_space_is_a_share_of_the_file_system_at_most_two_gib() {
        let gib = 1 << 30;
        let trouble = |total, left| Space { total, left, writable: true }.trouble();
        assert_eq!(trouble(1000 * gib, 3 * gib), None);
        assert_eq!(trouble(1000 * gib, 2 * gib - 1), Some(Cause::DiskNearlyFull));
        assert_eq!((trouble(20 * gib, gib), trouble(20 * gib, gib - 1)), (None, Some(Cause::DiskNearlyFull)));
        assert_eq!(trouble(1000 * gib, (1 << 20) - 1), Some(Cause::DiskFull));
        assert_eq!(Space { total: gib, left: 0, writable: false }.trouble(), None, "nothing is written there");
    }

    #[test]
    fn the_space_of_a_directory_is_found_and_told_until_there_is_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let space = Space::of(dir.path()).expect("it is there");
        assert!(space.total >= space.left && space.writable, "{space:?}");
        let health = Health::default();
        report(&health, "edge's disk", Space { left: 5, ..space });
        assert_eq!(health.told(View::Operator)[0].cause, Cause::DiskFull);
        assert_eq!(health.reasons(), [""; 0], "it is a warning");
        report(&health, "edge's disk", Space { left: u64::MAX, ..space });
        assert_eq!(health.told(View::Operator), []);
    }
}
