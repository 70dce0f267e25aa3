-- +goose Up
-- Devices that came before their production record: each has a serial by a ticket of an order, so that there are no more of them than were ordered.
CREATE TABLE enrol_planned (
  device TEXT PRIMARY KEY,
  issuer TEXT NOT NULL, -- subject key ID of the order's CA, hex
  count  INTEGER NOT NULL,
  last   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX enrol_planned_issuer ON enrol_planned (issuer, device);

-- +goose Down
DROP TABLE enrol_planned;
