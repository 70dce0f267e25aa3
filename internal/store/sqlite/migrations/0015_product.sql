-- +goose Up
CREATE TABLE product (
  id  TEXT PRIMARY KEY,
  doc TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE product;
