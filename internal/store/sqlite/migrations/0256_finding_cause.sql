-- +goose Up
-- The fact a finding was raised from: told again, it raises no other. Of those it raised before, the first has it.
ALTER TABLE finding ADD COLUMN cause_log TEXT;
ALTER TABLE finding ADD COLUMN cause_idx INTEGER;
UPDATE finding SET cause_log = json_extract(doc, '$.cause.log'), cause_idx = json_extract(doc, '$.cause.index')
  WHERE id IN (SELECT min(id) FROM finding WHERE json_extract(doc, '$.cause.log') IS NOT NULL
    GROUP BY kind, json_extract(doc, '$.cause.log'), json_extract(doc, '$.cause.index'));
CREATE UNIQUE INDEX finding_cause ON finding (cause_log, cause_idx, kind) WHERE cause_log IS NOT NULL;

-- +goose Down
DROP INDEX finding_cause;
ALTER TABLE finding DROP COLUMN cause_idx;
ALTER TABLE finding DROP COLUMN cause_log;
