-- +goose Up
-- Which rollout and wave a command is of, as it was signed; empty and 0: of none. NULL in commands from before, which are looked into.
ALTER TABLE command ADD COLUMN rollout TEXT;
ALTER TABLE command ADD COLUMN wave INTEGER;
CREATE INDEX command_rollout ON command (rollout) WHERE rollout <> '';

-- +goose Down
DROP INDEX command_rollout;
ALTER TABLE command DROP COLUMN wave;
ALTER TABLE command DROP COLUMN rollout;
