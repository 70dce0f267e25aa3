-- +goose Up
-- What was known against a release when it was looked at last.
CREATE TABLE release_assessed (
  release BYTEA PRIMARY KEY,
  stamp   TEXT COLLATE "C" NOT NULL, -- of the advisories that it was looked at with
  doc     TEXT COLLATE "C" NOT NULL
);

-- +goose Down
DROP TABLE release_assessed;
