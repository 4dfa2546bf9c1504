-- Tokens that count no more although their time has not come. Rows are neither changed nor removed: pods count them.
CREATE TABLE revocation (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Every token of this subject that was issued up to the second of `revoked_at`.
    subject text,
    -- One token, by its `jti`.
    token_id text,
    revoked_at timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(subject, token_id) = 1)
);
