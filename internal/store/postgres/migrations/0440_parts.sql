-- +goose Up
-- Who supplies what, in which lots it came, and which orders of the factory are made of them.
CREATE TABLE supplier (
  id  TEXT COLLATE "C" PRIMARY KEY,
  rev BIGINT NOT NULL,
  doc TEXT COLLATE "C" NOT NULL
);
CREATE TABLE part (
  id       TEXT COLLATE "C" PRIMARY KEY,
  supplier TEXT COLLATE "C" NOT NULL,
  rev      BIGINT NOT NULL,
  doc      TEXT COLLATE "C" NOT NULL
);
CREATE INDEX part_supplier ON part (supplier, id);
CREATE TABLE lot (
  id     TEXT COLLATE "C" PRIMARY KEY,
  part   TEXT COLLATE "C" NOT NULL,
  number TEXT COLLATE "C" NOT NULL,
  rev    BIGINT NOT NULL,
  doc    TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX lot_part ON lot (part, number);
CREATE TABLE order_lot (
  lot      TEXT COLLATE "C" NOT NULL,
  order_id TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (lot, order_id)
);
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
