-- +goose Up
-- The record of the same piece that was not made before; 0: none.
ALTER TABLE production_record ADD COLUMN rework INTEGER NOT NULL DEFAULT 0;
CREATE INDEX production_record_rework ON production_record (order_id, rework) WHERE rework > 0;

-- What was said of first articles, as it was signed.
CREATE TABLE production_inspection (
  order_id TEXT NOT NULL REFERENCES production_order (id),
  seq      INTEGER NOT NULL,
  hash     BLOB NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (order_id, seq, hash)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE production_inspection;
DROP INDEX production_record_rework;
ALTER TABLE production_record DROP COLUMN rework;
