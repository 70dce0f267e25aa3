-- +goose Up
-- The latest change of a device that was looked at for a rollout which devices join; -1: none join.
ALTER TABLE rollout ADD COLUMN stir INTEGER NOT NULL DEFAULT -1;

-- +goose Down
ALTER TABLE rollout DROP COLUMN stir;
