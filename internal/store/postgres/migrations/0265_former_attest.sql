-- +goose Up
-- The attestation keys that devices had before they changed them for others of another suite.
CREATE TABLE former_attest (
  attest BYTEA PRIMARY KEY, -- SHA-256 of the SPKI
  device TEXT COLLATE "C" NOT NULL,
  until  BIGINT NOT NULL
);

-- +goose Down
DROP TABLE former_attest;
