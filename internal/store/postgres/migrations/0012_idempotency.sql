-- +goose Up
-- Requests that were marked by their caller. status is 0 until the answer is stored.
CREATE TABLE request_mark (
  caller     TEXT COLLATE "C" NOT NULL,
  key        TEXT COLLATE "C" NOT NULL,
  request    BYTEA NOT NULL, -- SHA-256 of what was asked for
  at         BIGINT NOT NULL,
  status     BIGINT NOT NULL DEFAULT 0,
  type       TEXT COLLATE "C" NOT NULL DEFAULT '',
  tag        TEXT COLLATE "C" NOT NULL DEFAULT '',
  facts      TEXT COLLATE "C" NOT NULL DEFAULT '',
  fact_count TEXT COLLATE "C" NOT NULL DEFAULT '',
  body       BYTEA,
  PRIMARY KEY (caller, key)
);
CREATE INDEX request_mark_at ON request_mark (at);

-- +goose Down
DROP TABLE request_mark;
