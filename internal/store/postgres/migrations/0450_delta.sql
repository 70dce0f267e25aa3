-- +goose Up
-- What is to be made, or was made, of one component for who has another: see release.Delta.
CREATE TABLE delta (
  product     TEXT COLLATE "C" NOT NULL,
  to_digest   BYTEA NOT NULL,
  from_digest BYTEA NOT NULL,
  state       TEXT COLLATE "C" NOT NULL, -- wanted, made, useless, failed
  digest      BYTEA NOT NULL, -- of the bytes; empty where there are none
  tries       BIGINT NOT NULL,
  at          BIGINT NOT NULL,
  doc         TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (product, to_digest, from_digest)
);
CREATE INDEX delta_wanted ON delta (tries, at) WHERE state = 'wanted';
CREATE INDEX delta_bytes ON delta (digest) WHERE state = 'made';
CREATE INDEX release_component_release ON release_component (release);

-- The published releases for which it was looked what deltas they want. Those that were here before want none.
CREATE TABLE delta_planned (release BYTEA PRIMARY KEY);
INSERT INTO delta_planned (release) SELECT digest FROM release WHERE published > 0;

-- +goose Down
DROP TABLE delta_planned;
DROP INDEX release_component_release;
DROP TABLE delta;
