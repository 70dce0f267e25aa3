-- +goose Up
-- When an epoch was opened here: for how many a device opens in a day, and for whose time it is of. Of before: unknown.
ALTER TABLE stream_epoch ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;
CREATE INDEX stream_epoch_opened ON stream_epoch (device, opened);

-- +goose Down
DROP INDEX stream_epoch_opened;
ALTER TABLE stream_epoch DROP COLUMN opened;
