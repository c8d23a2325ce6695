//! TOML files whose errors give file, line, column and the probable intention ("did you mean").

use crate::error::Error;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The text of a configuration file and its path.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Reads a file. A missing or unreadable file is a configuration error
    /// ([`Code::Usage`](crate::error::Code::Usage)).
    pub fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::from_text(path, text)),
            Err(e) => Err(Error::usage(Error::io(format_args!("read {}", path.display()), &e))),
        }
    }

    /// Makes a file of a text; errors name it as `path`.
    #[must_use]
    pub fn from_text(path: &Path, text: String) -> Self {
        Self { path: path.to_path_buf(), text }
    }

    /// Returns the file's directory, from which relative paths in it start.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Parses the text; an error names file, line and column.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(&self.text).map_err(|e| self.explain(&e))
    }

    /// Makes an error about the value at `keys` (section, key), with its line and column.
    #[must_use]
    pub fn error_at(&self, keys: &[&str], why: &str) -> Error {
        let name = keys.last().copied().unwrap_or_default();
        let message = format!("{name}: {why}");
        self.span_of(keys).map_or_else(|| self.error(None, &message), |span| self.error(Some(span), &message))
    }

    fn explain(&self, error: &toml::de::Error) -> Error {
        // serde lists every known key; only the nearest one helps the user
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let Some(rest) = message.strip_prefix("unknown field `") else {
            let key = error.span().and_then(|span| self.key_at(&span));
            return self.error(error.span(), &key.map_or(message.clone(), |key| format!("{key}: {message}")));
        };
        let mut names = rest.split('`').step_by(2);
        let unknown = names.next().unwrap_or_default().to_owned();
        let known: Vec<&str> = names.collect();
        let section = error.span().and_then(|s| self.section_at(s.start));
        let place = section.map_or_else(|| "at the top level".to_owned(), |s| format!("in [{s}]"));
        let found = self.error(error.span(), &format!("unknown key \"{unknown}\" {place}"));
        match nearest(&unknown, &known) {
            Some(best) => found.next(format!("did you mean \"{best}\"?")),
            None => found.next(format!("known keys: {}", known.join(", "))),
        }
    }

    /// Makes a configuration error at a span of the text.
    fn error(&self, span: Option<Range<usize>>, message: &str) -> Error {
        let path = self.path.display();
        let Some(span) = span else { return Error::usage(format!("{path}: {message}")) };
        let (line, column) = self.line_and_column(span.start);
        Error::usage(format!("{path}:{line}:{column}: {message}"))
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Returns the name of the table in whose section the byte offset `at` lies.
    fn section_at(&self, at: usize) -> Option<&str> {
        let lines = self.text.get(..at)?.lines().rev();
        lines.map(str::trim).find_map(|l| l.strip_prefix('[')?.trim_start_matches('[').split(']').next())
    }

    /// Returns the key whose value, or a part of it, has this span; `None` for a span of a whole table.
    fn key_at(&self, span: &Range<usize>) -> Option<String> {
        let table = DeTable::parse(&self.text).ok()?;
        key_in(table.get_ref(), span).map(str::to_owned)
    }

    /// Finds the span of the value at `keys`, or of the innermost table on the way if the key is absent.
    fn span_of(&self, keys: &[&str]) -> Option<Range<usize>> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut span = None;
        let mut at: Option<&DeTable<'_>> = Some(table.get_ref());
        for key in keys {
            let Some((_, value)) = at.and_then(|t| t.iter().find(|(k, _)| k.get_ref().as_ref() == *key)) else { break };
            span = Some(value.span());
            at = value.get_ref().as_table();
            debug_assert!(at.is_some() || !matches!(value.get_ref(), DeValue::Table(_)));
        }
        span
    }
}

