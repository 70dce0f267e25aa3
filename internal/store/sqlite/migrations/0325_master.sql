-- +goose Up
-- The newest master of each product and hardware revision of which an order was made.
CREATE TABLE master (
  product  TEXT NOT NULL,
  hardware TEXT NOT NULL,
  revision INTEGER NOT NULL,
  digest   TEXT NOT NULL,
  PRIMARY KEY (product, hardware)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE master;
