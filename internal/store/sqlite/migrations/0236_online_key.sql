-- +goose Up
-- Keys of the running instance beyond those that init made: which are used, and since when. The private parts are in the key directory.
CREATE TABLE online_key (
  name    TEXT PRIMARY KEY, -- in the key directory
  role    TEXT NOT NULL,
  kid     TEXT NOT NULL,    -- key ID, hex
  spki    BLOB NOT NULL,    -- public key; of a bucket: its HPKE public key
  created INTEGER NOT NULL,    -- ms
  retired INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX online_key_role ON online_key (role, created);

-- +goose Down
DROP TABLE online_key;
