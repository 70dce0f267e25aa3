-- +goose Up
-- Silicon vendors whose manifests of chips with keys are believed.
CREATE TABLE chip_vendor (
  id    TEXT COLLATE "C" PRIMARY KEY,
  ended BIGINT NOT NULL DEFAULT 0,
  doc   TEXT COLLATE "C" NOT NULL
);

-- Chips that came with keys in them.
CREATE TABLE chip (
  uid    BYTEA PRIMARY KEY,
  vendor TEXT COLLATE "C" NOT NULL,
  entry  BYTEA NOT NULL, -- SHA-256 of what the vendor signed
  keys   BYTEA NOT NULL, -- SHA-256 of each public key, one after another
  doc    TEXT COLLATE "C" NOT NULL
);
CREATE INDEX chip_vendor_uid ON chip (vendor, uid);

-- +goose Down
DROP TABLE chip;
DROP TABLE chip_vendor;
