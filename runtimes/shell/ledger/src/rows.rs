//! SQL statements over many rows at once: tuples of parameters in SQLite, one array a column in PostgreSQL, which plans
//! and binds nine arrays far faster than a thousand rows of nine parameters. Row numbers are rounded to a few sizes, so
//! that few different statements are prepared.

use data_encoding::HEXLOWER;
use futures_lite::StreamExt as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

/// Numbers of rows per statement, largest first. 256 rows of 20 columns stay below the parameter limits of SQLite and
/// PostgreSQL.
const CHUNKS: [usize; 5] = [256, 64, 16, 4, 1];

/// A value of a column.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    /// NULL in a bytes column.
    Nothing,
    Text(String),
}

impl From<u64> for Value {
    /// Converts a number; larger ones become `i64::MAX`, since the integers of SQLite and PostgreSQL are signed.
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

/// Binds a value to the next parameter of a query.
fn bind(query: AnyQuery<'_>, value: Value) -> AnyQuery<'_> {
    match value {
        Value::Int(n) => query.bind(n),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Nothing => query.bind(None::<Vec<u8>>),
        Value::Text(text) => query.bind(text),
    }
}

/// Text form of a PostgreSQL array, since sqlx's `Any` driver cannot bind arrays.
#[derive(Default)]
struct Array(String);

impl Array {
    fn push(&mut self, value: &Value) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        match value {
            Value::Int(n) => self.0 += &n.to_string(),
            Value::Bytes(bytes) => {
                self.0 += r"\\x";
                HEXLOWER.encode_append(bytes, &mut self.0);
            }
            Value::Nothing => self.0 += "NULL",
            Value::Text(text) => {
                self.0.push('"');
                for c in text.chars() {
                    if matches!(c, '"' | '\\') {
                        self.0.push('\\');
                    }
                    self.0.push(c);
                }
                self.0.push('"');
            }
        }
    }

    fn finish(mut self) -> String {
        self.0 += if self.0.is_empty() { "{}" } else { "}" };
        self.0
    }
}

/// A column of values for PostgreSQL. Bytes of all rows are bound as one value, with arrays of starts and lengths: an
/// array's text form would double their size and be parsed character by character.
enum Column {
    Ints(Array),
    Texts(Array),
    Bytes { all: Vec<u8>, begins: Array, lengths: Array },
}

impl Column {
    /// Collects a column of `rows`, typed by its first value that is not NULL.
    fn of(rows: &[Vec<Value>], column: usize) -> Self {
        let values = || rows.iter().filter_map(|row| row.get(column));
        let array = || {
            let mut array = Array::default();
            values().for_each(|value| array.push(value));
            array
        };
        match values().find(|v| !matches!(v, Value::Nothing)) {
            Some(Value::Int(_)) => Self::Ints(array()),
            Some(Value::Text(_)) => Self::Texts(array()),
            Some(Value::Bytes(_) | Value::Nothing) | None => Self::bytes(values()),
        }
    }

    fn bytes<'a>(values: impl Iterator<Item = &'a Value>) -> Self {
        let (mut all, mut begins, mut lengths) = (Vec::new(), Array::default(), Array::default());
        for value in values {
            if let Value::Bytes(bytes) = value {
                begins.push(&(all.len() as u64 + 1).into());
                lengths.push(&(bytes.len() as u64).into());
                all.extend_from_slice(bytes);
            } else {
                begins.push(&Value::Nothing);
                lengths.push(&Value::Nothing);
            }
        }
        Self::Bytes { all, begins, lengths }
    }
}

/// Parts of a statement over columns: selected expressions, arrays, array names, and parameters.
#[derive(Default)]
struct Arrays {
    values: Vec<String>,
    arrays: Vec<String>,
    names: Vec<String>,
    parameters: Vec<Value>,
}

impl Arrays {
    fn parameter(&mut self, value: Value) -> usize {
        self.parameters.push(value);
        self.parameters.len()
    }

    fn array(&mut self, array: Array, kind: &str, name: String) {
        let at = self.parameter(Value::Text(array.finish()));
        self.arrays.push(format!("CAST(CAST(${at} AS TEXT) AS {kind}[])"));
        self.names.push(name);
    }

    fn add(&mut self, n: usize, column: Column) {
        let value = match column {
            Column::Ints(ints) => {
                self.array(ints, "BIGINT", format!("v{n}"));
                format!("v{n}")
            }
            Column::Texts(texts) => {
                self.array(texts, "TEXT", format!("v{n}"));
                format!("v{n}")
            }
            Column::Bytes { all, begins, lengths } => {
                self.array(begins, "INT", format!("b{n}"));
                self.array(lengths, "INT", format!("l{n}"));
                format!("SUBSTRING(CAST(${} AS BYTEA) FROM b{n} FOR l{n})", self.parameter(Value::Bytes(all)))
            }
        };
        self.values.push(value);
    }
}

/// Runs `head SELECT … FROM UNNEST(…) tail` and returns its rows.
async fn insert_arrays(
    db: &mut AnyConnection,
    head: &str,
    rows: &[Vec<Value>],
    tail: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut of = Arrays::default();
    for n in 0..rows.first().map_or(0, Vec::len) {
        of.add(n, Column::of(rows, n));
    }
    let (values, arrays, names) = (of.values.join(","), of.arrays.join(","), of.names.join(","));
    let text = format!("{head} SELECT {values} FROM UNNEST({arrays}) AS t({names}) {tail}");
    let query = of.parameters.into_iter().fold(sqlx::query(AssertSqlSafe(text)), bind);
    query.fetch_all(db).await
}

