-- +goose Up
-- Whom devices belong to. An owner's devices are the group owner/<id> of each product.
CREATE TABLE owner (
  id    TEXT PRIMARY KEY,
  ended INTEGER NOT NULL DEFAULT 0,
  rev   INTEGER NOT NULL,
  doc   TEXT NOT NULL
) WITHOUT ROWID;

-- Each time in which a device belonged to one owner; ended 0: it does now. waits 1: the owner has a key, and the device has not said that
-- it defends it.
CREATE TABLE ownership (
  device_id TEXT NOT NULL,
  period    INTEGER NOT NULL,
  owner     TEXT NOT NULL,
  began     INTEGER NOT NULL,
  ended     INTEGER NOT NULL DEFAULT 0,
  waits     INTEGER NOT NULL,
  rev       INTEGER NOT NULL,
  doc       TEXT NOT NULL,
  PRIMARY KEY (device_id, period)
) WITHOUT ROWID;
CREATE INDEX ownership_owner ON ownership (owner) WHERE ended = 0;
CREATE INDEX ownership_waits ON ownership (device_id) WHERE waits = 1;

-- Since when the device belongs to its owner; 0: it belongs to nobody. What was before is not the owner's to see.
ALTER TABLE device ADD COLUMN owned_since INTEGER NOT NULL DEFAULT 0;

-- SHA-256 of the code by which the next owner claims the device; transfer 1: made when it left the one before.
CREATE TABLE claim_code (
  device_id TEXT PRIMARY KEY,
  hash      BLOB NOT NULL,
  transfer  INTEGER NOT NULL,
  made      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE ownership_transfer (
  device_id TEXT NOT NULL,
  begun     INTEGER NOT NULL,
  open      INTEGER NOT NULL,
  uid       BLOB NOT NULL,
  rev       INTEGER NOT NULL,
  doc       TEXT NOT NULL,
  PRIMARY KEY (device_id, begun)
) WITHOUT ROWID;
CREATE INDEX ownership_transfer_open ON ownership_transfer (device_id) WHERE open = 1;

-- What is said of a device until it is lifted: recall '' says stolen.
CREATE TABLE device_mark (
  device_id TEXT NOT NULL,
  recall    TEXT NOT NULL,
  doc       TEXT NOT NULL,
  PRIMARY KEY (device_id, recall)
) WITHOUT ROWID;
CREATE INDEX device_mark_recall ON device_mark (recall);

CREATE TABLE recall (
  id      TEXT PRIMARY KEY,
  product TEXT NOT NULL,
  made    INTEGER NOT NULL,
  doc     TEXT NOT NULL
) WITHOUT ROWID;

-- Sealed data of epochs up to this one is not taken any more: its owner's time has ended. shut 1: none is, until the device has let go.
CREATE TABLE stream_ended (
  device TEXT PRIMARY KEY,
  epoch  INTEGER NOT NULL,
  shut   INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE stream_ended;
DROP TABLE recall;
DROP TABLE device_mark;
DROP TABLE ownership_transfer;
DROP TABLE claim_code;
ALTER TABLE device DROP COLUMN owned_since;
DROP TABLE ownership;
DROP TABLE owner;
