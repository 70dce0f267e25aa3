-- +goose Up
-- Copies of the trust records of devices that were handed to here from another home. A device believes its own copy by a mark of its board, and nobody else does.
CREATE TABLE trust_record (
  device TEXT COLLATE "C" PRIMARY KEY,
  record BYTEA NOT NULL
);

-- +goose Down
DROP TABLE trust_record;
