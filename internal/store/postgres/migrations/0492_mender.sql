-- +goose Up
-- What Mender's clients are told of artifacts, and say that they run: their names, as they stand in the artifacts' heads.
CREATE TABLE mender_artifact (
  digest BYTEA PRIMARY KEY,
  name   TEXT COLLATE "C" NOT NULL, -- empty: it is no such artifact
  types  TEXT COLLATE "C" NOT NULL  -- of devices that take it, JSON
);
CREATE INDEX mender_artifact_name ON mender_artifact (name) WHERE name <> '';

-- What clients wrote down of updates that failed.
CREATE TABLE legacy_log (
  device_id TEXT COLLATE "C" NOT NULL,
  number    BIGINT NOT NULL, -- of the action
  at        BIGINT NOT NULL,
  body      BYTEA NOT NULL, -- JSON
  PRIMARY KEY (device_id, number)
);
CREATE INDEX legacy_log_at ON legacy_log (at);

-- +goose Down
DROP TABLE legacy_log;
DROP TABLE mender_artifact;
