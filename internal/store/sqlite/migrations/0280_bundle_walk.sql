-- +goose Up
-- A page of the devices with one version of their trust bundle is a walk in the order of their ID.
CREATE INDEX device_bundle_walk ON device (bundle, id);

-- +goose Down
DROP INDEX device_bundle_walk;
