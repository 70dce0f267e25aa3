-- +goose Up
-- Queries that members keep under names of their own.
CREATE TABLE saved_query (
    member TEXT NOT NULL,
    name   TEXT NOT NULL,
    doc    TEXT NOT NULL,
    PRIMARY KEY (member, name)
);

-- +goose Down
DROP TABLE saved_query;
