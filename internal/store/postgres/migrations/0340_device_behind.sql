-- +goose Up
-- device_bundle begins with the same columns.
DROP INDEX device_behind;

-- +goose Down
CREATE INDEX device_behind ON device (product, bundle);
