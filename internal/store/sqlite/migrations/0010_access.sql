-- +goose Up
CREATE TABLE credential (
  hash    BLOB PRIMARY KEY, -- SHA-256 of the secret
  used_as TEXT NOT NULL,
  caller  TEXT NOT NULL,
  expires INTEGER NOT NULL,
  doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX credential_caller ON credential (caller);

CREATE TABLE audit (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  at       INTEGER NOT NULL,
  caller   TEXT NOT NULL,
  action   TEXT NOT NULL,
  resource TEXT NOT NULL,
  product  TEXT NOT NULL,
  allowed  INTEGER NOT NULL
);
CREATE INDEX audit_caller ON audit (caller, id);

-- +goose Down
DROP TABLE audit; DROP TABLE credential;
