-- +goose Up
-- What is said in private, beside the log: the entry commits to salt and ciphertext.
CREATE TABLE private (
  uid     BYTEA PRIMARY KEY, -- of the fact
  subject TEXT COLLATE "C" NOT NULL,
  salt    BYTEA NOT NULL,
  data    BYTEA NOT NULL
);
CREATE INDEX private_subject ON private (subject);

-- The key of each subject, sealed under the instance's vault key.
CREATE TABLE private_key (
  subject TEXT COLLATE "C" PRIMARY KEY,
  secret  BYTEA NOT NULL
);

-- Why a command was given, and its configuration (salt and bytes): the signed command has only the hash of the latter.
ALTER TABLE command ADD COLUMN reason TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE command ADD COLUMN config BYTEA;

-- +goose Down
ALTER TABLE command DROP COLUMN config;
ALTER TABLE command DROP COLUMN reason;
DROP TABLE private_key;
DROP TABLE private;
