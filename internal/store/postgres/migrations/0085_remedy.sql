-- +goose Up
CREATE TABLE remedy_case (
  cause_log TEXT COLLATE "C" NOT NULL,
  cause_idx BIGINT NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  product   TEXT COLLATE "C" NOT NULL,
  phase     TEXT COLLATE "C" NOT NULL,
  open      BIGINT NOT NULL, -- 0 when closed
  held      BIGINT NOT NULL, -- 1 while nothing was done without a person
  opened    BIGINT NOT NULL,
  rev       BIGINT NOT NULL,
  doc       TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (cause_log, cause_idx)
);
CREATE UNIQUE INDEX remedy_case_one ON remedy_case (device_id) WHERE open = 1;
CREATE INDEX remedy_case_hour ON remedy_case (product, opened);

-- +goose Down
DROP TABLE remedy_case;
