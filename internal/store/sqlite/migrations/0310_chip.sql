-- +goose Up
-- Silicon vendors whose manifests of chips with keys are believed.
CREATE TABLE chip_vendor (
  id    TEXT PRIMARY KEY,
  ended INTEGER NOT NULL DEFAULT 0,
  doc   TEXT NOT NULL
) WITHOUT ROWID;

-- Chips that came with keys in them.
CREATE TABLE chip (
  uid    BLOB PRIMARY KEY,
  vendor TEXT NOT NULL,
  entry  BLOB NOT NULL, -- SHA-256 of what the vendor signed
  keys   BLOB NOT NULL, -- SHA-256 of each public key, one after another
  doc    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX chip_vendor_uid ON chip (vendor, uid);

-- +goose Down
DROP TABLE chip;
DROP TABLE chip_vendor;
