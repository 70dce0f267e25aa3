-- +goose Up
-- What one person wants to do and may not do alone. The ID sorts by time.
CREATE TABLE proposal (
    id       TEXT COLLATE "C" PRIMARY KEY,
    product  TEXT COLLATE "C" NOT NULL,
    state    TEXT COLLATE "C" NOT NULL,
    proposer TEXT COLLATE "C" NOT NULL,
    expires  BIGINT NOT NULL,
    rev      BIGINT NOT NULL,
    doc      TEXT COLLATE "C" NOT NULL
);
CREATE INDEX proposal_product ON proposal (product, id);
CREATE INDEX proposal_open ON proposal (proposer, expires) WHERE state = 'open';

-- +goose Down
DROP INDEX proposal_open; DROP INDEX proposal_product;
DROP TABLE proposal;
