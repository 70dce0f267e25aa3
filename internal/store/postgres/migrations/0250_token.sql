-- +goose Up
-- The rolling check-in token: SHA-256 (hex, half of it) of the one that the device is to have; empty: none yet, the first that comes counts.
ALTER TABLE device ADD COLUMN token TEXT COLLATE "C" NOT NULL DEFAULT '';
-- 1: it has enrolled anew with its factory identity since, and may begin with a new token if it says that it has lost the old one.
ALTER TABLE device ADD COLUMN token_anew BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE device DROP COLUMN token_anew;
ALTER TABLE device DROP COLUMN token;
