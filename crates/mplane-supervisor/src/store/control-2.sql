-- How many specifications of each client have not ended, and how many messages each component
-- is to fetch. Accepting one asks for both: they are counted as they change, so that a long
-- queue costs no more than a short one.
CREATE TABLE tally (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  specifications INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO tally
SELECT 'client', client, count(*) FROM specification
WHERE settled_us IS NULL GROUP BY client;

INSERT INTO tally
SELECT 'component', component, count(*) FROM specification
WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued' GROUP BY component;

CREATE TRIGGER tally_open AFTER INSERT ON specification
WHEN new.settled_us IS NULL
BEGIN
  INSERT INTO tally VALUES ('client', new.client, 1)
  ON CONFLICT DO UPDATE SET specifications = specifications + 1;
END;

CREATE TRIGGER tally_ended AFTER UPDATE OF settled_us ON specification
WHEN old.settled_us IS NULL AND new.settled_us IS NOT NULL
BEGIN
  UPDATE tally SET specifications = specifications - 1
  WHERE kind = 'client' AND name = new.client;
END;

CREATE TRIGGER tally_queued AFTER INSERT ON specification
WHEN new.state = 'queued' OR new.interrupt = 'queued' OR new.progress = 'queued'
BEGIN
  INSERT INTO tally VALUES ('component', new.component, 1)
  ON CONFLICT DO UPDATE SET specifications = specifications + 1;
END;

-- Rows of nothing are removed now and then: what is queued again may have none.
CREATE TRIGGER tally_queued_again AFTER UPDATE OF state, interrupt, progress ON specification
WHEN NOT (old.state = 'queued' OR old.interrupt = 'queued' OR old.progress = 'queued')
  AND (new.state = 'queued' OR new.interrupt = 'queued' OR new.progress = 'queued')
BEGIN
  INSERT INTO tally VALUES ('component', new.component, 1)
  ON CONFLICT DO UPDATE SET specifications = specifications + 1;
END;

CREATE TRIGGER tally_fetched AFTER UPDATE OF state, interrupt, progress ON specification
WHEN (old.state = 'queued' OR old.interrupt = 'queued' OR old.progress = 'queued')
  AND NOT (new.state = 'queued' OR new.interrupt = 'queued' OR new.progress = 'queued')
BEGIN
  UPDATE tally SET specifications = specifications - 1
  WHERE kind = 'component' AND name = new.component;
END;

CREATE TRIGGER tally_forgotten AFTER DELETE ON specification
BEGIN
  UPDATE tally SET specifications = specifications - 1
  WHERE kind = 'client' AND name = old.client AND old.settled_us IS NULL;
  UPDATE tally SET specifications = specifications - 1
  WHERE kind = 'component' AND name = old.component
    AND (old.state = 'queued' OR old.interrupt = 'queued' OR old.progress = 'queued');
END;
