-- +goose Up
CREATE TABLE production_order (
  id      TEXT COLLATE "C" PRIMARY KEY,
  product TEXT COLLATE "C" NOT NULL,
  state   TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  job_end BYTEA,
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX production_order_product ON production_order (product, created);

-- One row for each place in an order's chain of records. The envelope of an accepted one is in the ledger as well, as its fact.
CREATE TABLE production_record (
  order_id TEXT COLLATE "C" NOT NULL REFERENCES production_order (id),
  seq      BIGINT NOT NULL,
  hash     BYTEA NOT NULL,
  prev     BYTEA NOT NULL,
  ticket   BIGINT NOT NULL,
  device   TEXT COLLATE "C" NOT NULL,
  state    TEXT COLLATE "C" NOT NULL, -- made, scrapped, interrupted, refused
  chip     BYTEA,          -- of made ones only: these are what must never come twice
  identity BYTEA,
  attest   BYTEA,
  envelope BYTEA NOT NULL,
  PRIMARY KEY (order_id, seq)
);
CREATE UNIQUE INDEX production_record_chip     ON production_record (chip)     WHERE state = 'made';
CREATE UNIQUE INDEX production_record_identity ON production_record (identity) WHERE state = 'made';
CREATE UNIQUE INDEX production_record_attest   ON production_record (attest)   WHERE state = 'made';
CREATE UNIQUE INDEX production_record_device   ON production_record (device)   WHERE state = 'made';
CREATE UNIQUE INDEX production_record_ticket   ON production_record (order_id, ticket) WHERE state <> 'refused';

CREATE TABLE production_alarm (
  order_id TEXT COLLATE "C" NOT NULL REFERENCES production_order (id),
  seq      BIGINT NOT NULL,
  hash     BYTEA NOT NULL,
  reason   TEXT COLLATE "C" NOT NULL,
  envelope BYTEA NOT NULL,
  PRIMARY KEY (order_id, seq, hash)
);

-- +goose Down
DROP TABLE production_alarm; DROP TABLE production_record; DROP TABLE production_order;
