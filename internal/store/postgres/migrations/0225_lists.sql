-- +goose Up
-- When a revoked certificate ends by itself (0: never, or not known): after that it leaves the lists.
ALTER TABLE revocation ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;
UPDATE revocation SET expires = coalesce((SELECT c.not_after FROM cert c WHERE c.key = revocation.id), 0) WHERE scope = 'cert';
-- Entries of replaced certificates are dropped when they have ended: each renewal makes one.
ALTER TABLE revocation ADD COLUMN passing BIGINT NOT NULL DEFAULT 0;
CREATE INDEX revocation_passing ON revocation (expires) WHERE passing = 1;
CREATE INDEX revocation_of ON revocation (scope, id);
CREATE INDEX cert_issuer ON cert (issuer, not_after);

ALTER TABLE ca ADD COLUMN shards BIGINT NOT NULL DEFAULT 256; -- lists that its certificates are spread over
ALTER TABLE ca ADD COLUMN key_name TEXT COLLATE "C" NOT NULL DEFAULT '';   -- of its key, where this instance keeps keys; empty: it is not here
ALTER TABLE ca ADD COLUMN ended BIGINT NOT NULL DEFAULT 0;    -- when it was taken out of service; 0: it is in it
ALTER TABLE ca ADD COLUMN place BIGINT NOT NULL DEFAULT 1;    -- rises with each change, for those who follow
CREATE INDEX ca_place ON ca (place);

CREATE TABLE ca_request (
  key_id   TEXT COLLATE "C" PRIMARY KEY, -- of the new key, hex
  key_name TEXT COLLATE "C" NOT NULL,
  role     TEXT COLLATE "C" NOT NULL,
  product  TEXT COLLATE "C" NOT NULL,
  unit     TEXT COLLATE "C" NOT NULL,
  at       BIGINT NOT NULL,
  envelope BYTEA NOT NULL
);

-- The published lists of revoked certificates. number and through never fall.
CREATE TABLE crl (
  issuer  TEXT COLLATE "C" NOT NULL,    -- subject key ID, hex
  shard   BIGINT NOT NULL, -- -1: of CAs
  number  BIGINT NOT NULL,
  through BIGINT NOT NULL, -- newest revocation that it takes account of
  made    BIGINT NOT NULL,
  next    BIGINT NOT NULL,
  der     BYTEA NOT NULL,
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
