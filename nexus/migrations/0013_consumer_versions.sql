-- The versions of event types that a consumer asks for, by type; it is given the current one of every other.
ALTER TABLE consumer ADD COLUMN versions jsonb NOT NULL DEFAULT '{}';
