-- +goose Up
-- Vouchers for devices that lost their keys. The secret is nowhere: hash is wire.VoucherHash.
CREATE TABLE voucher (
  id       TEXT COLLATE "C" PRIMARY KEY,
  device   TEXT COLLATE "C" NOT NULL,
  product  TEXT COLLATE "C" NOT NULL,
  state    TEXT COLLATE "C" NOT NULL, -- open, used, revoked, locked
  issuer   TEXT COLLATE "C" NOT NULL,
  second   TEXT COLLATE "C" NOT NULL,
  issued   BIGINT NOT NULL,
  expires  BIGINT NOT NULL,
  ended    BIGINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0, -- that were wrong
  hash     BYTEA NOT NULL,
  chip     BYTEA NOT NULL, -- of the production record, as is record
  record   BYTEA NOT NULL,
  keys     BYTEA NOT NULL, -- what it was used with; 32 zeros: not used
  cert     TEXT COLLATE "C" NOT NULL DEFAULT '',
  identity TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX voucher_open ON voucher (device) WHERE state = 'open';
CREATE INDEX voucher_device ON voucher (device, id);
CREATE INDEX voucher_issued ON voucher (product, issued);
CREATE INDEX voucher_second ON voucher (second, issued);

-- The keys that devices had before they got others in the field.
CREATE TABLE former_key (
  device   TEXT COLLATE "C" NOT NULL,
  identity BYTEA NOT NULL, -- SHA-256 of the SPKI, as is attest
  attest   BYTEA NOT NULL,
  until    BIGINT NOT NULL,
  voucher  TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (device, identity)
);
CREATE INDEX former_key_identity ON former_key (identity);
CREATE INDEX former_key_attest ON former_key (attest);

-- When a device got the keys that it has, if that was not in a factory.
ALTER TABLE device ADD COLUMN rekeyed BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE device DROP COLUMN rekeyed;
DROP TABLE former_key;
DROP TABLE voucher;
