-- +goose Up
-- Requests that take a person: one of each device.
CREATE TABLE enrolment (
  device  TEXT PRIMARY KEY,
  product TEXT NOT NULL,
  request TEXT NOT NULL, -- digest of what is asked for, hex
  state   TEXT NOT NULL,
  until   INTEGER NOT NULL, -- when it lapses
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX enrolment_until ON enrolment (until);

-- +goose Down
DROP TABLE enrolment;
