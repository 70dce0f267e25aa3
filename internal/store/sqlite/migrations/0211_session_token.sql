-- +goose Up
-- The token that a session was begun with: it ends with it.
ALTER TABLE credential ADD COLUMN token TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE credential DROP COLUMN token;
