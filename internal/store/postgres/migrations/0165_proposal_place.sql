-- +goose Up
-- Where what is proposed is: a product, or a group of one, as scopes name them; empty: the whole instance.
ALTER TABLE proposal ADD COLUMN place TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE proposal SET place = product || coalesce('/' || nullif(CAST(doc AS jsonb) #>> '{resource,group}', ''), '');
DROP INDEX proposal_product;
ALTER TABLE proposal DROP COLUMN product;

-- +goose Down
ALTER TABLE proposal ADD COLUMN product TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE proposal SET product = coalesce(CAST(doc AS jsonb) #>> '{resource,product}', '');
CREATE INDEX proposal_product ON proposal (product, id);
ALTER TABLE proposal ALTER COLUMN product DROP DEFAULT;
ALTER TABLE proposal DROP COLUMN place;
