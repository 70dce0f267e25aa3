-- +goose Up
CREATE TABLE retirement (
  device_id   TEXT COLLATE "C" PRIMARY KEY REFERENCES device (id),
  phase       TEXT COLLATE "C" NOT NULL,
  open        BIGINT NOT NULL, -- 1 while the server has something left to do by itself
  warrant_uid BYTEA NOT NULL,
  order_uid   BYTEA NOT NULL,
  end_uid     BYTEA NOT NULL,
  rev         BIGINT NOT NULL,
  doc         TEXT COLLATE "C" NOT NULL
);
CREATE INDEX retirement_open ON retirement (device_id) WHERE open = 1;

CREATE INDEX command_warrant ON command (warrant) WHERE warrant IS NOT NULL;

-- +goose Down
DROP INDEX command_warrant;
DROP TABLE retirement;
