-- +goose Up
-- The entry that published the bundle, with its proof under a checkpoint that the bundle before it believes (wire.Logged); empty: not taken yet.
ALTER TABLE bundle ADD COLUMN seen BYTEA;
-- How far a bundle has come is counted from the index alone.
CREATE INDEX device_bundle ON device (product, bundle, state);

-- +goose Down
DROP INDEX device_bundle;
ALTER TABLE bundle DROP COLUMN seen;
