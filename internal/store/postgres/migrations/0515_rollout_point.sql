-- +goose Up
-- How a rollout stood over time: counts at the end of each step of its course, where they differ from those of the step before.
CREATE TABLE rollout_point (
	rollout_id TEXT COLLATE "C" NOT NULL,
	at BIGINT NOT NULL,
	doc TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (rollout_id, at)
);

-- +goose Down
DROP TABLE rollout_point;
