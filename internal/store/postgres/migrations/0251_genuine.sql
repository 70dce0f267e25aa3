-- +goose Up
-- What strangers want devices to prove; forgotten after a day.
CREATE TABLE genuine_question (
  id       TEXT COLLATE "C" PRIMARY KEY,
  device   TEXT COLLATE "C" NOT NULL,
  nonce    BYTEA NOT NULL,
  asked    BIGINT NOT NULL,
  expires  BIGINT NOT NULL,
  answered BIGINT NOT NULL DEFAULT 0,
  word     TEXT COLLATE "C" NOT NULL DEFAULT '',
  evidence BYTEA,
  key      BYTEA
);
CREATE INDEX genuine_question_device ON genuine_question (device);
CREATE INDEX genuine_question_asked ON genuine_question (asked);
CREATE INDEX genuine_question_open ON genuine_question (expires) WHERE answered = 0;

-- What dates the life of a device, apart from what it does every day.
CREATE INDEX entry_lasting ON entry (subject, id) WHERE kind IN ('device.provisioned', 'device.imported', 'device.state.changed', 'device.quarantined', 'device.released',
  'device.inconsistent', 'device.replaced', 'device.rekeyed', 'retire.wiped', 'retire.disposed');

-- +goose Down
DROP INDEX entry_lasting;
DROP TABLE genuine_question;
