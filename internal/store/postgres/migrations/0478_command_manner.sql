-- +goose Up
-- What has to be before a client carries a command out, and for how long one that is told softly may put it off, seconds. Of our agents' it is in what is signed.
ALTER TABLE command ADD COLUMN manner TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE command ADD COLUMN grace BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE command DROP COLUMN grace;
ALTER TABLE command DROP COLUMN manner;
