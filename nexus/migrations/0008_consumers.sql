-- Durable consumers: who wants which entries of the log, and what each has not acknowledged yet.

CREATE TABLE consumer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The subject of the token that made it. Each owner has names of its own.
    owner text NOT NULL,
    -- None for a consumer that Nexus itself leases for.
    name text CHECK (length(name) BETWEEN 1 AND 64),
    -- The room of the person whose rights count; none when everything may be seen.
    person text,
    types text[] NOT NULL CHECK (cardinality(types) >= 1),
    subjects text[],
    -- Whether an event waits until the one before it of the same subject is done.
    ordered boolean NOT NULL,
    lease_seconds integer NOT NULL CHECK (lease_seconds >= 1),
    -- Waits after each failed attempt but the last; none for those of the settings.
    retry_seconds integer[],
    -- Up to here every entry has become a delivery or is not wanted. It belongs to the log of this database, whatever
    -- the log's epoch: a backup holds both as they were at one moment.
    position bigint NOT NULL CHECK (position >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner, name)
) WITH (fillfactor = 50);

-- What was taken from the log and is not acknowledged yet: pending while `dead_at` is empty, else a dead letter.
-- The event is a copy: retention may drop the entry meanwhile. Bounded by the settings for each consumer.
CREATE TABLE delivery (
    consumer_id bigint NOT NULL REFERENCES consumer ON DELETE CASCADE,
    seq bigint NOT NULL,
    epoch integer NOT NULL,
    -- Of the event, as in the log; none for a gap.
    key uuid,
    -- Empty for a gap.
    subject text NOT NULL DEFAULT '',
    audience text[] NOT NULL DEFAULT '{}',
    -- As it stands in the log.
    event text,
    -- Retention has dropped everything after this entry up to and with `seq`, before it was taken.
    gap_from bigint,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    -- Leases given so far.
    attempts integer NOT NULL DEFAULT 0,
    -- From then on it may be leased; while it is leased, when it may be leased again if nothing is heard.
    due_at timestamptz NOT NULL DEFAULT now(),
    lease uuid,
    leased_until timestamptz,
    last_error text,
    dead_at timestamptz,
    PRIMARY KEY (consumer_id, seq),
    CHECK ((event IS NULL) = (gap_from IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX delivery_due ON delivery (consumer_id, due_at) WHERE dead_at IS NULL;
CREATE INDEX delivery_subject ON delivery (consumer_id, subject, seq) WHERE dead_at IS NULL;

-- Whether a person may see what is told in these rooms now; no person stands for who may see everything. The same rule as
-- in `auth/access.rs`, here so that rooms of any number cost one look each.
CREATE FUNCTION delivery_visible(person text, audience text[]) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT person IS NULL OR audience && ARRAY[person, 'everyone'] OR EXISTS (
        SELECT FROM membership
        WHERE membership.person = delivery_visible.person AND membership.room = ANY (delivery_visible.audience))
$$;

-- How long to wait after this attempt: a fifth more or less, so that what failed together does not come back together.
CREATE FUNCTION delivery_wait(retry_seconds integer[], attempts integer) RETURNS interval VOLATILE LANGUAGE sql AS $$
    SELECT coalesce(retry_seconds[attempts], 0) * (0.8 + 0.4 * random()) * interval '1 second'
$$;
