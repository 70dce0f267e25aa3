-- +goose Up
-- What the supply gate asks of a product's releases, and the signed documents that excuse known flaws in them.
CREATE TABLE supply_policy (
  product TEXT COLLATE "C" PRIMARY KEY,
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE TABLE supply_exception (
  product TEXT COLLATE "C" NOT NULL,
  digest  BYTEA NOT NULL,
  doc     TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (product, digest)
);

-- +goose Down
DROP TABLE supply_exception;
DROP TABLE supply_policy;
