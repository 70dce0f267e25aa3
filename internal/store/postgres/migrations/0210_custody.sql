-- +goose Up
-- The warrants a device is named in: its chain of custody asks.
CREATE INDEX warrant_device_of ON warrant_device (device_id);

-- +goose Down
DROP INDEX warrant_device_of;
