-- History by the time of the log. Entries stand in the order of their times, so a summary of each few pages is enough.
CREATE INDEX log_recorded_at ON log USING brin (recorded_at) WITH (pages_per_range = 16, autosummarize = on);
