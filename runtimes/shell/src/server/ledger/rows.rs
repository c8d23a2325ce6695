//! Statements over many rows at once, the same text for both engines. Few sizes of batch occur, so that few statements
//! are prepared.

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

/// `head VALUES (…), (…) tail` for all `rows`; the rows that `tail` returns.
pub(super) async fn insert(
    db: &mut AnyConnection,
    head: &str,
    rows: Vec<Vec<Value>>,
    tail: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
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

/// `head IN (…) AND day >= from_day` for all `ids`.
pub(super) async fn among(
    db: &mut AnyConnection,
    head: &str,
    ids: &[Vec<u8>],
    from_day: i64,
) -> Result<Vec<AnyRow>, sqlx::Error> {
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
