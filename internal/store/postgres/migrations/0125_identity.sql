-- +goose Up
-- Who a member is with an organisation's sign-in. The subject is '' until the first sign-in by email.
CREATE TABLE identity (
  member  TEXT COLLATE "C" NOT NULL REFERENCES member (id),
  issuer  TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  email   TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  used    BIGINT NOT NULL,
  PRIMARY KEY (member, issuer)
);
CREATE UNIQUE INDEX identity_subject ON identity (issuer, subject) WHERE subject <> '';
CREATE UNIQUE INDEX identity_email ON identity (issuer, email) WHERE subject = '';

-- +goose Down
DROP TABLE identity;
