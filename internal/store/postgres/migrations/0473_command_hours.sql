-- +goose Up
-- When devices may be given a command, in their own time; empty: always.
ALTER TABLE command ADD COLUMN hours TEXT COLLATE "C" NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE command DROP COLUMN hours;
