-- +goose Up
-- The attestation keys that devices had before they changed them for others of another suite.
CREATE TABLE former_attest (
  attest BLOB PRIMARY KEY, -- SHA-256 of the SPKI
  device TEXT NOT NULL,
  until  INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE former_attest;
