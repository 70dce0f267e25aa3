-- +goose Up
-- Vouchers for devices that lost their keys. The secret is nowhere: hash is wire.VoucherHash.
CREATE TABLE voucher (
  id       TEXT PRIMARY KEY,
  device   TEXT NOT NULL,
  product  TEXT NOT NULL,
  state    TEXT NOT NULL, -- open, used, revoked, locked
  issuer   TEXT NOT NULL,
  second   TEXT NOT NULL,
  issued   INTEGER NOT NULL,
  expires  INTEGER NOT NULL,
  ended    INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0, -- that were wrong
  hash     BLOB NOT NULL,
  chip     BLOB NOT NULL, -- of the production record, as is record
  record   BLOB NOT NULL,
  keys     BLOB NOT NULL, -- what it was used with; 32 zeros: not used
  cert     TEXT NOT NULL DEFAULT '',
  identity TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE UNIQUE INDEX voucher_open ON voucher (device) WHERE state = 'open';
CREATE INDEX voucher_device ON voucher (device, id);
CREATE INDEX voucher_issued ON voucher (product, issued);
CREATE INDEX voucher_second ON voucher (second, issued);

-- The keys that devices had before they got others in the field.
CREATE TABLE former_key (
  device   TEXT NOT NULL,
  identity BLOB NOT NULL, -- SHA-256 of the SPKI, as is attest
  attest   BLOB NOT NULL,
  until    INTEGER NOT NULL,
  voucher  TEXT NOT NULL,
  PRIMARY KEY (device, identity)
) WITHOUT ROWID;
CREATE INDEX former_key_identity ON former_key (identity);
CREATE INDEX former_key_attest ON former_key (attest);

-- When a device got the keys that it has, if that was not in a factory.
ALTER TABLE device ADD COLUMN rekeyed INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE device DROP COLUMN rekeyed;
DROP TABLE former_key;
DROP TABLE voucher;
