-- +goose Up
CREATE TABLE retirement (
  device_id   TEXT PRIMARY KEY REFERENCES device (id),
  phase       TEXT NOT NULL,
  open        INTEGER NOT NULL, -- 1 while the server has something left to do by itself
  warrant_uid BLOB NOT NULL,
  order_uid   BLOB NOT NULL,
  end_uid     BLOB NOT NULL,
  rev         INTEGER NOT NULL,
  doc         TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX retirement_open ON retirement (device_id) WHERE open = 1;

CREATE INDEX command_warrant ON command (warrant) WHERE warrant IS NOT NULL;

-- +goose Down
DROP INDEX command_warrant;
DROP TABLE retirement;
