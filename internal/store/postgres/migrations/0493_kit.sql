-- +goose Up
-- A digest of what rollouts judge the twin by, see store.TwinRow; NULL: none is known, and the twin is read. The next migration, in Go, gives it to all there are.
ALTER TABLE device ADD COLUMN kit BYTEA;
-- Whom a rollout is for is read along this alone.
DROP INDEX device_page;
CREATE INDEX device_page ON device (product, state, id, hardware, release, assurance, kit);
-- +goose Down
DROP INDEX device_page;
CREATE INDEX device_page ON device (product, state, id);
ALTER TABLE device DROP COLUMN kit;
