-- +goose Up
-- Requests that were marked by their caller. status is 0 until the answer is stored.
CREATE TABLE request_mark (
  caller     TEXT NOT NULL,
  key        TEXT NOT NULL,
  request    BLOB NOT NULL, -- SHA-256 of what was asked for
  at         INTEGER NOT NULL,
  status     INTEGER NOT NULL DEFAULT 0,
  type       TEXT NOT NULL DEFAULT '',
  tag        TEXT NOT NULL DEFAULT '',
  facts      TEXT NOT NULL DEFAULT '',
  fact_count TEXT NOT NULL DEFAULT '',
  body       BLOB,
  PRIMARY KEY (caller, key)
) WITHOUT ROWID;
CREATE INDEX request_mark_at ON request_mark (at);

-- +goose Down
DROP TABLE request_mark;
