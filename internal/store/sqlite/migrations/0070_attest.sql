-- +goose Up
CREATE TABLE verdict (
  uid       BLOB PRIMARY KEY,
  device_id TEXT NOT NULL REFERENCES device (id),
  at        INTEGER NOT NULL,
  status    INTEGER NOT NULL,
  doc       TEXT NOT NULL
);
CREATE INDEX verdict_device ON verdict (device_id, at);
CREATE TABLE verdict_current (
  device_id TEXT PRIMARY KEY REFERENCES device (id),
  uid       BLOB NOT NULL REFERENCES verdict (uid),
  at        INTEGER NOT NULL,
  status    INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE verdict_current;
DROP TABLE verdict;
