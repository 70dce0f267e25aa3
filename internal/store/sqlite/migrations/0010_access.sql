-- +goose Up
CREATE TABLE member (
  id    TEXT PRIMARY KEY,
  kind  TEXT NOT NULL,
  ended INTEGER NOT NULL, -- 0: not
  rev   INTEGER NOT NULL,
  doc   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE credential (
  hash       BLOB PRIMARY KEY, -- SHA-256 of the secret
  used_as    TEXT NOT NULL,
  caller     TEXT NOT NULL REFERENCES member (id),
  begun_with TEXT NOT NULL,
  created    INTEGER NOT NULL,
  expires    INTEGER NOT NULL,
  verified   INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE passkey (
  id      BLOB PRIMARY KEY,
  member  TEXT NOT NULL REFERENCES member (id),
  label   TEXT NOT NULL,
  created INTEGER NOT NULL,
  used    INTEGER NOT NULL,
  data    BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX passkey_member ON passkey (member, created);
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
DROP TABLE audit; DROP TABLE passkey; DROP TABLE credential; DROP TABLE member;
