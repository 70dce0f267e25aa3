-- +goose Up
ALTER TABLE device ADD COLUMN group_path TEXT NOT NULL DEFAULT ''; -- within its product: eu/berlin; empty: in none

-- Each group with the devices in it and in those below, so that a list by group is a walk in the order of the ID. The path begins with
-- the product, as scopes do: pump/eu/berlin.
CREATE TABLE device_group (
  path      TEXT NOT NULL,
  device_id TEXT NOT NULL REFERENCES device (id),
  PRIMARY KEY (path, device_id)
) WITHOUT ROWID;

UPDATE member SET doc = json_set(json_remove(doc, '$.products'), '$.scope', json_extract(doc, '$.products')) WHERE json_extract(doc, '$.products') IS NOT NULL;

-- +goose Down
UPDATE member SET doc = json_set(json_remove(doc, '$.scope'), '$.products', json_extract(doc, '$.scope')) WHERE json_extract(doc, '$.scope') IS NOT NULL;
DROP TABLE device_group;
ALTER TABLE device DROP COLUMN group_path;
