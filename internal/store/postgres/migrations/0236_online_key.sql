-- +goose Up
-- Keys of the running instance beyond those that init made: which are used, and since when. The private parts are in the key directory.
CREATE TABLE online_key (
  name    TEXT COLLATE "C" PRIMARY KEY, -- in the key directory
  role    TEXT COLLATE "C" NOT NULL,
  kid     TEXT COLLATE "C" NOT NULL,    -- key ID, hex
  spki    BYTEA NOT NULL,    -- public key; of a bucket: its HPKE public key
  created BIGINT NOT NULL,    -- ms
  retired BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX online_key_role ON online_key (role, created);

-- +goose Down
DROP TABLE online_key;
