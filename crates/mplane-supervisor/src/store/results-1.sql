-- What specifications have yielded, as their clients see it (JSON).
CREATE TABLE result (
  specification INTEGER PRIMARY KEY,
  stored_us INTEGER NOT NULL,
  message TEXT NOT NULL
) STRICT;
