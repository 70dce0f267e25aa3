-- +goose Up
-- Clients of other update systems: who asked to be let in, and who was.
CREATE TABLE legacy_client (
  kind    TEXT NOT NULL, -- ddi
  product TEXT NOT NULL,
  name    TEXT NOT NULL, -- as it calls itself
  state   TEXT NOT NULL, -- pending, admitted, refused
  device  TEXT NOT NULL DEFAULT '',
  token   BLOB,          -- SHA-256 of what it shows
  key     BLOB,          -- SHA-256 of the SubjectPublicKeyInfo that it proves to have
  asked   INTEGER NOT NULL,
  rev     INTEGER NOT NULL DEFAULT 1,
  doc     TEXT NOT NULL,
  PRIMARY KEY (kind, product, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX legacy_client_device ON legacy_client (device) WHERE device <> '';
CREATE UNIQUE INDEX legacy_client_token ON legacy_client (token) WHERE token IS NOT NULL;
CREATE INDEX legacy_client_pending ON legacy_client (asked) WHERE state = 'pending';

-- Gateways speak for the clients behind them.
CREATE TABLE legacy_gateway (
  product TEXT NOT NULL,
  name    TEXT NOT NULL,
  token   BLOB NOT NULL UNIQUE,
  at      INTEGER NOT NULL,
  by      TEXT NOT NULL,
  PRIMARY KEY (product, name)
) WITHOUT ROWID;

-- Commands as such clients know them: by a number that fits 31 bits.
CREATE TABLE legacy_action (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id  TEXT NOT NULL,
  command_id TEXT NOT NULL,
  offered    INTEGER NOT NULL,
  ended      INTEGER NOT NULL DEFAULT 0,
  rev        INTEGER NOT NULL DEFAULT 1,
  doc        TEXT NOT NULL,
  UNIQUE (device_id, command_id)
);
CREATE INDEX legacy_action_newest ON legacy_action (device_id, number);

-- What their protocols call an artifact's bytes by, beside its SHA-256.
CREATE TABLE artifact_weak (
  digest BLOB PRIMARY KEY,
  sha1   BLOB NOT NULL,
  md5    BLOB NOT NULL,
  suffix TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE artifact_weak;
DROP TABLE legacy_action;
DROP TABLE legacy_gateway;
DROP TABLE legacy_client;
