-- +goose Up
-- What was looked up in documents is a column: where a rollout is, as scopes name it, and whose product a warrant is for.
ALTER TABLE rollout ADD COLUMN place TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE rollout SET place = product || coalesce('/' || nullif(CAST(doc AS jsonb) #>> '{spec,selection,group}', ''), '');
ALTER TABLE warrant ADD COLUMN product TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE warrant SET product = coalesce(CAST(doc AS jsonb) ->> 'product', '');
CREATE INDEX warrant_product ON warrant (product, id);

-- +goose Down
DROP INDEX warrant_product;
ALTER TABLE warrant DROP COLUMN product;
ALTER TABLE rollout DROP COLUMN place;
