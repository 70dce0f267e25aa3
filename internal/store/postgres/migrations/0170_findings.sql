-- +goose Up
-- How many findings of a device are open, kept with them: lists select by it, and show it.
ALTER TABLE device ADD COLUMN findings BIGINT NOT NULL DEFAULT 0;
UPDATE device SET findings = (SELECT count(*) FROM finding f WHERE f.subject = device.id AND f.closed = 0)
  WHERE id IN (SELECT subject FROM finding WHERE closed = 0);
CREATE INDEX device_findings ON device (id) WHERE findings > 0;
-- +goose Down
DROP INDEX device_findings;
ALTER TABLE device DROP COLUMN findings;
