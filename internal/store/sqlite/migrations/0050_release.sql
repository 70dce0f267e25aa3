-- +goose Up
CREATE TABLE artifact (
  product TEXT NOT NULL,
  digest  BLOB NOT NULL,
  size    INTEGER NOT NULL,
  doc     TEXT NOT NULL,
  PRIMARY KEY (product, digest)
) WITHOUT ROWID;

CREATE TABLE release (
  digest    BLOB PRIMARY KEY,
  id        TEXT NOT NULL,
  product   TEXT NOT NULL,
  version   TEXT NOT NULL,
  status    TEXT NOT NULL, -- proposed, published, withdrawn
  created   INTEGER NOT NULL,
  published INTEGER NOT NULL DEFAULT 0,
  uid       BLOB NOT NULL, -- of the release.published fact; zeros before
  payload   BLOB NOT NULL, -- what is signed
  envelope  BLOB NOT NULL, -- with the approvals so far; empty before the first
  rev       INTEGER NOT NULL,
  doc       TEXT NOT NULL,
  UNIQUE (product, id),
  UNIQUE (product, version)
);
CREATE INDEX release_page ON release (product, created);

-- What the components of a release are, so that a device's wish for bytes is answered by one look.
CREATE TABLE release_component (
  product  TEXT NOT NULL,
  artifact BLOB NOT NULL,
  release  BLOB NOT NULL REFERENCES release (digest),
  PRIMARY KEY (product, artifact, release)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE release_component;
DROP TABLE release;
DROP TABLE artifact;
