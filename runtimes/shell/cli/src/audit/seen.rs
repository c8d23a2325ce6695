//! `audit --seen`: a file of the signed heads of earlier audits, by which a day that was signed again is noticed.

use super::super::{Code, Error};
use std::collections::BTreeMap;
use std::path::Path;
use swarmedge_core::accounting::audit::ProviderDay;
use swarmedge_core::ids::Digest;
use swarmedge_ground::files;
use swarmedge_ledger::Day;

/// Per day: number of days in the signed log up to it, and the log's Merkle root.
type Seen = BTreeMap<Day, (u64, Digest)>;

/// Compares the heads of these days with those in the file, then adds new ones to the file.
pub(super) fn compare(path: &Path, days: &[ProviderDay]) -> Result<(), Error> {
    let mut seen = if path.exists() { parsed(path, &files::read(path)?)? } else { Seen::new() };
    for head in days.iter().flat_map(|d| d.previous.iter().chain([&d.head])) {
        let (day, is) = (Day(head.head.day), (head.head.days, head.head.root));
        if seen.insert(day, is).is_some_and(|before| before != is) {
            let message = format!("{day} was replaced: an earlier audit saw it signed otherwise");
            return Err(Error::new(Code::Unproven, message)
                .next(format!("{} keeps what was seen; keep both exports, they are evidence", path.display())));
        }
    }
    let text: String = seen.iter().map(|(day, (days, root))| format!("{day} {days} {root}\n")).collect();
    files::replace(path, &text)
}

/// Parses lines of `day days root`. Refuses a file with any other line, which must not be overwritten.
fn parsed(path: &Path, text: &str) -> Result<Seen, Error> {
    let line = |line: &str| {
        let mut parts = line.split(' ');
        let head = (parts.next()?.parse().ok()?, (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?));
        parts.next().is_none().then_some(head)
    };
    let known = |(n, text): (usize, &str)| {
        line(text).ok_or_else(|| {
            Error::usage(format!("{}:{}: this is no head that `audit` has seen", path.display(), n + 1))
                .next("--seen wants a file of its own, which `audit` makes: give it another name")
        })
    };
    if !path.is_file() {
        return Err(Error::usage(format!("{} is not a file", path.display())).next("--seen wants a file of its own"));
    }
    text.lines().enumerate().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_of_another_kind_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle.toml");
        let root = "0".repeat(64);
        let good = format!("2026-11-01 1 {root}\n");
        let others = ["root = \"1\"", "", "2026-11-01", "2026-11-01 1", "2026-11-01 x 1"].map(str::to_owned);
        let nearly = [good.replace("-01 ", "-41 "), good.replace("0\n", "x\n"), good.replace('\n', " x\n")];
        for other in others.into_iter().chain(nearly) {
            let text = format!("{good}{other}\n");
            fs::write(&file, &text).expect("writes");
            let error = compare(&file, &[]).expect_err("not heads");
            assert!(error.code() == Code::Usage && error.to_string().contains(":2:"), "{error}");
            assert_eq!(fs::read_to_string(&file).expect("there"), text);
        }
        fs::write(&file, &good).expect("writes");
        compare(&file, &[]).expect("heads");
        assert_eq!(fs::read_to_string(&file).expect("there"), good);
    }
}
