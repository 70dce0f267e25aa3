-- +goose Up
CREATE TABLE rollout (
  id      TEXT COLLATE "C" PRIMARY KEY,
  product TEXT COLLATE "C" NOT NULL,
  phase   TEXT COLLATE "C" NOT NULL,
  open    BIGINT NOT NULL, -- 0 when the phase has ended
  created BIGINT NOT NULL,
  started BIGINT NOT NULL DEFAULT 0,
  rev     BIGINT NOT NULL,
  uid     BYTEA NOT NULL,
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX rollout_page ON rollout (product, created);
CREATE INDEX rollout_open ON rollout (id) WHERE open = 1;

CREATE TABLE rollout_device (
  rollout_id TEXT COLLATE "C" NOT NULL REFERENCES rollout (id),
  wave       BIGINT NOT NULL,
  device_id  TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  previous   BYTEA NOT NULL, -- digest of what it ran at the start; empty: unknown
  open       BIGINT NOT NULL,
  PRIMARY KEY (rollout_id, wave, device_id)
);
-- A device is in one rollout at a time.
CREATE UNIQUE INDEX rollout_device_one ON rollout_device (device_id) WHERE open = 1;

CREATE INDEX command_act ON command (product, act, issued);

-- +goose Down
DROP INDEX command_act;
DROP TABLE rollout_device;
DROP TABLE rollout;
