-- +goose Up
-- What was known against a release when it was looked at last.
CREATE TABLE release_assessed (
  release BLOB PRIMARY KEY,
  stamp   TEXT NOT NULL, -- of the advisories that it was looked at with
  doc     TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE release_assessed;
