-- Publishing by SQL, for a service that keeps records of its own in this database.

-- What the registry knows, for SQL writers. `nexus migrate` keeps it.
CREATE TABLE event_type (
    type text PRIMARY KEY,
    -- The subject without its id, such as `wallet/`.
    subject_stem text NOT NULL
);

-- The function runs with the rights of its owner: a caller's temporary tables are looked at last.
SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- Publishes an event in the caller's own transaction: it exists if and when that commits. Answers whether the event is
-- new; one with the same source and id is published once, by SQL and over the API together.
--
-- Call it last, while the lock on the record's row is held: then the events of one subject have the order of their
-- commits. Envelope, type, subject and size are checked here. That `data` is as the type's schema says is the caller's
-- promise, which `GET /v1/event-types` tells. The event is stamped within a tenth of a second of the commit.
--
-- A role needs nothing but EXECUTE on it, which is given to nobody here: GRANT EXECUTE ON FUNCTION nexus_publish TO ...
CREATE FUNCTION nexus_publish(
    source text, id text, type text, subject text, data json, "time" timestamptz DEFAULT now()
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
<<local>>
DECLARE
    key CONSTANT uuid := encode(
        substring(sha256(convert_to(nexus_publish.source || E'\n' || nexus_publish.id, 'UTF8')) FROM 1 FOR 16), 'hex');
    attribute record;
    stem text;
    encoded text;
    number bigint;
BEGIN
    FOR attribute IN
        SELECT * FROM (VALUES
            ('source', nexus_publish.source), ('id', nexus_publish.id), ('subject', nexus_publish.subject)
        ) AS attribute (name, value)
    LOOP
        IF coalesce(octet_length(attribute.value), 0) NOT BETWEEN 1 AND 256
            OR attribute.value ~ E'[\u0001-\u001f\u007f-\u009f]' THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('%s must have 1 to 256 bytes and no control characters', attribute.name);
        END IF;
    END LOOP;
    IF nexus_publish.source ~ '[[:space:]<>"{}|\\^`]' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'source must be a URI reference';
    END IF;
    SELECT subject_stem INTO stem FROM event_type WHERE event_type.type = nexus_publish.type;
    IF stem IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'type is not a registered event type', HINT = 'The table event_type lists them.';
    END IF;
    IF NOT starts_with(nexus_publish.subject, stem)
        OR substr(nexus_publish.subject, length(stem) + 1) !~ '^[A-Za-z0-9_.:-]+$' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('subject must have the form %s{id}', stem);
    END IF;
    IF nexus_publish.data IS NULL OR json_typeof(nexus_publish.data) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'data must be a JSON object';
    END IF;
    IF nexus_publish."time" IS NULL OR NOT isfinite(nexus_publish."time") THEN
        RAISE invalid_parameter_value USING MESSAGE = 'time must be a point in time';
    END IF;
    encoded := format(
        '{"specversion":"1.0","id":%s,"source":%s,"type":%s,"subject":%s,"time":%s,'
        '"datacontenttype":"application/json","data":%s}',
        to_json(nexus_publish.id), to_json(nexus_publish.source), to_json(nexus_publish.type),
        to_json(nexus_publish.subject),
        to_json(to_char(nexus_publish."time" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
        -- Outside of its strings JSON may have line breaks; an event of the log is one line.
        translate(nexus_publish.data::text, E'\n\r', '  '));
    IF octet_length(encoded) > 65536 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'the event has more than 65536 bytes';
    END IF;
    INSERT INTO event_key (key, outbox_id) VALUES (local.key, nextval('outbox_id'))
    ON CONFLICT DO NOTHING RETURNING outbox_id INTO number;
    IF number IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO outbox (id, key, type, subject, event)
    VALUES (number, local.key, nexus_publish.type, nexus_publish.subject, encoded::json);
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION nexus_publish FROM PUBLIC;
