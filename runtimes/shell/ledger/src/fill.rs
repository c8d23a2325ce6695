//! Synthetic download rows without records, made inside the database, to benchmark reports over millions of downloads.

use super::day::Day;
use super::line::COLUMNS;
use super::rows::is_postgres;
use super::store::Store;
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::Error;

/// Inserts rows of `downloads` synthetic downloads of a provider: 30 days from `first`, 200 objects.
pub async fn fill(store: &mut Store, provider: ProviderId, first: Day, downloads: u32) -> Result<(), Error> {
    let (db, database) = store.parts()?;
    // ascending ids with a prefix of their own: fast to insert in both engines
    let (id, digest, guid, numbers) = if is_postgres(&db.any) {
        (
            "decode('fe' || lpad(to_hex(n), 30, '0'), 'hex')",
            "uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())",
            "uuid_send(gen_random_uuid())",
            "SELECT CAST(g AS BIGINT) AS n FROM generate_series(0, $3 - 1) AS g",
        )
    } else {
        (
            "unhex(printf('fe%030x', n))",
            "randomblob(32)",
            "randomblob(16)",
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < $3 - 1) SELECT n FROM s",
        )
    };
    // each object is downloaded from 40 networks at 80 speeds; the uploaders are in the next network
    let spot = "'DE/' || (64500 + n / 200 * 31 % 40)";
    let sources = "'{\"DE/' || (64500 + (n / 200 * 31 + 1) % 40) || '\":' || (34000000 - n % 1000) || '}'";
    let text = format!(
        "INSERT INTO download ({COLUMNS})
         SELECT {id}, $1, $2 + n * 30 / $3, 'games/part-' || (n * 7919 % 200) || '.iso', {digest}, {guid}, 50000000,
                ($2 + n * 30 / $3) * 86400000 + n % 86400000,
                CASE WHEN n % 100 < 3 THEN 4 WHEN n % 100 < 10 THEN 3 ELSE 2 END, 2000 + n % 60000,
                15000000 + n % 1000, 15000000 + n % 1000, 15000000, 35000000, 35000000, 34000000 - n % 1000, 0,
                CASE WHEN n % 100 < 10 THEN -1 ELSE 320 + n / 200 * 31 % 80 END, {digest},
                CASE WHEN n % 100 < 3 THEN 1 + n % 7 ELSE 0 END, 50000000, {spot}, {sources}, 0
         FROM ({numbers}) AS numbers"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(i64::from(provider.0)).bind(first.to_sql());
    let done = query.bind(i64::from(downloads)).execute(&mut db.any).await;
    done.map(|_| ()).map_err(|e| database.unusable(&e))
}
