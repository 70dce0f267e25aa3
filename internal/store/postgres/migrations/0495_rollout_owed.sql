-- +goose Up
-- Who is to be looked at is found along one index: those of an earlier turn, and of this one those whose time has come.
DROP INDEX rollout_place_due;
DROP INDEX rollout_place_turn;
CREATE INDEX rollout_place_owed ON rollout_place (rollout_id, wave, turn, due);
-- +goose Down
DROP INDEX rollout_place_owed;
CREATE INDEX rollout_place_due ON rollout_place (rollout_id, wave, due);
CREATE INDEX rollout_place_turn ON rollout_place (rollout_id, wave, turn);
