-- +goose Up
CREATE TABLE remedy_case (
  cause_log TEXT NOT NULL,
  cause_idx INTEGER NOT NULL,
  device_id TEXT NOT NULL REFERENCES device (id),
  product   TEXT NOT NULL,
  phase     TEXT NOT NULL,
  open      INTEGER NOT NULL, -- 0 when closed
  held      INTEGER NOT NULL, -- 1 while nothing was done without a person
  opened    INTEGER NOT NULL,
  rev       INTEGER NOT NULL,
  doc       TEXT NOT NULL,
  PRIMARY KEY (cause_log, cause_idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX remedy_case_one ON remedy_case (device_id) WHERE open = 1;
CREATE INDEX remedy_case_hour ON remedy_case (product, opened);

-- +goose Down
DROP TABLE remedy_case;
