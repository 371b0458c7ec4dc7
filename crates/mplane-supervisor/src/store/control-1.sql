-- Who offers what, and the life of each specification. Times are microseconds since 1970,
-- UTC. Identities, specifications and capabilities are JSON.
CREATE TABLE component (
  identity TEXT PRIMARY KEY,
  dialect TEXT NOT NULL,
  features TEXT NOT NULL,
  first_seen_us INTEGER NOT NULL,
  last_seen_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A capability is offered until `until_us`; earlier ones stay for a while, as history.
CREATE TABLE capability (
  id INTEGER PRIMARY KEY,
  component TEXT NOT NULL REFERENCES component (identity) ON DELETE CASCADE,
  token TEXT NOT NULL,
  json TEXT NOT NULL,
  since_us INTEGER NOT NULL,
  until_us INTEGER,
  gone TEXT
) STRICT;

CREATE UNIQUE INDEX capability_offered ON capability (component, token)
WHERE until_us IS NULL;

CREATE INDEX capability_gone ON capability (until_us) WHERE until_us IS NOT NULL;

CREATE TABLE specification (
  id INTEGER PRIMARY KEY,
  client TEXT NOT NULL,
  token TEXT NOT NULL,
  label TEXT,
  component TEXT NOT NULL,
  handed_token TEXT NOT NULL,
  capability_label TEXT,
  capability_token TEXT NOT NULL,
  -- As the client sent it and as the component gets it; gone with the result.
  asked TEXT,
  handed TEXT,
  accepted_us INTEGER NOT NULL,
  deadline_us INTEGER,
  state TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  interrupt TEXT NOT NULL,
  progress TEXT NOT NULL DEFAULT 'unasked',
  lease_us INTEGER,
  settled_us INTEGER,
  redeemed_us INTEGER,
  result_bytes INTEGER NOT NULL DEFAULT 0,
  -- One for many components, of which this is a part; and whether it is such a one.
  parent INTEGER REFERENCES specification (id) ON DELETE CASCADE,
  is_parent INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX specification_part ON specification (parent) WHERE parent IS NOT NULL;

CREATE UNIQUE INDEX specification_of_client ON specification (client, token);

CREATE UNIQUE INDEX specification_of_component ON specification (component, handed_token);

-- What a component is to fetch.
CREATE INDEX specification_queued ON specification (component, id)
WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued';

CREATE INDEX specification_leased ON specification (lease_us) WHERE lease_us IS NOT NULL;

CREATE INDEX specification_due ON specification (deadline_us) WHERE settled_us IS NULL;

CREATE INDEX specification_outstanding ON specification (component)
WHERE settled_us IS NULL;

CREATE INDEX specification_kept ON specification (settled_us) WHERE result_bytes > 0;

CREATE INDEX specification_settled ON specification (settled_us)
WHERE settled_us IS NOT NULL;

-- What happened to a specification, in order.
CREATE TABLE step (
  specification INTEGER NOT NULL REFERENCES specification (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  what TEXT NOT NULL,
  detail TEXT,
  PRIMARY KEY (specification, number)
) STRICT, WITHOUT ROWID;

-- Specifications that were not accepted, and why.
CREATE TABLE refusal (
  id INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  client TEXT NOT NULL,
  token TEXT NOT NULL,
  label TEXT,
  reason TEXT NOT NULL
) STRICT;

CREATE INDEX refusal_of_client ON refusal (token, client);
