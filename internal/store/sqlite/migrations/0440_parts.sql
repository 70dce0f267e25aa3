-- +goose Up
-- Who supplies what, in which lots it came, and which orders of the factory are made of them.
CREATE TABLE supplier (
  id  TEXT PRIMARY KEY,
  rev INTEGER NOT NULL,
  doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE part (
  id       TEXT PRIMARY KEY,
  supplier TEXT NOT NULL,
  rev      INTEGER NOT NULL,
  doc      TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX part_supplier ON part (supplier, id);
CREATE TABLE lot (
  id     TEXT PRIMARY KEY,
  part   TEXT NOT NULL,
  number TEXT NOT NULL,
  rev    INTEGER NOT NULL,
  doc    TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX lot_part ON lot (part, number);
CREATE TABLE order_lot (
  lot      TEXT NOT NULL,
  order_id TEXT NOT NULL,
  PRIMARY KEY (lot, order_id)
) WITHOUT ROWID;
CREATE INDEX order_lot_order ON order_lot (order_id, lot);

-- A lot's devices are walked by order and ID, and counted by state.
DROP INDEX device_order;
CREATE INDEX device_order ON device (order_id, id, state);

-- +goose Down
DROP INDEX device_order;
CREATE INDEX device_order ON device (order_id);
DROP TABLE order_lot;
DROP TABLE lot;
DROP TABLE part;
DROP TABLE supplier;
