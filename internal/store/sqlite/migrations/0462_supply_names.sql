-- +goose Up
-- Names are compared without regard to case: package URLs write many in lower case that advisories do not. What was imported before has them otherwise, and says
-- nothing until it is imported anew.
UPDATE sbom_component SET name = lower(name);
UPDATE advisory_import SET state = 'ended' WHERE state = 'used';

-- +goose Down
SELECT 1;