fn key_in<'a>(table: &'a DeTable<'_>, span: &Range<usize>) -> Option<&'a str> {
    table.iter().find_map(|(key, value)| {
        let (within, value) = (value.span(), value.get_ref());
        if let Some(table) = value.as_table() {
            return key_in(table, span);
        }
        let own = || (within.start <= span.start && span.end <= within.end).then(|| key.get_ref().as_ref());
        let elements = value.as_array().into_iter().flat_map(|all| all.iter());
        elements.filter_map(|one| one.get_ref().as_table()).find_map(|table| key_in(table, span)).or_else(own)
    })
}

/// Returns the known name nearest to `unknown`, if few enough letters differ for a typing mistake.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let slip = unknown.chars().count().div_ceil(3);
    known.iter().map(|k| (distance(unknown, k), *k)).filter(|(d, _)| *d <= slip).min().map(|(_, k)| k)
}

/// Computes the Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Top {
        #[serde(rename = "edge")]
        _edge: Section,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        #[serde(rename = "listen")]
        _listen: std::net::SocketAddr,
        #[serde(rename = "objects")]
        _objects: String,
    }

    fn file(text: &str) -> File {
        File::from_text(Path::new("x/server.toml"), text.into())
    }

    fn error(text: &str) -> String {
        file(text).parse::<Top>().expect_err("refused").to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_probable_meaning() {
        assert_eq!(
            error("# deployment\n[edge]\nobjects = \"o\"\nlistn = \"127.0.0.1:1\"\n"),
            "x/server.toml:4:1: unknown key \"listn\" in [edge] (did you mean \"listen\"?)"
        );
        assert_eq!(
            error("[edge]\nlisten = \"127.0.0.1:1\"\nobjects = \"o\"\nbananas = 1\n"),
            "x/server.toml:4:1: unknown key \"bananas\" in [edge] (known keys: listen, objects)"
        );
        assert_eq!(
            error("egde = 1"),
            "x/server.toml:1:1: unknown key \"egde\" at the top level (did you mean \"edge\"?)"
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        let text = error("[edge]\nobjects = 3\nlisten = \"127.0.0.1:1\"");
        assert_eq!(text, "x/server.toml:2:11: objects: invalid type: integer `3`, expected a string");
        assert!(error("[edge]\nlisten = \"nowhere\"").starts_with("x/server.toml:2:10: listen: "));
        assert!(error("[edge\n").starts_with("x/server.toml:1:"));
    }

    #[test]
    fn a_key_is_named_for_a_part_of_its_value_and_within_tables() {
        let keys = |text: &str, part: &str| {
            let start = text.find(part).expect("there");
            file(text).key_at(&(start..start + part.len()))
        };
        let text = "top = 1\n[edge]\ndns = [\"a\", 2]\n[[edge.cns]]\naddr = \"b\"\n";
        for (part, key) in [("1", Some("top")), ("2", Some("dns")), ("\"b\"", Some("addr")), ("[edge]", None)] {
            assert_eq!(keys(text, part).as_deref(), key, "{part}");
        }
        assert_eq!(keys("broken = ", "b"), None);
    }

    #[test]
    fn a_missing_key_is_named_at_its_section() {
        let text = error("\n[edge]\nobjects = \"o\"\n");
        assert_eq!(text, "x/server.toml:2:1: missing field `listen`");
    }

    #[test]
    fn a_later_check_points_at_the_value() {
        let f = file("[edge]\nlisten = \"a\"\n  objects = \"b\"");
        assert_eq!(f.error_at(&["edge", "objects"], "too short").to_string(), "x/server.toml:3:13: objects: too short");
        assert_eq!(f.error_at(&["cn"], "none").to_string(), "x/server.toml: cn: none");
        assert_eq!(f.base(), Path::new("x"));
    }

    #[test]
    fn an_unreadable_file_is_a_configuration_error() {
        let e = File::read(Path::new("/no/such.toml")).expect_err("refused");
        assert_eq!(e.code(), crate::error::Code::Usage);
        assert_eq!(e.to_string(), "cannot read /no/such.toml: no such file or directory");
    }
}
