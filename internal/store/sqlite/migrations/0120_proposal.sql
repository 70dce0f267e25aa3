-- +goose Up
-- What one person wants to do and may not do alone. The ID sorts by time.
CREATE TABLE proposal (
    id       TEXT PRIMARY KEY,
    product  TEXT NOT NULL,
    state    TEXT NOT NULL,
    proposer TEXT NOT NULL,
    expires  INTEGER NOT NULL,
    rev      INTEGER NOT NULL,
    doc      TEXT NOT NULL
);
CREATE INDEX proposal_product ON proposal (product, id);
CREATE INDEX proposal_open ON proposal (proposer, expires) WHERE state = 'open';

-- +goose Down
DROP INDEX proposal_open; DROP INDEX proposal_product;
DROP TABLE proposal;
