-- Accepted specifications and what came of them. Times are microseconds since 1970, UTC.
CREATE TABLE job (
  id INTEGER PRIMARY KEY,
  parent INTEGER REFERENCES job (id) ON DELETE CASCADE,
  owner TEXT NOT NULL,
  specification TEXT NOT NULL,
  accepted_us INTEGER NOT NULL,
  started_us INTEGER,
  message TEXT,
  is_posted INTEGER NOT NULL,
  is_delivered INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX job_parent ON job (parent) WHERE parent IS NOT NULL;

-- Rows of measurements that run, in the order of measuring.
CREATE TABLE row_chunk (
  job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  first_row INTEGER NOT NULL,
  json BLOB NOT NULL,
  PRIMARY KEY (job, first_row)
) STRICT, WITHOUT ROWID;

-- What was measured and could not be delivered, and why.
CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  buried_us INTEGER NOT NULL,
  owner TEXT NOT NULL,
  message TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
