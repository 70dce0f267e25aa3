-- +goose Up
ALTER TABLE device ADD COLUMN group_path TEXT COLLATE "C" NOT NULL DEFAULT ''; -- within its product: eu/berlin; empty: in none

-- Each group with the devices in it and in those below, so that a list by group is a walk in the order of the ID. The path begins with
-- the product, as scopes do: pump/eu/berlin.
CREATE TABLE device_group (
  path      TEXT COLLATE "C" NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  PRIMARY KEY (path, device_id)
);

UPDATE member SET doc = CAST(jsonb_set(CAST(doc AS jsonb) - 'products', '{scope}', CAST(doc AS jsonb) -> 'products') AS TEXT) WHERE CAST(doc AS jsonb) -> 'products' IS NOT NULL;

-- +goose Down
UPDATE member SET doc = CAST(jsonb_set(CAST(doc AS jsonb) - 'scope', '{products}', CAST(doc AS jsonb) -> 'scope') AS TEXT) WHERE CAST(doc AS jsonb) -> 'scope' IS NOT NULL;
DROP TABLE device_group;
ALTER TABLE device DROP COLUMN group_path;
