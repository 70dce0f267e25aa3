-- +goose Up
-- What lists select devices by, each in the row and with a walk of its own in the order of the ID.
ALTER TABLE device ADD COLUMN version TEXT COLLATE "C" NOT NULL DEFAULT ''; -- running; empty: never heard of
ALTER TABLE device ADD COLUMN verdict BIGINT NOT NULL DEFAULT 0; -- tier of the current verdict, as lists call it; 0: unknown
UPDATE device SET version = coalesce(CAST(doc AS jsonb) ->> 'version', ''),
  verdict = coalesce((SELECT CASE WHEN c.status >= 96 THEN 96 WHEN c.status IN (2, 32) THEN c.status ELSE 0 END FROM verdict_current c WHERE c.device_id = device.id), 0);
DROP INDEX device_version;
DROP INDEX device_release;
DROP INDEX verdict_current_status;
CREATE INDEX device_version ON device (version, id);
CREATE INDEX device_verdict ON device (verdict, id);
CREATE INDEX device_release ON device (release, id, state, product);
-- For counting: the whole fleet is counted in one pass along this.
CREATE INDEX device_count ON device (product, state, version, verdict);
-- How many devices are in each group and in those below it.
CREATE TABLE group_size (
  path    TEXT COLLATE "C" PRIMARY KEY,
  devices BIGINT NOT NULL
);
INSERT INTO group_size (path, devices) SELECT path, count(*) FROM device_group GROUP BY path;
-- +goose Down
DROP TABLE group_size;
DROP INDEX device_count; DROP INDEX device_release; DROP INDEX device_verdict; DROP INDEX device_version;
CREATE INDEX verdict_current_status ON verdict_current (status, device_id);
CREATE INDEX device_release ON device (release, state, id);
CREATE INDEX device_version ON device ((coalesce(CAST(doc AS jsonb) ->> 'version', '')), id);
ALTER TABLE device DROP COLUMN verdict;
ALTER TABLE device DROP COLUMN version;
