-- +goose Up
-- What a device's own log amounts to, and when it was last heard of.
ALTER TABLE device_log ADD COLUMN boots INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_log ADD COLUMN counter INTEGER NOT NULL DEFAULT 0; -- hardware counter; 0: none
ALTER TABLE device_log ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_log ADD COLUMN gaps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_log ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_log ADD COLUMN unexplained INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE device_log DROP COLUMN unexplained;
ALTER TABLE device_log DROP COLUMN lost;
ALTER TABLE device_log DROP COLUMN gaps;
ALTER TABLE device_log DROP COLUMN heard;
ALTER TABLE device_log DROP COLUMN counter;
ALTER TABLE device_log DROP COLUMN boots;
