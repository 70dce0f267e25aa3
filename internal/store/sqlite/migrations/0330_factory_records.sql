-- +goose Up
-- All that is asked when a record comes is in the index, so that it is taken rather than the walk along the order. "<> 0" because an engine that
-- sees "> 0" makes a range of it, and looks at every rework of the order.
DROP INDEX production_record_rework;
CREATE INDEX production_record_rework ON production_record (order_id, rework, seq, chip) WHERE rework <> 0;
-- What an order is counted by, without its envelopes.
CREATE INDEX production_record_tally ON production_record (order_id, state, seq, rework);

-- +goose Down
DROP INDEX production_record_tally;
DROP INDEX production_record_rework;
CREATE INDEX production_record_rework ON production_record (order_id, rework) WHERE rework > 0;
