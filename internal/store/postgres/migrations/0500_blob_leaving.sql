-- +goose Up
-- When a blob was put last: what was put of late may be about to be named. Blobs that nothing names any more leave their place: until they have, the same bytes are not put.
ALTER TABLE blob_sums ADD COLUMN at BIGINT NOT NULL DEFAULT 0;
CREATE TABLE blob_leaving (digest BYTEA PRIMARY KEY);

-- +goose Down
DROP TABLE blob_leaving;
ALTER TABLE blob_sums DROP COLUMN at;
