-- Nothing that is published can stop the log: what it cannot hold is refused, and what got into the outbox nevertheless
-- is set aside.

-- Events of the outbox that the log could not take, with the database's word for it. They wait for a person: nothing is
-- lost, and nothing waits behind them. Their keys are kept, so that nobody publishes them a second time.
CREATE TABLE outbox_refused (
    id bigint PRIMARY KEY,
    key uuid NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    event json NOT NULL,
    audience text[] NOT NULL,
    queued_at timestamptz,
    refused_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL
);

SELECT set_config('search_path', current_setting('search_path') || ', pg_temp', true);

-- As before; new is that text which Postgres cannot hold, and rooms that no index can, are refused.
CREATE OR REPLACE FUNCTION nexus_publish_version(
    version integer, source text, id text, type text, subject text, data json, "time" timestamptz DEFAULT now()
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
<<local>>
DECLARE
    key CONSTANT uuid := encode(substring(
        sha256(convert_to(nexus_publish_version.source || E'\n' || nexus_publish_version.id, 'UTF8')) FROM 1 FOR 16
    ), 'hex');
    attribute record;
    stem text;
    rule text[];
    audience text[];
    encoded text;
    trace text := current_setting('nexus.traceparent', true);
    number bigint;
BEGIN
    FOR attribute IN
        SELECT * FROM (VALUES
            ('source', nexus_publish_version.source), ('id', nexus_publish_version.id),
            ('subject', nexus_publish_version.subject)
        ) AS attribute (name, value)
    LOOP
        IF coalesce(octet_length(attribute.value), 0) NOT BETWEEN 1 AND 256
            OR attribute.value ~ E'[\u0001-\u001f\u007f-\u009f]' THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('%s must have 1 to 256 bytes and no control characters', attribute.name);
        END IF;
    END LOOP;
    IF nexus_publish_version.source ~ '[[:space:]<>"{}|\\^`]' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'source must be a URI reference';
    END IF;
    SELECT subject_stem INTO stem FROM event_type WHERE event_type.type = nexus_publish_version.type;
    IF stem IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'type is not a registered event type', HINT = 'The table event_type lists them.';
    END IF;
    SELECT event_type_version.audience INTO rule FROM event_type_version
    WHERE event_type_version.type = nexus_publish_version.type
        AND event_type_version.version = nexus_publish_version.version;
    IF rule IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'the event type has no such version',
            HINT = 'The table event_type_version lists them; nexus_publish_version takes each.';
    END IF;
    IF NOT starts_with(nexus_publish_version.subject, stem)
        OR substr(nexus_publish_version.subject, length(stem) + 1) !~ '^[A-Za-z0-9_.:-]+$' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('subject must have the form %s{id}', stem);
    END IF;
    IF nexus_publish_version.data IS NULL OR json_typeof(nexus_publish_version.data) <> 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'data must be a JSON object';
    END IF;
    BEGIN
        PERFORM nexus_publish_version.data::jsonb;
    EXCEPTION WHEN data_exception THEN
        -- A NUL, half of a surrogate pair: whoever reads it as text would fail on it, later and for others.
        RAISE invalid_parameter_value USING
            MESSAGE = 'data must hold only text and numbers that Postgres can read: ' || SQLERRM;
    END;
    IF nexus_publish_version."time" IS NULL OR NOT isfinite(nexus_publish_version."time") THEN
        RAISE invalid_parameter_value USING MESSAGE = 'time must be a point in time';
    END IF;
    -- What is no place in a trace is passed over, as W3C Trace Context asks: no event is lost for it.
    trace := CASE WHEN trace ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$'
        THEN format(',"traceparent":"%s"', trace) END;
    encoded := format(
        '{"specversion":"1.0","id":%s,"source":%s,"type":%s,"subject":%s,"time":%s,'
        '"datacontenttype":"application/json"%s%s,"data":%s}',
        to_json(nexus_publish_version.id), to_json(nexus_publish_version.source),
        to_json(nexus_publish_version.type),
        to_json(nexus_publish_version.subject),
        to_json(to_char(nexus_publish_version."time" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
        -- As it was before there were versions, for the first one.
        CASE WHEN nexus_publish_version.version > 1 THEN format(
            ',"dataschema":"/v1/event-types/%s/versions/%s"', nexus_publish_version.type, nexus_publish_version.version)
        END,
        trace,
        -- Outside of its strings JSON may have line breaks; an event of the log is one line.
        translate(nexus_publish_version.data::text, E'\n\r', '  '));
    IF octet_length(encoded) > 65536 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'the event has more than 65536 bytes';
    END IF;
    SELECT coalesce(array_agg(room), '{}') INTO local.audience FROM (
        SELECT CASE WHEN field IS NULL THEN template ELSE split_part(template, '{', 1) || nullif(data ->> field, '') END
        FROM unnest(rule) AS template, substring(template FROM '\{(.*)\}$') AS field
    ) AS rooms (room) WHERE room IS NOT NULL;
    IF array_to_string(local.audience, '') ~ E'[\u0001-\u001f\u007f-\u009f]' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('data has a control character in a field that names the audience: %s', rule);
    END IF;
    IF EXISTS (SELECT FROM unnest(local.audience) AS room WHERE octet_length(room) > 512) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('data has more than 512 bytes in a field that names the audience: %s', rule);
    END IF;
    INSERT INTO event_key (key, outbox_id) VALUES (local.key, nextval('outbox_id'))
    ON CONFLICT DO NOTHING RETURNING outbox_id INTO number;
    IF number IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO outbox (id, key, type, subject, event, audience)
    VALUES (
        number, local.key, nexus_publish_version.type, nexus_publish_version.subject, encoded::json, local.audience);
    RETURN true;
END
$$;
