-- +goose Up
-- Whose the keys of products' release roles are.
CREATE TABLE approver (
  product TEXT COLLATE "C" NOT NULL,
  kid     TEXT COLLATE "C" NOT NULL, -- hex
  member  TEXT COLLATE "C" NOT NULL,
  since   BIGINT NOT NULL, -- ms
  set_by  TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (product, kid)
);

-- +goose Down
DROP TABLE approver;
