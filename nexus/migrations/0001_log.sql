-- The outbox, the log and what orders them. Tables stand in the schema of the connection's search path.

-- One row: how far the log has been stamped. Whoever stamps locks it first, so two sequencers cannot both write.
CREATE TABLE head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch integer NOT NULL CHECK (epoch >= 1),
    seq bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 50);
INSERT INTO head (epoch, seq) VALUES (1, 0);

-- Events of committed transactions that have no position yet. Small: the sequencer empties it all the time,
-- so it is vacuumed by the number of dead rows and not by its share of an almost empty table.
CREATE SEQUENCE outbox_id;
CREATE TABLE outbox (
    id bigint PRIMARY KEY DEFAULT nextval('outbox_id'),
    key uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    event json NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER SEQUENCE outbox_id OWNED BY outbox.id;

-- Makes publishing idempotent: the key is a digest of source and id. Removed with the event's partition.
CREATE TABLE event_key (
    key uuid PRIMARY KEY,
    outbox_id bigint NOT NULL
);

-- The log: dense numbers, never updated. Partitions are made ahead by the sequencer and dropped by retention.
-- `json` and not `jsonb`: the text is handed out as it was accepted, without parsing it again.
CREATE TABLE log (
    seq bigint NOT NULL,
    outbox_id bigint NOT NULL,
    key uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    event json NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (seq)
) PARTITION BY RANGE (seq);
CREATE INDEX log_type ON log (type, seq);
CREATE INDEX log_subject ON log (subject, seq);
CREATE INDEX log_outbox ON log (outbox_id);
