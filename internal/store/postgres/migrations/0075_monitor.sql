-- +goose Up
CREATE TABLE finding (
  id        TEXT COLLATE "C" PRIMARY KEY,
  dedupe    TEXT COLLATE "C" NOT NULL,
  kind      TEXT COLLATE "C" NOT NULL,
  severity  TEXT COLLATE "C" NOT NULL,
  product   TEXT COLLATE "C" NOT NULL,
  subject   TEXT COLLATE "C" NOT NULL,
  raised    BIGINT NOT NULL,
  closed    BIGINT NOT NULL DEFAULT 0,
  doc       TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX finding_open ON finding (dedupe) WHERE closed = 0;
CREATE INDEX finding_subject ON finding (subject, raised);

-- +goose Down
DROP TABLE finding;
