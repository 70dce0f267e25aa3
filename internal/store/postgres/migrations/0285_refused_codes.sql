-- +goose Up
-- For what a device was refused, codes with spaces between: each is put on record once, so that what came first hides nothing.
ALTER TABLE enrol_refused ADD COLUMN codes TEXT COLLATE "C" NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE enrol_refused DROP COLUMN codes;
