-- +goose Up
-- The content keys of protected programs, each sealed under the vault key.
CREATE TABLE content_key (
  id      BLOB PRIMARY KEY,
  product TEXT NOT NULL,
  sealed  BLOB NOT NULL,
  maker   TEXT NOT NULL,
  made    INTEGER NOT NULL
);

-- +goose Down
DROP TABLE content_key;
