-- +goose Up
CREATE TABLE ca (
  ski  TEXT PRIMARY KEY, -- subject key ID, hex
  role TEXT NOT NULL,
  der  BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE cert (
  id         INTEGER PRIMARY KEY,
  key        TEXT NOT NULL UNIQUE, -- issuer's key ID / serial, hex
  device     TEXT NOT NULL,
  role       TEXT NOT NULL,
  issuer     TEXT NOT NULL,
  serial     TEXT NOT NULL,
  request    BLOB NOT NULL, -- what it answers: asking twice is harmless
  not_before INTEGER NOT NULL,
  not_after  INTEGER NOT NULL,
  ended      INTEGER NOT NULL, -- when it was or will be void before its time; 0: not
  der        BLOB NOT NULL
);
CREATE INDEX cert_device ON cert (device, role, not_after);

-- Append-only; the earliest date of an ID stands.
CREATE TABLE revocation (
  seq   INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL,
  id    TEXT NOT NULL,
  doc   TEXT NOT NULL
);

CREATE TABLE enrol_refused (
  device TEXT PRIMARY KEY,
  issuer TEXT NOT NULL, -- subject key ID of the CA that vouched, hex
  count  INTEGER NOT NULL,
  last   INTEGER NOT NULL,
  doc    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX enrol_refused_issuer ON enrol_refused (issuer);

-- +goose Down
DROP TABLE enrol_refused;
DROP TABLE revocation;
DROP TABLE cert;
DROP TABLE ca;
