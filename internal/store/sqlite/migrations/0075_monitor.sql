-- +goose Up
CREATE TABLE finding (
  id        TEXT PRIMARY KEY,
  dedupe    TEXT NOT NULL,
  kind      TEXT NOT NULL,
  severity  TEXT NOT NULL,
  product   TEXT NOT NULL,
  subject   TEXT NOT NULL,
  raised    INTEGER NOT NULL,
  closed    INTEGER NOT NULL DEFAULT 0,
  doc       TEXT NOT NULL
);
CREATE UNIQUE INDEX finding_open ON finding (dedupe) WHERE closed = 0;
CREATE INDEX finding_subject ON finding (subject, raised);

-- +goose Down
DROP TABLE finding;
