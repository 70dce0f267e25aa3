-- +goose Up
-- A device that did not show in time may be told again: how often it was taken once more, and when it was told last. Who is missing is found along an index of those alone.
ALTER TABLE rollout_place ADD COLUMN again BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollout_place ADD COLUMN told BIGINT NOT NULL DEFAULT 0;
CREATE INDEX rollout_place_missing ON rollout_place (rollout_id, mark, open, device_id) WHERE open = 0 AND mark = 'no-show';
-- +goose Down
DROP INDEX rollout_place_missing;
ALTER TABLE rollout_place DROP COLUMN told;
ALTER TABLE rollout_place DROP COLUMN again;
