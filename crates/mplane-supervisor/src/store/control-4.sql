-- People and their programs look specifications up by label.
CREATE INDEX specification_label ON specification (label) WHERE label IS NOT NULL;

-- Of each client so many refusals are kept.
CREATE INDEX refusal_by_client ON refusal (client, id);
