-- Webhooks: consumers whose events Nexus itself delivers, each to an address of its own.

CREATE TABLE webhook (
    id uuid PRIMARY KEY,
    consumer_id bigint NOT NULL UNIQUE REFERENCES consumer ON DELETE CASCADE,
    url text NOT NULL,
    description text NOT NULL,
    -- The token by which it was made or last changed: a webhook ends with it when it is revoked.
    token_id text,
    token_issued_at bigint NOT NULL,
    -- Signs every delivery.
    secret bytea NOT NULL CHECK (length(secret) BETWEEN 24 AND 64),
    -- Signs as well until `previous_until`.
    previous_secret bytea,
    previous_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Since when every delivery has failed; empty after one that arrived.
    failing_since timestamptz,
    last_error text,
    disabled_at timestamptz,
    -- `owner`, `gone`, `failing` or `revoked`.
    disabled_reason text,
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
);
