-- +goose Up
CREATE TABLE ceremony (
  digest   TEXT PRIMARY KEY, -- SHA-256 of the signed transcript, hex
  uid      TEXT NOT NULL,    -- of its fact, hex
  name     TEXT NOT NULL,
  at       INTEGER NOT NULL,
  envelope BLOB NOT NULL
) WITHOUT ROWID;

-- What was asked of a ceremony for a product. It stays when the answer has come, for the same answer may come again.
CREATE TABLE ceremony_asking (
  product TEXT PRIMARY KEY,
  request BLOB NOT NULL,
  at      INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE ceremony_asking;
DROP TABLE ceremony;
