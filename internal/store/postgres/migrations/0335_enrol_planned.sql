-- +goose Up
-- Devices that came before their production record: each has a serial by a ticket of an order, so that there are no more of them than were ordered.
CREATE TABLE enrol_planned (
  device TEXT COLLATE "C" PRIMARY KEY,
  issuer TEXT COLLATE "C" NOT NULL, -- subject key ID of the order's CA, hex
  count  BIGINT NOT NULL,
  last   BIGINT NOT NULL
);
CREATE INDEX enrol_planned_issuer ON enrol_planned (issuer, device);

-- +goose Down
DROP TABLE enrol_planned;
