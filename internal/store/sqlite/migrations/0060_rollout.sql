-- +goose Up
CREATE TABLE rollout (
  id      TEXT PRIMARY KEY,
  product TEXT NOT NULL,
  phase   TEXT NOT NULL,
  open    INTEGER NOT NULL, -- 0 when the phase has ended
  created INTEGER NOT NULL,
  started INTEGER NOT NULL DEFAULT 0,
  rev     INTEGER NOT NULL,
  uid     BLOB NOT NULL,
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX rollout_page ON rollout (product, created);
CREATE INDEX rollout_open ON rollout (id) WHERE open = 1;

CREATE TABLE rollout_device (
  rollout_id TEXT NOT NULL REFERENCES rollout (id),
  wave       INTEGER NOT NULL,
  device_id  TEXT NOT NULL REFERENCES device (id),
  previous   BLOB NOT NULL, -- digest of what it ran at the start; empty: unknown
  open       INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, wave, device_id)
) WITHOUT ROWID;
-- A device is in one rollout at a time.
CREATE UNIQUE INDEX rollout_device_one ON rollout_device (device_id) WHERE open = 1;

CREATE INDEX command_act ON command (product, act, issued);

-- +goose Down
DROP INDEX command_act;
DROP TABLE rollout_device;
DROP TABLE rollout;
