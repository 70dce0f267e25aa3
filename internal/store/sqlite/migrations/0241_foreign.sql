-- +goose Up
-- CAs of other makers whose factory identities are believed, each for one product.
CREATE TABLE foreign_ca (
  id      TEXT PRIMARY KEY, -- SHA-256 of its first certificate, hex
  product TEXT NOT NULL,
  at      INTEGER NOT NULL,
  ended   INTEGER NOT NULL DEFAULT 0,
  doc     TEXT NOT NULL
) WITHOUT ROWID;

-- Devices of other makers that are let in: what their key, their certificate or their name under a CA leads to.
CREATE TABLE foreign_device (
  device TEXT PRIMARY KEY,
  kind   TEXT NOT NULL, -- key, cert, name
  ref    TEXT NOT NULL,
  name   TEXT NOT NULL, -- as the maker calls it
  ca     TEXT NOT NULL, -- that vouches; empty: none, it is pinned
  format TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX foreign_device_ref ON foreign_device (kind, ref);
CREATE INDEX foreign_device_ca ON foreign_device (ca);

-- +goose Down
DROP TABLE foreign_device;
DROP TABLE foreign_ca;
