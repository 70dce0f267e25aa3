-- +goose Up
-- Desks, where orders are wrapped without a server.
CREATE TABLE desk (
  name      TEXT COLLATE "C" PRIMARY KEY,
  order_key BYTEA NOT NULL UNIQUE,
  quota     BIGINT NOT NULL,
  ordered   BIGINT NOT NULL DEFAULT 0, -- devices of orders that were registered: it never falls
  removed   BIGINT NOT NULL DEFAULT 0,
  doc       TEXT COLLATE "C" NOT NULL
);

-- +goose Down
DROP TABLE desk;
