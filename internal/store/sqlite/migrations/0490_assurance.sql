-- +goose Up
-- What a device's word is worth: see device.Assurance.
ALTER TABLE device ADD COLUMN assurance TEXT NOT NULL DEFAULT 'enforces';
CREATE INDEX device_assurance ON device (assurance, id) WHERE assurance <> 'enforces';

-- +goose Down
DROP INDEX device_assurance;
ALTER TABLE device DROP COLUMN assurance;
