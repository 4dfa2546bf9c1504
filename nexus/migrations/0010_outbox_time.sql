-- Since when an event waits for its place. By the clock and not by the transaction's begin: events are appended last.
-- Kept as `now()` for the rows that are there, so that the table is not written anew.
ALTER TABLE outbox ADD COLUMN queued_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE outbox ALTER COLUMN queued_at SET DEFAULT clock_timestamp();
