//! The signed heads of clients' logs, as CNs have passed them on: where they contradict each other is evidence.

use super::store::{decode, log_kind_of_heads};
use super::usage::Reader;
use crate::error::Error;
use crate::keys::verify;
use swarmedge_core::accounting::logs::{self, Fork};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, SignedHead};

impl Reader {
    /// The logs that fork.
    pub async fn forks(&mut self) -> Result<Vec<Fork>, Error> {
        let heads = self.heads().await.map_err(|e| self.failed(&e))?;
        Ok(logs::forks(verify, heads))
    }

    async fn heads(&mut self) -> Result<Vec<SignedHead>, sqlx::Error> {
        let rows = sqlx::query("SELECT body FROM record WHERE kind = $1 ORDER BY received_ms")
            .bind(log_kind_of_heads())
            .fetch_all(&mut self.db.any)
            .await?;
        let mut heads = Vec::with_capacity(rows.len());
        for row in &rows {
            if let LedgerRecord::Log(record) = decode(row, 0)?
                && let LogEvent::Head(head) = record.event
            {
                heads.push(head);
            }
        }
        Ok(heads)
    }
}
