-- +goose Up
-- Desks, where orders are wrapped without a server.
CREATE TABLE desk (
  name      TEXT PRIMARY KEY,
  order_key BLOB NOT NULL UNIQUE,
  quota     INTEGER NOT NULL,
  ordered   INTEGER NOT NULL DEFAULT 0, -- devices of orders that were registered: it never falls
  removed   INTEGER NOT NULL DEFAULT 0,
  doc       TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE desk;
