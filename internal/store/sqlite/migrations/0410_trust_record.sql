-- +goose Up
-- Copies of the trust records of devices that were handed to here from another home. A device believes its own copy by a mark of its board, and nobody else does.
CREATE TABLE trust_record (
  device TEXT PRIMARY KEY,
  record BLOB NOT NULL
);

-- +goose Down
DROP TABLE trust_record;
