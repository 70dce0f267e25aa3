-- +goose Up
-- Queries that members keep under names of their own.
CREATE TABLE saved_query (
    member TEXT COLLATE "C" NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    doc    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (member, name)
);

-- +goose Down
DROP TABLE saved_query;
