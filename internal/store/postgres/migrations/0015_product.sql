-- +goose Up
CREATE TABLE product (
  id  TEXT COLLATE "C" PRIMARY KEY,
  doc TEXT COLLATE "C" NOT NULL
);

-- +goose Down
DROP TABLE product;
