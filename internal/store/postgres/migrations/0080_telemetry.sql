-- +goose Up
CREATE TABLE stream_epoch (
  device   TEXT COLLATE "C" NOT NULL,
  stream   TEXT COLLATE "C" NOT NULL,
  epoch    BIGINT NOT NULL,
  payload  BYTEA NOT NULL,
  envelope BYTEA NOT NULL,
  PRIMARY KEY (device, stream, epoch)
);

CREATE TABLE stream_record (
  device TEXT COLLATE "C" NOT NULL,
  stream TEXT COLLATE "C" NOT NULL,
  epoch  BIGINT NOT NULL,
  seq    BIGINT NOT NULL,
  data   BYTEA NOT NULL,
  PRIMARY KEY (device, stream, epoch, seq)
);

-- The newest signed head of each epoch.
CREATE TABLE stream_series (
  device   TEXT COLLATE "C" NOT NULL,
  stream   TEXT COLLATE "C" NOT NULL,
  epoch    BIGINT NOT NULL,
  last     BIGINT NOT NULL,
  closed   BIGINT NOT NULL,
  envelope BYTEA NOT NULL,
  PRIMARY KEY (device, stream, epoch)
);

-- Devices whose keys were destroyed: nothing of theirs is stored again.
CREATE TABLE stream_destroyed (
  device TEXT COLLATE "C" PRIMARY KEY,
  at     BIGINT NOT NULL
);

CREATE TABLE stream_grant (
  id      TEXT COLLATE "C" PRIMARY KEY,
  reader  TEXT COLLATE "C" NOT NULL,
  product TEXT COLLATE "C" NOT NULL,
  doc     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX stream_grant_reader ON stream_grant (reader, product);

-- +goose Down
DROP TABLE stream_grant; DROP TABLE stream_destroyed; DROP TABLE stream_series; DROP TABLE stream_record; DROP TABLE stream_epoch;
