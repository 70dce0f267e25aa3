-- +goose Up
CREATE TABLE artifact (
  product TEXT COLLATE "C" NOT NULL,
  digest  BYTEA NOT NULL,
  size    BIGINT NOT NULL,
  doc     TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (product, digest)
);

CREATE TABLE release (
  digest    BYTEA PRIMARY KEY,
  id        TEXT COLLATE "C" NOT NULL,
  product   TEXT COLLATE "C" NOT NULL,
  version   TEXT COLLATE "C" NOT NULL,
  status    TEXT COLLATE "C" NOT NULL, -- proposed, published, withdrawn
  created   BIGINT NOT NULL,
  published BIGINT NOT NULL DEFAULT 0,
  uid       BYTEA NOT NULL, -- of the release.published fact; zeros before
  payload   BYTEA NOT NULL, -- what is signed
  envelope  BYTEA NOT NULL, -- with the approvals so far; empty before the first
  rev       BIGINT NOT NULL,
  doc       TEXT COLLATE "C" NOT NULL,
  UNIQUE (product, id),
  UNIQUE (product, version)
);
CREATE INDEX release_page ON release (product, created);

-- What the components of a release are, so that a device's wish for bytes is answered by one look.
CREATE TABLE release_component (
  product  TEXT COLLATE "C" NOT NULL,
  artifact BYTEA NOT NULL,
  release  BYTEA NOT NULL REFERENCES release (digest),
  PRIMARY KEY (product, artifact, release)
);

-- +goose Down
DROP TABLE release_component;
DROP TABLE release;
DROP TABLE artifact;
