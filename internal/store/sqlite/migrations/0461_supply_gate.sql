-- +goose Up
-- What the supply gate asks of a product's releases, and the signed documents that excuse known flaws in them.
CREATE TABLE supply_policy (
  product TEXT PRIMARY KEY,
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE supply_exception (
  product TEXT NOT NULL,
  digest  BLOB NOT NULL,
  doc     TEXT NOT NULL,
  PRIMARY KEY (product, digest)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE supply_exception;
DROP TABLE supply_policy;
