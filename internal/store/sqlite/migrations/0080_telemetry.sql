-- +goose Up
CREATE TABLE stream_epoch (
  device   TEXT NOT NULL,
  stream   TEXT NOT NULL,
  epoch    INTEGER NOT NULL,
  payload  BLOB NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (device, stream, epoch)
) WITHOUT ROWID;

CREATE TABLE stream_record (
  device TEXT NOT NULL,
  stream TEXT NOT NULL,
  epoch  INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  data   BLOB NOT NULL,
  PRIMARY KEY (device, stream, epoch, seq)
) WITHOUT ROWID;

-- The newest signed head of each epoch.
CREATE TABLE stream_series (
  device   TEXT NOT NULL,
  stream   TEXT NOT NULL,
  epoch    INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  closed   INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (device, stream, epoch)
) WITHOUT ROWID;

-- Devices whose keys were destroyed: nothing of theirs is stored again.
CREATE TABLE stream_destroyed (
  device TEXT PRIMARY KEY,
  at     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE stream_grant (
  id      TEXT PRIMARY KEY,
  reader  TEXT NOT NULL,
  product TEXT NOT NULL,
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX stream_grant_reader ON stream_grant (reader, product);

-- +goose Down
DROP TABLE stream_grant; DROP TABLE stream_destroyed; DROP TABLE stream_series; DROP TABLE stream_record; DROP TABLE stream_epoch;
