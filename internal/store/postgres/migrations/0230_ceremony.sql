-- +goose Up
CREATE TABLE ceremony (
  digest   TEXT COLLATE "C" PRIMARY KEY, -- SHA-256 of the signed transcript, hex
  uid      TEXT COLLATE "C" NOT NULL,    -- of its fact, hex
  name     TEXT COLLATE "C" NOT NULL,
  at       BIGINT NOT NULL,
  envelope BYTEA NOT NULL
);

-- What was asked of a ceremony for a product. It stays when the answer has come, for the same answer may come again.
CREATE TABLE ceremony_asking (
  product TEXT COLLATE "C" PRIMARY KEY,
  request BYTEA NOT NULL,
  at      BIGINT NOT NULL
);

-- +goose Down
DROP TABLE ceremony_asking;
DROP TABLE ceremony;
