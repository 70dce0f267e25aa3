-- +goose Up
-- Requests that take a person: one of each device.
CREATE TABLE enrolment (
  device  TEXT COLLATE "C" PRIMARY KEY,
  product TEXT COLLATE "C" NOT NULL,
  request TEXT COLLATE "C" NOT NULL, -- digest of what is asked for, hex
  state   TEXT COLLATE "C" NOT NULL,
  until   BIGINT NOT NULL, -- when it lapses
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX enrolment_until ON enrolment (until);

-- +goose Down
DROP TABLE enrolment;
