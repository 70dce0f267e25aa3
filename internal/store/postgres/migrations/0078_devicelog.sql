-- +goose Up
-- Where each device's own log is, as far as it was accepted.
CREATE TABLE device_log (
  device TEXT COLLATE "C" PRIMARY KEY REFERENCES device (id),
  seq    BIGINT NOT NULL,
  head   BYTEA NOT NULL,
  anchor BYTEA NOT NULL -- UID of the newest device.log.anchored fact
);

CREATE TABLE device_log_alarm (
  device TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  seq    BIGINT NOT NULL,
  PRIMARY KEY (device, seq)
);

-- +goose Down
DROP TABLE device_log_alarm; DROP TABLE device_log;
