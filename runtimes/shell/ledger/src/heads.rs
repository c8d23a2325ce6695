//! Queries of the log heads that clients signed and CNs passed on (contradicting heads prove a forked log), and of
//! the GUIDs that were retired because two copies of an installation ran.

use super::columns::record_at;
use super::kind::Kind;
use super::reader::Reader;
use futures_lite::StreamExt as _;
use swarmedge_core::accounting::logs::{self, Fork};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord, SignedHead, SignedRekey};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::verify;

impl Reader {
    /// Returns the clients' logs that fork.
    pub async fn forks(&mut self) -> Result<Vec<Fork>, Error> {
        let heads = self.heads().await.map_err(|e| self.failed(&e))?;
        Ok(logs::forks(verify, heads))
    }

    /// Returns the rekey records that retired GUIDs, each with its Unix time in ms, oldest first.
    pub async fn retired(&mut self) -> Result<Vec<(u64, SignedRekey)>, Error> {
        let logs = self.logs_of(Kind::Rekeyed).await.map_err(|e| self.failed(&e))?;
        let rekey = |record: LogRecord| match record.event {
            LogEvent::Rekeyed(signed) => Some((record.at_ms, signed)),
            LogEvent::Login(_)
            | LogEvent::Registered(_)
            | LogEvent::Offered(_)
            | LogEvent::Head(_)
            | LogEvent::Located(_)
            | LogEvent::Blamed(_) => None,
        };
        Ok(logs.into_iter().filter_map(rekey).collect())
    }

    async fn heads(&mut self) -> Result<Vec<SignedHead>, sqlx::Error> {
        let text = "SELECT body FROM record WHERE kind IN ($1, $2, $3) ORDER BY received_ms";
        let query =
            sqlx::query(text).bind(Kind::Downloader.to_sql()).bind(Kind::Uploader.to_sql()).bind(Kind::Head.to_sql());
        let mut rows = query.fetch(&mut self.db.any);
        let mut heads = Vec::new();
        while let Some(row) = rows.next().await {
            match record_at(&row?, 0)? {
                LedgerRecord::Usage(logged) => heads.push(logged.head),
                LedgerRecord::Log(LogRecord { event: LogEvent::Head(head), .. }) => heads.push(head),
                LedgerRecord::Log(_)
                | LedgerRecord::Edge(_)
                | LedgerRecord::Granted(_)
                | LedgerRecord::Served(_)
                | LedgerRecord::Possession(_) => {}
            }
        }
        Ok(heads)
    }

    /// Reads the CNs' log records of one kind, oldest first.
    async fn logs_of(&mut self, kind: Kind) -> Result<Vec<LogRecord>, sqlx::Error> {
        let rows = sqlx::query("SELECT body FROM record WHERE kind = $1 ORDER BY received_ms")
            .bind(kind.to_sql())
            .fetch_all(&mut self.db.any)
            .await?;
        let mut logs = Vec::with_capacity(rows.len());
        for row in &rows {
            if let LedgerRecord::Log(record) = record_at(row, 0)? {
                logs.push(record);
            }
        }
        Ok(logs)
    }
}
