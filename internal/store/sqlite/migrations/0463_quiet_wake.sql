-- +goose Up
-- What the nodes of one database tell each other: whose answers they must not give from memory any more. Empty where there is one node.
CREATE TABLE quiet_wake (
  n      INTEGER PRIMARY KEY AUTOINCREMENT,
  device TEXT NOT NULL, -- empty: everybody's
  at     INTEGER NOT NULL
);
CREATE INDEX quiet_wake_at ON quiet_wake (at);

-- +goose Down
DROP TABLE quiet_wake;
