-- What else is known of a component, as of its last registration: where it came from, which
-- program it is, and how far its clock was ahead, in seconds.
ALTER TABLE component ADD COLUMN address TEXT;
ALTER TABLE component ADD COLUMN version TEXT;
ALTER TABLE component ADD COLUMN clock_ahead_s INTEGER;
