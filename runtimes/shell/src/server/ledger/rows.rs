//! Statements over many rows at once: tuples of parameters in SQLite, one array a column in PostgreSQL, which plans and
//! binds a thousand rows of nine parameters far more slowly than nine arrays. Few different statements occur, so that
//! few are prepared.

use data_encoding::HEXLOWER;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

/// Rows of one statement, the largest first. 256 rows of 20 columns stay below either engine's parameters.
const CHUNKS: [usize; 5] = [256, 64, 16, 4, 1];

/// A column's value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    /// No bytes.
    Nothing,
    Text(String),
}

impl From<u64> for Value {
    /// Both engines' integers are signed.
    fn from(n: u64) -> Self {
        Self::Int(i64::try_from(n).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Option<&[u8]>> for Value {
    fn from(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Self::Nothing, Self::from)
    }
}

type AnyQuery<'q> = Query<'q, Any, AnyArguments>;

fn bind(query: AnyQuery<'_>, value: Value) -> AnyQuery<'_> {
    match value {
        Value::Int(n) => query.bind(n),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Nothing => query.bind(None::<Vec<u8>>),
        Value::Text(text) => query.bind(text),
    }
}

/// A column of PostgreSQL: its values as the text of an array, since `Any` binds no arrays.
#[derive(Default)]
struct Column {
    kind: Option<&'static str>,
    text: String,
}

impl Column {
    fn push(&mut self, value: &Value) {
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        let kind = match value {
            Value::Int(n) => {
                self.text += &n.to_string();
                "BIGINT"
            }
            Value::Bytes(bytes) => {
                self.text += r"\\x";
                HEXLOWER.encode_append(bytes, &mut self.text);
                "BYTEA"
            }
            Value::Nothing => {
                self.text += "NULL";
                return;
            }
            Value::Text(text) => {
                self.text.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        self.text.push('\\');
                    }
                    self.text.push(c);
                }
                self.text.push('"');
                "TEXT"
            }
        };
        self.kind = Some(kind);
    }

    /// The array's text, and the type of its elements.
    fn finish(mut self) -> (String, &'static str) {
        self.text += if self.text.is_empty() { "{}" } else { "}" };
        (self.text, self.kind.unwrap_or("BYTEA"))
    }
}

/// `head SELECT … FROM UNNEST(…) tail`.
async fn insert_arrays(
    db: &mut AnyConnection,
    head: &str,
    rows: &[Vec<Value>],
    tail: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut columns: Vec<Column> = Vec::new();
    columns.resize_with(rows.first().map_or(0, Vec::len), Column::default);
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let (texts, kinds): (Vec<_>, Vec<_>) = columns.into_iter().map(Column::finish).unzip();
    let array = |(at, kind): (usize, &str)| format!("CAST(CAST(${at} AS TEXT) AS {kind}[])");
    let arrays = (1..).zip(kinds).map(array).collect::<Vec<_>>().join(",");
    let text = format!("{head} SELECT * FROM UNNEST({arrays}) {tail}");
    let query = texts.into_iter().fold(sqlx::query(AssertSqlSafe(text)), Query::bind);
    query.fetch_all(db).await
}

/// Inserts all `rows` by `head` and `tail`; the rows that `tail` returns.
pub(super) async fn insert(
    db: &mut AnyConnection,
    head: &str,
    rows: Vec<Vec<Value>>,
    tail: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    if db.backend_name() == "PostgreSQL" {
        return insert_arrays(db, head, &rows, tail).await;
    }
    let mut returned = Vec::new();
    let mut rows = rows.into_iter();
    while let Some(columns) = rows.as_slice().first().map(Vec::len) {
        let size = CHUNKS.into_iter().find(|size| *size <= rows.len()).unwrap_or(1);
        let tuple = |row: usize| format!("({})", numbered(row * columns, columns));
        let tuples = (0..size).map(tuple).collect::<Vec<_>>().join(",");
        let mut query = sqlx::query(AssertSqlSafe(format!("{head} VALUES {tuples} {tail}")));
        for value in rows.by_ref().take(size).flatten() {
            query = bind(query, value);
        }
        returned.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(returned)
}

/// The rows that `head` (which ends with an id's column) finds for any of `ids`, of `from_day` and later.
pub(super) async fn among(
    db: &mut AnyConnection,
    head: &str,
    ids: &[Vec<u8>],
    from_day: i64,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    if db.backend_name() == "PostgreSQL" {
        let mut all = Column::default();
        ids.iter().for_each(|id| all.push(&id[..].into()));
        let text = format!("{head} = ANY(CAST(CAST($1 AS TEXT) AS BYTEA[])) AND day >= $2");
        return sqlx::query(AssertSqlSafe(text)).bind(all.finish().0).bind(from_day).fetch_all(db).await;
    }
    let mut found = Vec::new();
    for some in ids.chunks(CHUNKS[0]) {
        // the last id repeated fills the statement up
        let size = CHUNKS.into_iter().rev().find(|size| *size >= some.len()).unwrap_or(CHUNKS[0]);
        let text = format!("{head} IN ({}) AND day >= ${}", numbered(0, size), size + 1);
        let mut query = sqlx::query(AssertSqlSafe(text));
        for id in some.iter().chain(std::iter::repeat(&some[some.len() - 1])).take(size) {
            query = query.bind(id.clone());
        }
        found.extend(query.bind(from_day).fetch_all(&mut *db).await?);
    }
    Ok(found)
}

/// `$from+1,…,$from+n`.
fn numbered(from: usize, n: usize) -> String {
    (from + 1..=from + n).map(|i| format!("${i}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_says_bytes_numbers_nothing_and_any_text() {
        let of = |values: &[Value]| {
            let mut column = Column::default();
            values.iter().for_each(|v| column.push(v));
            column.finish()
        };
        assert_eq!(of(&[Value::Bytes(vec![0, 255]), Value::Nothing]), (r"{\\x00ff,NULL}".into(), "BYTEA"));
        assert_eq!(of(&[Value::Int(-1), Value::Int(2)]), ("{-1,2}".into(), "BIGINT"));
        assert_eq!(of(&[Value::Text(r#"a,"b\c}"#.into())]), (r#"{"a,\"b\\c}"}"#.into(), "TEXT"));
        assert_eq!(of(&[Value::Text(String::new())]), (r#"{""}"#.into(), "TEXT"));
    }
}
