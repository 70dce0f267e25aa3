-- +goose Up
-- Wrong secrets that were shown for a voucher: they do not end it. Tries with the right one and another chip are attempts, and do.
ALTER TABLE voucher ADD COLUMN guesses BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE voucher DROP COLUMN guesses;
