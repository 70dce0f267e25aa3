-- +goose Up
-- Where each device's own log is, as far as it was accepted.
CREATE TABLE device_log (
  device TEXT PRIMARY KEY REFERENCES device (id),
  seq    INTEGER NOT NULL,
  head   BLOB NOT NULL,
  anchor BLOB NOT NULL -- UID of the newest device.log.anchored fact
) WITHOUT ROWID;

CREATE TABLE device_log_alarm (
  device TEXT NOT NULL REFERENCES device (id),
  seq    INTEGER NOT NULL,
  PRIMARY KEY (device, seq)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE device_log_alarm; DROP TABLE device_log;
