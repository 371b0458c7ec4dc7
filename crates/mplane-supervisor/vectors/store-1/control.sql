BEGIN TRANSACTION;
CREATE TABLE capability (
  id INTEGER PRIMARY KEY,
  component TEXT NOT NULL REFERENCES component (identity) ON DELETE CASCADE,
  token TEXT NOT NULL,
  json TEXT NOT NULL,
  since_us INTEGER NOT NULL,
  until_us INTEGER,
  gone TEXT
) STRICT;
INSERT INTO "capability" VALUES(1,'{"names":["mplane","Components","probe-1"],"unit":"Components"}','4aacd7ba9d23b3e96afbf871d9d27145','{"capability":"measure","label":"tcp-connect-ip4","parameters":{"destination.ip4":"*","destination.port":"1 ... 65535","source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"token":"4aacd7ba9d23b3e96afbf871d9d27145","version":1,"when":"now ... future / 1s"}',1795991868565651,NULL,NULL);
INSERT INTO "capability" VALUES(2,'{"names":["mplane","Components","probe-2"],"unit":"Components"}','4aacd7ba9d23b3e96afbf871d9d27145','{"capability":"measure","label":"tcp-connect-ip4","parameters":{"destination.ip4":"*","destination.port":"1 ... 65535","source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"token":"4aacd7ba9d23b3e96afbf871d9d27145","version":1,"when":"now ... future / 1s"}',1795991868567293,NULL,NULL);
CREATE TABLE component (
  identity TEXT PRIMARY KEY,
  dialect TEXT NOT NULL,
  features TEXT NOT NULL,
  first_seen_us INTEGER NOT NULL,
  last_seen_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "component" VALUES('{"names":["mplane","Components","probe-1"],"unit":"Components"}','envelope','native-values registries multivalue prefix provenance fractional',1795991868565651,1795991868565651);
INSERT INTO "component" VALUES('{"names":["mplane","Components","probe-2"],"unit":"Components"}','envelope','native-values registries multivalue prefix provenance fractional',1795991868567293,1795991868567293);
CREATE TABLE refusal (
  id INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  client TEXT NOT NULL,
  token TEXT NOT NULL,
  label TEXT,
  reason TEXT NOT NULL
) STRICT;
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
INSERT INTO "specification" VALUES(1,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','8ca8e0ac7c5eab334e2a31d4eadb0124','tcp-connect-ip4@probe-1-0','{"names":["mplane","Components","probe-1"],"unit":"Components"}','a119f215f5b852aa4de99f48ae38e4dc','tcp-connect-ip4','4aacd7ba9d23b3e96afbf871d9d27145','{"label":"tcp-connect-ip4@probe-1-0","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"8ca8e0ac7c5eab334e2a31d4eadb0124","version":1,"when":"now + 1s / 1s"}','{"label":"tcp-connect-ip4-1","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"a119f215f5b852aa4de99f48ae38e4dc","version":1,"when":"now + 1s / 1s"}',1795991870543845,1795991931543845,'result',1,'sent','sent',NULL,1795991870566712,1795991870575451,619,NULL,0);
INSERT INTO "specification" VALUES(2,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','9b28941730bbad08f16883e4d8f6e0c4','tcp-connect-ip4@*-1','{"names":["*"],"unit":null}','557dddae5bfa942547a46bfa2f751a59','tcp-connect-ip4','7c8966c6e422d2fafe3350657c18c495','{"label":"tcp-connect-ip4@*-1","parameters":{"component.identity":"all","destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["component.identity","time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"9b28941730bbad08f16883e4d8f6e0c4","version":1,"when":"now + 1s / 1s"}','{"label":"tcp-connect-ip4@*-1","parameters":{"component.identity":"all","destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["component.identity","time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"9b28941730bbad08f16883e4d8f6e0c4","version":1,"when":"now + 1s / 1s"}',1795991871055830,NULL,'result',0,'sent','sent',NULL,1795991871075664,1795991871083952,595,NULL,1);
INSERT INTO "specification" VALUES(3,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','66498c8b12b6abeb6cb393ddefe6366f','tcp-connect-ip4-3','{"names":["mplane","Components","probe-1"],"unit":"Components"}','4c65b566b95951e34d88dcedfd6d86c7','tcp-connect-ip4','4aacd7ba9d23b3e96afbf871d9d27145','{"label":"tcp-connect-ip4-3","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"66498c8b12b6abeb6cb393ddefe6366f","version":1,"when":"now + 1s / 1s"}','{"label":"tcp-connect-ip4-3","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"4c65b566b95951e34d88dcedfd6d86c7","version":1,"when":"now + 1s / 1s"}',1795991871055830,1795991932055830,'result',1,'sent','sent',NULL,1795991871074056,NULL,611,2,0);
INSERT INTO "specification" VALUES(4,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','6d293f8503f755e9db34762f98924a81','tcp-connect-ip4-4','{"names":["mplane","Components","probe-2"],"unit":"Components"}','012d39797cc6272350246d7085a731f5','tcp-connect-ip4','4aacd7ba9d23b3e96afbf871d9d27145','{"label":"tcp-connect-ip4-4","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"6d293f8503f755e9db34762f98924a81","version":1,"when":"now + 1s / 1s"}','{"label":"tcp-connect-ip4-4","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"012d39797cc6272350246d7085a731f5","version":1,"when":"now + 1s / 1s"}',1795991871055830,1795991932055830,'result',1,'sent','sent',NULL,1795991871075664,NULL,611,2,0);
INSERT INTO "specification" VALUES(5,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','7fdcf005076a884fb8ddc0b9d9572c2c','tcp-connect-ip4@probe-2-2','{"names":["mplane","Components","probe-2"],"unit":"Components"}','675202d6392a58bfb74ebaf599a25ba7','tcp-connect-ip4','4aacd7ba9d23b3e96afbf871d9d27145','{"label":"tcp-connect-ip4@probe-2-2","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"7fdcf005076a884fb8ddc0b9d9572c2c","version":1,"when":"repeat now + 10m / 2s { now + 1s / 1s }"}','{"label":"tcp-connect-ip4-5","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"675202d6392a58bfb74ebaf599a25ba7","version":1,"when":"repeat now + 10m / 2s { now + 1s / 1s }"}',1795991871562980,1795992531562980,'promised',1,'unasked','unasked',NULL,NULL,NULL,0,NULL,0);
INSERT INTO "specification" VALUES(6,'{"names":["mplane","Clients","client-1"],"unit":"Clients"}','d556fe2fb2387752689cb8f0a8c1af23','tcp-connect-ip4@probe-1-0','{"names":["mplane","Components","probe-1"],"unit":"Components"}','a87f7ba2fe358f03bc853eed9904d428','tcp-connect-ip4','4aacd7ba9d23b3e96afbf871d9d27145','{"label":"tcp-connect-ip4@probe-1-0","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"d556fe2fb2387752689cb8f0a8c1af23","version":1,"when":"now + 10m / 1s"}','{"label":"tcp-connect-ip4-6","parameters":{"destination.ip4":"127.0.0.1","destination.port":47123,"source.ip4":"127.0.0.1"},"registry":"urn:mplane:registry:platform","results":["time","delay.twoway.tcp.connect.us","tcp.connect.outcome"],"specification":"measure","token":"a87f7ba2fe358f03bc853eed9904d428","version":1,"when":"now + 10m / 1s"}',1795991877628809,1795992537628809,'queued',0,'unasked','unasked',NULL,NULL,NULL,0,NULL,0);
CREATE TABLE step (
  specification INTEGER NOT NULL REFERENCES specification (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  what TEXT NOT NULL,
  detail TEXT,
  PRIMARY KEY (specification, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "step" VALUES(1,1,1795991870543845,'accepted',NULL);
INSERT INTO "step" VALUES(1,2,1795991870551372,'handed','hand-out 1');
INSERT INTO "step" VALUES(1,3,1795991870563940,'promised',NULL);
INSERT INTO "step" VALUES(1,4,1795991870566712,'delivered','1 rows');
INSERT INTO "step" VALUES(1,5,1795991870575451,'redeemed',NULL);
INSERT INTO "step" VALUES(2,1,1795991871055830,'accepted',NULL);
INSERT INTO "step" VALUES(2,2,1795991871055830,'handed','for 2 components');
INSERT INTO "step" VALUES(2,3,1795991871075664,'delivered','2 rows');
INSERT INTO "step" VALUES(2,4,1795991871083952,'redeemed',NULL);
INSERT INTO "step" VALUES(3,1,1795991871055830,'accepted',NULL);
INSERT INTO "step" VALUES(3,2,1795991871057817,'handed','hand-out 1');
INSERT INTO "step" VALUES(3,3,1795991871068521,'promised',NULL);
INSERT INTO "step" VALUES(3,4,1795991871074056,'delivered','1 rows');
INSERT INTO "step" VALUES(4,1,1795991871055830,'accepted',NULL);
INSERT INTO "step" VALUES(4,2,1795991871057943,'handed','hand-out 1');
INSERT INTO "step" VALUES(4,3,1795991871068586,'promised',NULL);
INSERT INTO "step" VALUES(4,4,1795991871075664,'delivered','1 rows');
INSERT INTO "step" VALUES(5,1,1795991871562980,'accepted',NULL);
INSERT INTO "step" VALUES(5,2,1795991871564353,'handed','hand-out 1');
INSERT INTO "step" VALUES(5,3,1795991871569513,'promised',NULL);
INSERT INTO "step" VALUES(6,1,1795991877628809,'accepted',NULL);
CREATE UNIQUE INDEX capability_offered ON capability (component, token)
WHERE until_us IS NULL;
CREATE INDEX capability_gone ON capability (until_us) WHERE until_us IS NOT NULL;
CREATE INDEX specification_part ON specification (parent) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX specification_of_client ON specification (client, token);
CREATE UNIQUE INDEX specification_of_component ON specification (component, handed_token);
CREATE INDEX specification_queued ON specification (component, id)
WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued';
CREATE INDEX specification_leased ON specification (lease_us) WHERE lease_us IS NOT NULL;
CREATE INDEX specification_due ON specification (deadline_us) WHERE settled_us IS NULL;
CREATE INDEX specification_outstanding ON specification (component)
WHERE settled_us IS NULL;
CREATE INDEX specification_kept ON specification (settled_us) WHERE result_bytes > 0;
CREATE INDEX specification_settled ON specification (settled_us)
WHERE settled_us IS NOT NULL;
CREATE INDEX refusal_of_client ON refusal (token, client);
COMMIT;
PRAGMA user_version = 1;
