-- +goose Up
-- How far each follower of the events log has come.
CREATE TABLE follower (
  name TEXT PRIMARY KEY,
  next INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE follower;
