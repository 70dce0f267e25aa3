-- +goose Up
-- How many bytes of a delta devices were given: counted in memory, and added now and then.
ALTER TABLE delta ADD COLUMN given INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE delta DROP COLUMN given;
