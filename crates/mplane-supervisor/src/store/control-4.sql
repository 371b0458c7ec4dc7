-- People and their programs look specifications up by label.
CREATE INDEX specification_label ON specification (label) WHERE label IS NOT NULL;

-- Of each client so many refusals are kept.
CREATE INDEX refusal_by_client ON refusal (client, id);

-- How many bytes are kept of what each client has asked for and of what each component has
-- yielded: counted as they change, so that nobody need add up all there is. Results of many
-- components are of none of them.
CREATE TABLE kept (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

INSERT INTO kept
SELECT 'client', client, sum(result_bytes) FROM specification
WHERE result_bytes > 0 GROUP BY client;

INSERT INTO kept
SELECT 'component', component, sum(result_bytes) FROM specification
WHERE result_bytes > 0 AND is_parent = 0 GROUP BY component;

CREATE TRIGGER kept_changed AFTER UPDATE OF result_bytes ON specification
WHEN old.result_bytes <> new.result_bytes
BEGIN
  INSERT INTO kept VALUES ('client', new.client, new.result_bytes - old.result_bytes)
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
  INSERT INTO kept
  SELECT 'component', new.component, new.result_bytes - old.result_bytes
  WHERE new.is_parent = 0
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER kept_forgotten AFTER DELETE ON specification WHEN old.result_bytes > 0
BEGIN
  UPDATE kept SET bytes = bytes - old.result_bytes
  WHERE kind = 'client' AND name = old.client;
  UPDATE kept SET bytes = bytes - old.result_bytes
  WHERE kind = 'component' AND name = old.component AND old.is_parent = 0;
END;
