-- +goose Up
-- For people's lists: each of them is a walk along one of these.
CREATE INDEX device_product ON device (product, id);
CREATE INDEX device_release ON device (release, state, id);
CREATE INDEX device_version ON device ((coalesce(CAST(doc AS jsonb) ->> 'version', '')), id);
CREATE INDEX verdict_current_status ON verdict_current (status, device_id);
CREATE INDEX finding_open_severity ON finding (severity, raised) WHERE closed = 0;
CREATE INDEX finding_open_subject ON finding (subject) WHERE closed = 0;
CREATE INDEX cert_end ON cert (not_after) WHERE ended = 0;
CREATE INDEX stream_epoch_name ON stream_epoch (stream, device);
CREATE INDEX entry_kind ON entry (kind, id);

-- +goose Down
DROP INDEX entry_kind; DROP INDEX stream_epoch_name; DROP INDEX cert_end; DROP INDEX finding_open_subject; DROP INDEX finding_open_severity;
DROP INDEX verdict_current_status; DROP INDEX device_version; DROP INDEX device_release; DROP INDEX device_product;
