-- +goose Up
-- What does not agree about an order is read page by page, each along an index of its own: devices that were never heard of, reworks, what was
-- refused, and the places of an order without the records in them.
CREATE INDEX device_unseen ON device (order_id, id) WHERE last_seen = 0;
CREATE INDEX production_record_places ON production_record (order_id, seq);
CREATE INDEX production_record_reworks ON production_record (order_id, seq) WHERE rework <> 0;
CREATE INDEX production_record_refused ON production_record (order_id, seq, hash) WHERE state = 'refused';

-- +goose Down
DROP INDEX production_record_refused;
DROP INDEX production_record_places;
DROP INDEX production_record_reworks;
DROP INDEX device_unseen;