/// Inserts `rows` with the statement `head … tail`; returns the rows of `tail`'s RETURNING clause.
pub(super) async fn insert(
    db: &mut AnyConnection,
    head: &str,
    rows: Vec<Vec<Value>>,
    tail: &str,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    if is_postgres(db) {
        return insert_arrays(db, head, &rows, tail).await;
    }
    let mut returned = Vec::new();
    let mut rows = rows.into_iter();
    while let Some(columns) = rows.as_slice().first().map(Vec::len) {
        let size = CHUNKS.into_iter().find(|size| *size <= rows.len()).unwrap_or(1);
        let tuple = format!("({})", holes(columns));
        let tuples = vec![&tuple[..]; size].join(",");
        let mut query = sqlx::query(AssertSqlSafe(format!("{head} VALUES {tuples} {tail}")));
        for value in rows.by_ref().take(size).flatten() {
            query = bind(query, value);
        }
        returned.extend(query.fetch_all(&mut *db).await?);
    }
    Ok(returned)
}

/// A query for the rows of any of some ids.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    /// The query, which ends with the id's column.
    pub(super) head: &'a str,
    /// Ids to look up.
    pub(super) ids: &'a [Vec<u8>],
    /// First day of the rows to return.
    pub(super) from_day: i64,
}

/// Returns whether a connection is to PostgreSQL.
pub(super) fn is_postgres(db: &AnyConnection) -> bool {
    db.backend_name() == "PostgreSQL"
}

/// Returns the rows of the query `head`, which ends with an id column, for any of `ids` with `day >= from_day`.
pub(super) async fn among(
    db: &mut AnyConnection,
    head: &str,
    ids: &[Vec<u8>],
    from_day: i64,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut found = Vec::new();
    let each = |row| {
        found.push(row);
        Ok(())
    };
    each_among(db, Lookup { head, ids, from_day }, "", each).await?;
    Ok(found)
}

/// Passes the rows of a query to `each`, ordered by `tail`; SQLite keeps the order within each 256 ids only.
pub(super) async fn each_among(
    db: &mut AnyConnection,
    Lookup { head, ids, from_day }: Lookup<'_>,
    tail: &str,
    mut each: impl FnMut(AnyRow) -> Result<(), sqlx::Error>,
) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    if is_postgres(db) {
        let mut all = Array::default();
        ids.iter().for_each(|id| all.push(&id[..].into()));
        let text = format!("{head} = ANY(CAST(CAST($1 AS TEXT) AS BYTEA[])) AND day >= $2 {tail}");
        let mut rows = sqlx::query(AssertSqlSafe(text)).bind(all.finish()).bind(from_day).fetch(db);
        while let Some(row) = rows.next().await {
            each(row?)?;
        }
        return Ok(());
    }
    for some in ids.chunks(CHUNKS[0]) {
        // repeat the last id to fill the statement
        let size = CHUNKS.into_iter().rev().find(|size| *size >= some.len()).unwrap_or(CHUNKS[0]);
        let text = format!("{head} IN ({}) AND day >= ? {tail}", holes(size));
        let mut query = sqlx::query(AssertSqlSafe(text));
        for id in some.iter().chain(std::iter::repeat(&some[some.len() - 1])).take(size) {
            query = query.bind(id.clone());
        }
        let mut rows = query.bind(from_day).fetch(&mut *db);
        while let Some(row) = rows.next().await {
            each(row?)?;
        }
    }
    Ok(())
}

/// Returns `?,…,?`. Unnamed parameters are used because SQLite compares each name with all names before it.
fn holes(n: usize) -> String {
    vec!["?"; n].join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_holds_bytes_numbers_nulls_and_any_text() {
        let of = |values: &[Value]| {
            let mut array = Array::default();
            values.iter().for_each(|v| array.push(v));
            array.finish()
        };
        assert_eq!(of(&[Value::Bytes(vec![0, 255]), Value::Nothing]), r"{\\x00ff,NULL}");
        assert_eq!(of(&[Value::Int(-1), Value::Int(2)]), "{-1,2}");
        assert_eq!(of(&[Value::Text(r#"a,"b\c}"#.into())]), r#"{"a,\"b\\c}"}"#);
        assert_eq!(of(&[Value::Text(String::new())]), r#"{""}"#);
    }

    #[test]
    fn a_bytes_column_has_the_start_of_each_value() {
        let rows = [b"ab" as &[u8], b"", b"cde"].map(|bytes| vec![bytes.into()]);
        let rows = [rows[0].clone(), vec![Value::Nothing], rows[1].clone(), rows[2].clone()];
        let Column::Bytes { all, begins, lengths } = Column::of(&rows, 0) else { panic!("bytes") };
        assert_eq!(
            (&all[..], begins.finish(), lengths.finish()),
            (&b"abcde"[..], "{1,NULL,3,3}".into(), "{2,NULL,0,3}".into())
        );
    }
}
