-- +goose Up
-- How far each follower of the events log has come.
CREATE TABLE follower (
  name TEXT COLLATE "C" PRIMARY KEY,
  next BIGINT NOT NULL
);

-- +goose Down
DROP TABLE follower;
