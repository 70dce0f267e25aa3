-- +goose Up
-- Which devices changed, in the order in which they did: those who need to know look behind the last that they saw, and read no device that did not.
CREATE TABLE device_stir (
  seq    INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL,
  at     INTEGER NOT NULL
);

-- +goose Down
DROP TABLE device_stir;
