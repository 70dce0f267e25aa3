-- +goose Up
CREATE TABLE verdict (
  uid       BYTEA PRIMARY KEY,
  device_id TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  at        BIGINT NOT NULL,
  status    BIGINT NOT NULL,
  doc       TEXT COLLATE "C" NOT NULL
);
CREATE INDEX verdict_device ON verdict (device_id, at);
CREATE TABLE verdict_current (
  device_id TEXT COLLATE "C" PRIMARY KEY REFERENCES device (id),
  uid       BYTEA NOT NULL REFERENCES verdict (uid),
  at        BIGINT NOT NULL,
  status    BIGINT NOT NULL
);

-- +goose Down
DROP TABLE verdict_current;
DROP TABLE verdict;
