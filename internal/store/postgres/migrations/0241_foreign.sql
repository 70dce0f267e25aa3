-- +goose Up
-- CAs of other makers whose factory identities are believed, each for one product.
CREATE TABLE foreign_ca (
  id      TEXT COLLATE "C" PRIMARY KEY, -- SHA-256 of its first certificate, hex
  product TEXT COLLATE "C" NOT NULL,
  at      BIGINT NOT NULL,
  ended   BIGINT NOT NULL DEFAULT 0,
  doc     TEXT COLLATE "C" NOT NULL
);

-- Devices of other makers that are let in: what their key, their certificate or their name under a CA leads to.
CREATE TABLE foreign_device (
  device TEXT COLLATE "C" PRIMARY KEY,
  kind   TEXT COLLATE "C" NOT NULL, -- key, cert, name
  ref    TEXT COLLATE "C" NOT NULL,
  name   TEXT COLLATE "C" NOT NULL, -- as the maker calls it
  ca     TEXT COLLATE "C" NOT NULL, -- that vouches; empty: none, it is pinned
  format TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX foreign_device_ref ON foreign_device (kind, ref);
CREATE INDEX foreign_device_ca ON foreign_device (ca);

-- +goose Down
DROP TABLE foreign_device;
DROP TABLE foreign_ca;
