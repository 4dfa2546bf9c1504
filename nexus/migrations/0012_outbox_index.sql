-- Most events never are in the outbox. What stands for their number there is their place, negated, and nobody looks that up.
-- Pods of the version before ask without this condition, and scan the log where they ask; they are soon gone.
DROP INDEX log_outbox;
CREATE INDEX log_outbox ON log (outbox_id) WHERE outbox_id > 0;
