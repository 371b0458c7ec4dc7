-- What else is known of a component, as of its last registration: where it came from, which
-- program it is, and how far its clock was ahead, in seconds.
ALTER TABLE component ADD COLUMN address TEXT;
ALTER TABLE component ADD COLUMN version TEXT;
ALTER TABLE component ADD COLUMN clock_ahead_s INTEGER;

-- A capability replaces the one that had its label.
CREATE INDEX capability_label ON capability (component, json ->> 'label')
WHERE until_us IS NULL;
