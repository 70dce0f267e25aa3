-- +goose Up
-- What Mender's clients are told of artifacts, and say that they run: their names, as they stand in the artifacts' heads.
CREATE TABLE mender_artifact (
  digest BLOB PRIMARY KEY,
  name   TEXT NOT NULL, -- empty: it is no such artifact
  types  TEXT NOT NULL  -- of devices that take it, JSON
) WITHOUT ROWID;
CREATE INDEX mender_artifact_name ON mender_artifact (name) WHERE name <> '';

-- What clients wrote down of updates that failed.
CREATE TABLE legacy_log (
  device_id TEXT NOT NULL,
  number    INTEGER NOT NULL, -- of the action
  at        INTEGER NOT NULL,
  body      BLOB NOT NULL, -- JSON
  PRIMARY KEY (device_id, number)
) WITHOUT ROWID;
CREATE INDEX legacy_log_at ON legacy_log (at);

-- +goose Down
DROP TABLE legacy_log;
DROP TABLE mender_artifact;
