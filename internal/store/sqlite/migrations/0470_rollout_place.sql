-- +goose Up
-- Devices of a rollout have a mark, which is kept until something changes, and how many have which is counted. A place is taken when its wave begins.
CREATE TABLE rollout_place (
  rollout_id TEXT NOT NULL REFERENCES rollout (id),
  device_id  TEXT NOT NULL REFERENCES device (id),
  wave       INTEGER NOT NULL,
  rank       INTEGER NOT NULL,
  tranche    INTEGER NOT NULL, -- of its wave, from 1; 0: not told yet
  previous   BLOB NOT NULL,    -- digest of what it ran when the wave began; empty: unknown
  open       INTEGER NOT NULL, -- 0: it is not this rollout's, or not any more
  holder     TEXT NOT NULL,    -- the rollout whose it is; empty: this one's
  command    TEXT NOT NULL,    -- that it was told to install by; empty: none
  back       TEXT NOT NULL,    -- that it was told to go back by; empty: none
  mark       TEXT NOT NULL,
  stirs      INTEGER NOT NULL, -- rises when the device does something
  turn       INTEGER NOT NULL, -- of the rollout, when the mark was made
  due        INTEGER NOT NULL, -- when it is to be looked at; 0: now
  PRIMARY KEY (rollout_id, device_id)
) WITHOUT ROWID;
-- A device is in one rollout at a time.
CREATE UNIQUE INDEX rollout_place_one ON rollout_place (device_id) WHERE open = 1;
CREATE INDEX rollout_place_mark ON rollout_place (rollout_id, wave, mark, device_id);
CREATE INDEX rollout_place_rank ON rollout_place (rollout_id, wave, rank) WHERE mark = 'queued';
CREATE INDEX rollout_place_due ON rollout_place (rollout_id, wave, due);
CREATE INDEX rollout_place_turn ON rollout_place (rollout_id, wave, turn);

CREATE TABLE rollout_tally (
  rollout_id TEXT NOT NULL REFERENCES rollout (id),
  wave       INTEGER NOT NULL,
  mark       TEXT NOT NULL,
  n          INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, wave, mark)
) WITHOUT ROWID;

-- When somebody last listened to the devices of rollouts.
CREATE TABLE rollout_ear (id INTEGER PRIMARY KEY, at INTEGER NOT NULL);

INSERT INTO rollout_place (rollout_id, device_id, wave, rank, tranche, previous, open, holder, command, back, mark, stirs, turn, due)
  SELECT x.rollout_id, x.device_id, x.wave, 0, 0, x.previous, x.open, '', coalesce(json_extract(r.doc, '$.waves[' || (x.wave - 1) || '].command'), ''),
    coalesce((SELECT c.id FROM command c JOIN command_device o ON o.command_id = c.id AND o.device_id = x.device_id
      WHERE c.rollout = x.rollout_id AND c.rollout <> '' AND c.act = 'rollback' ORDER BY CASE WHEN o.state = 'done' THEN 0 ELSE 1 END, c.issued DESC, c.id DESC LIMIT 1), ''),
    'queued', 0, -1, 0 -- looked at by the first tick
  FROM rollout_device x JOIN rollout r ON r.id = x.rollout_id;
UPDATE rollout_place SET tranche = 1, mark = 'waiting' WHERE command <> '';
INSERT INTO rollout_tally (rollout_id, wave, mark, n) SELECT rollout_id, wave, mark, count(*) FROM rollout_place GROUP BY rollout_id, wave, mark;
DROP TABLE rollout_device;

-- +goose Down
CREATE TABLE rollout_device (
  rollout_id TEXT NOT NULL REFERENCES rollout (id),
  wave       INTEGER NOT NULL,
  device_id  TEXT NOT NULL REFERENCES device (id),
  previous   BLOB NOT NULL, -- digest of what it ran at the start; empty: unknown
  open       INTEGER NOT NULL,
  PRIMARY KEY (rollout_id, wave, device_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX rollout_device_one ON rollout_device (device_id) WHERE open = 1;
INSERT INTO rollout_device (rollout_id, wave, device_id, previous, open) SELECT rollout_id, wave, device_id, previous, open FROM rollout_place WHERE holder = '';
DROP TABLE rollout_ear;
DROP TABLE rollout_tally;
DROP TABLE rollout_place;
