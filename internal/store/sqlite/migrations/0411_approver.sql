-- +goose Up
-- Whose the keys of products' release roles are.
CREATE TABLE approver (
  product TEXT NOT NULL,
  kid     TEXT NOT NULL, -- hex
  member  TEXT NOT NULL,
  since   INTEGER NOT NULL, -- ms
  set_by  TEXT NOT NULL,
  PRIMARY KEY (product, kid)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE approver;
