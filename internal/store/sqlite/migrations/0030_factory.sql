-- +goose Up
CREATE TABLE production_order (
  id      TEXT PRIMARY KEY,
  product TEXT NOT NULL,
  state   TEXT NOT NULL,
  created INTEGER NOT NULL,
  job_end BLOB,
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX production_order_product ON production_order (product, created);

-- One row for each place in an order's chain of records. The envelope of an accepted one is in the ledger as well, as its fact.
CREATE TABLE production_record (
  order_id TEXT NOT NULL REFERENCES production_order (id),
  seq      INTEGER NOT NULL,
  hash     BLOB NOT NULL,
  prev     BLOB NOT NULL,
  ticket   INTEGER NOT NULL,
  device   TEXT NOT NULL,
  state    TEXT NOT NULL, -- made, scrapped, interrupted, refused
  chip     BLOB,          -- of made ones only: these are what must never come twice
  identity BLOB,
  attest   BLOB,
  envelope BLOB NOT NULL,
  PRIMARY KEY (order_id, seq)
) WITHOUT ROWID;
CREATE UNIQUE INDEX production_record_chip     ON production_record (chip)     WHERE state = 'made';
CREATE UNIQUE INDEX production_record_identity ON production_record (identity) WHERE state = 'made';
CREATE UNIQUE INDEX production_record_attest   ON production_record (attest)   WHERE state = 'made';
CREATE UNIQUE INDEX production_record_device   ON production_record (device)   WHERE state = 'made';
CREATE UNIQUE INDEX production_record_ticket   ON production_record (order_id, ticket) WHERE state <> 'refused';

CREATE TABLE production_alarm (
  order_id TEXT NOT NULL REFERENCES production_order (id),
  seq      INTEGER NOT NULL,
  hash     BLOB NOT NULL,
  reason   TEXT NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (order_id, seq, hash)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE production_alarm; DROP TABLE production_record; DROP TABLE production_order;
