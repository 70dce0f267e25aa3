-- +goose Up
-- The fact a finding was raised from: told again, it raises no other. Of those it raised before, the first has it.
ALTER TABLE finding ADD COLUMN cause_log TEXT COLLATE "C";
ALTER TABLE finding ADD COLUMN cause_idx BIGINT;
UPDATE finding SET cause_log = CAST(doc AS jsonb) #>> '{cause,log}', cause_idx = CAST(CAST(doc AS jsonb) #>> '{cause,index}' AS BIGINT)
  WHERE id IN (SELECT min(id) FROM finding WHERE CAST(doc AS jsonb) #>> '{cause,log}' IS NOT NULL
    GROUP BY kind, CAST(doc AS jsonb) #>> '{cause,log}', CAST(doc AS jsonb) #>> '{cause,index}');
CREATE UNIQUE INDEX finding_cause ON finding (cause_log, cause_idx, kind) WHERE cause_log IS NOT NULL;

-- +goose Down
DROP INDEX finding_cause;
ALTER TABLE finding DROP COLUMN cause_idx;
ALTER TABLE finding DROP COLUMN cause_log;
