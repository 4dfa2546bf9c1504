-- What was answered to a write with an Idempotency-Key, stored in the transaction of its effect.
CREATE TABLE idempotency (
    -- Keys are the caller's own: two callers may choose the same one.
    caller text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    -- Digest of operation and body: the same key with another request is a mistake, and told so.
    request bytea NOT NULL,
    -- Empty only inside the transaction that makes the effect.
    answer text,
    outbox_id bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_created_at ON idempotency (created_at);
