//! When the log has become another one: it ends before what was read of it, because it was restored from a backup, or a
//! replica that lacked the last entries became the primary. Their places are given a second time, so positions of then
//! must not be taken for positions of now.

use sqlx::PgExecutor;

use crate::position::Position;

/// Raises the log's epoch if it ends before `known`, which was read of it; whether it did. Every pod may ask: the first
/// that does raises it for all.
pub(super) async fn raise_if_shorter(executor: impl PgExecutor<'_>, known: Position) -> Result<bool, sqlx::Error> {
    const RAISE: &str = "UPDATE head SET epoch = epoch + 1 WHERE epoch = $1 AND seq < $2";
    let raised = sqlx::query(RAISE).bind(known.epoch).bind(known.seq).execute(executor).await?.rows_affected() > 0;
    if raised {
        tracing::warn!(
            log.epoch = known.epoch,
            log.seq = known.seq,
            "the log has lost entries that were read; clients are told a gap"
        );
    }
    Ok(raised)
}
