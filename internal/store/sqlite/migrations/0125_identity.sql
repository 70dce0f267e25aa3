-- +goose Up
-- Who a member is with an organisation's sign-in. The subject is '' until the first sign-in by email.
CREATE TABLE identity (
  member  TEXT NOT NULL REFERENCES member (id),
  issuer  TEXT NOT NULL,
  subject TEXT NOT NULL,
  email   TEXT NOT NULL,
  created INTEGER NOT NULL,
  used    INTEGER NOT NULL,
  PRIMARY KEY (member, issuer)
) WITHOUT ROWID;
CREATE UNIQUE INDEX identity_subject ON identity (issuer, subject) WHERE subject <> '';
CREATE UNIQUE INDEX identity_email ON identity (issuer, email) WHERE subject = '';

-- +goose Down
DROP TABLE identity;
