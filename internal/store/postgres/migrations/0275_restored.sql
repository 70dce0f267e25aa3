-- +goose Up
-- Since when the database is one that was brought back, and the device has not called: what it was left with since the backup is not known here.
ALTER TABLE device ADD COLUMN restored BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE device DROP COLUMN restored;
