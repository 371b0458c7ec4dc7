-- What the capability of a job is called, for the access rules, and when it ended.
ALTER TABLE job ADD COLUMN capability_label TEXT;
ALTER TABLE job ADD COLUMN capability_token TEXT;
ALTER TABLE job ADD COLUMN finished_us INTEGER;
