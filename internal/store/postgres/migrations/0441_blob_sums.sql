-- +goose Up
-- What the file of the sums of a blob's chunks must have as its digest: see blob.Books. It follows from the blob's bytes, and is made anew where it is lost.
CREATE TABLE blob_sums (
  digest BYTEA PRIMARY KEY,
  size   BIGINT NOT NULL, -- of the blob, bytes
  sums   BYTEA NOT NULL
);

-- +goose Down
DROP TABLE blob_sums;
