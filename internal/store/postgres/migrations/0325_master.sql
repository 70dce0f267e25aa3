-- +goose Up
-- The newest master of each product and hardware revision of which an order was made.
CREATE TABLE master (
  product  TEXT COLLATE "C" NOT NULL,
  hardware TEXT COLLATE "C" NOT NULL,
  revision BIGINT NOT NULL,
  digest   TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (product, hardware)
);

-- +goose Down
DROP TABLE master;
