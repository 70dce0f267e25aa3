-- +goose Up
-- When a revoked certificate ends by itself (0: never, or not known): after that it leaves the lists.
ALTER TABLE revocation ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
UPDATE revocation SET expires = coalesce((SELECT c.not_after FROM cert c WHERE c.key = revocation.id), 0) WHERE scope = 'cert';
-- Entries of replaced certificates are dropped when they have ended: each renewal makes one.
ALTER TABLE revocation ADD COLUMN passing INTEGER NOT NULL DEFAULT 0;
CREATE INDEX revocation_passing ON revocation (expires) WHERE passing = 1;
CREATE INDEX revocation_of ON revocation (scope, id);
CREATE INDEX cert_issuer ON cert (issuer, not_after);

ALTER TABLE ca ADD COLUMN shards INTEGER NOT NULL DEFAULT 256; -- lists that its certificates are spread over
ALTER TABLE ca ADD COLUMN key_name TEXT NOT NULL DEFAULT '';   -- of its key, where this instance keeps keys; empty: it is not here
ALTER TABLE ca ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;    -- when it was taken out of service; 0: it is in it
ALTER TABLE ca ADD COLUMN place INTEGER NOT NULL DEFAULT 1;    -- rises with each change, for those who follow
CREATE INDEX ca_place ON ca (place);

CREATE TABLE ca_request (
  key_id   TEXT PRIMARY KEY, -- of the new key, hex
  key_name TEXT NOT NULL,
  role     TEXT NOT NULL,
  product  TEXT NOT NULL,
  unit     TEXT NOT NULL,
  at       INTEGER NOT NULL,
  envelope BLOB NOT NULL
) WITHOUT ROWID;

-- The published lists of revoked certificates. number and through never fall.
CREATE TABLE crl (
  issuer  TEXT NOT NULL,    -- subject key ID, hex
  shard   INTEGER NOT NULL, -- -1: of CAs
  number  INTEGER NOT NULL,
  through INTEGER NOT NULL, -- newest revocation that it takes account of
  made    INTEGER NOT NULL,
  next    INTEGER NOT NULL,
  der     BLOB NOT NULL,
  PRIMARY KEY (issuer, shard)
);

-- +goose Down
DROP TABLE crl;
DROP TABLE ca_request;
DROP INDEX ca_place;
ALTER TABLE ca DROP COLUMN place;
ALTER TABLE ca DROP COLUMN ended;
ALTER TABLE ca DROP COLUMN key_name;
ALTER TABLE ca DROP COLUMN shards;
DROP INDEX cert_issuer;
DROP INDEX revocation_of;
DROP INDEX revocation_passing;
ALTER TABLE revocation DROP COLUMN passing;
ALTER TABLE revocation DROP COLUMN expires;
