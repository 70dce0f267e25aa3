-- +goose Up
-- The content keys of protected programs, each sealed under the vault key.
CREATE TABLE content_key (
  id      BYTEA PRIMARY KEY,
  product TEXT COLLATE "C" NOT NULL,
  sealed  BYTEA NOT NULL,
  maker   TEXT COLLATE "C" NOT NULL,
  made    BIGINT NOT NULL
);

-- +goose Down
DROP TABLE content_key;
