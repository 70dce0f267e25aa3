-- +goose Up
-- How long devices are silent is counted along this alone.
DROP INDEX device_seen;
CREATE INDEX device_seen ON device (state, last_seen, product);
-- Findings by kind, and those that are open, each in the order of the ID.
CREATE INDEX finding_kind ON finding (kind, id);
CREATE INDEX finding_open_id ON finding (id) WHERE closed = 0;
CREATE INDEX finding_open_kind ON finding (kind, id) WHERE closed = 0;
-- +goose Down
DROP INDEX finding_open_kind; DROP INDEX finding_open_id; DROP INDEX finding_kind;
DROP INDEX device_seen;
CREATE INDEX device_seen ON device (state, last_seen);
