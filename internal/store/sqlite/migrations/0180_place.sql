-- +goose Up
-- What was looked up in documents is a column: where a rollout is, as scopes name it, and whose product a warrant is for.
ALTER TABLE rollout ADD COLUMN place TEXT NOT NULL DEFAULT '';
UPDATE rollout SET place = product || coalesce('/' || nullif(json_extract(doc, '$.spec.selection.group'), ''), '');
ALTER TABLE warrant ADD COLUMN product TEXT NOT NULL DEFAULT '';
UPDATE warrant SET product = coalesce(json_extract(doc, '$.product'), '');
CREATE INDEX warrant_product ON warrant (product, id);

-- +goose Down
DROP INDEX warrant_product;
ALTER TABLE warrant DROP COLUMN product;
ALTER TABLE rollout DROP COLUMN place;
