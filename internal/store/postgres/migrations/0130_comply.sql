-- +goose Up
-- What a person states of one control of one product; the ledger has the ones before.
CREATE TABLE compliance_statement (
  id      TEXT COLLATE "C" PRIMARY KEY, -- product/framework/control
  product TEXT COLLATE "C" NOT NULL REFERENCES product (id),
  rev     BIGINT NOT NULL,
  uid     BYTEA NOT NULL, -- of its fact
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX compliance_statement_product ON compliance_statement (product);

-- For what is counted.
CREATE INDEX device_identity ON device (identity, product) WHERE identity IS NOT NULL;
CREATE INDEX finding_product ON finding (product, raised);

-- +goose Down
DROP INDEX finding_product; DROP INDEX device_identity; DROP TABLE compliance_statement;
