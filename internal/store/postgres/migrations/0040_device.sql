-- +goose Up
CREATE TABLE device (
  id            TEXT COLLATE "C" PRIMARY KEY,
  product       TEXT COLLATE "C" NOT NULL,
  hardware      TEXT COLLATE "C" NOT NULL,
  state         TEXT COLLATE "C" NOT NULL,
  legitimacy    TEXT COLLATE "C" NOT NULL,
  order_id      TEXT COLLATE "C" NOT NULL,
  station       TEXT COLLATE "C" NOT NULL,
  made          BIGINT NOT NULL,
  identity      BYTEA, -- SHA-256 of the IDevID's SubjectPublicKeyInfo
  attest_key    BYTEA,
  instance_id   BYTEA,
  key_origin    TEXT COLLATE "C" NOT NULL,
  is_virtual    BIGINT NOT NULL,
  replaces      TEXT COLLATE "C",
  replaced_by   TEXT COLLATE "C",
  counter       BIGINT NOT NULL DEFAULT 0,
  acked_seq     BIGINT NOT NULL DEFAULT 0,
  last_seen     BIGINT NOT NULL DEFAULT 0,
  since         BIGINT NOT NULL,
  guard_until   BIGINT NOT NULL DEFAULT 0,
  release       BYTEA,
  bundle        BIGINT NOT NULL DEFAULT 0,
  doc           TEXT COLLATE "C" NOT NULL -- the twin
);
CREATE UNIQUE INDEX device_instance ON device (instance_id) WHERE instance_id IS NOT NULL;
CREATE INDEX device_page ON device (product, state, id);
CREATE INDEX device_state ON device (state, id);
CREATE INDEX device_behind ON device (product, bundle);
CREATE INDEX device_seen ON device (state, last_seen);
CREATE INDEX device_order ON device (order_id);

CREATE TABLE command (
  id       TEXT COLLATE "C" PRIMARY KEY,
  uid      BYTEA NOT NULL UNIQUE,
  digest   BYTEA NOT NULL UNIQUE,
  product  TEXT COLLATE "C" NOT NULL,
  act      TEXT COLLATE "C" NOT NULL,
  priority BIGINT NOT NULL,
  warrant  BYTEA,
  issued   BIGINT NOT NULL,
  expires  BIGINT NOT NULL,
  ended    BIGINT NOT NULL DEFAULT 0,
  doc      BYTEA NOT NULL -- the payload as it was signed
);

CREATE TABLE command_device (
  command_id TEXT COLLATE "C" NOT NULL REFERENCES command (id),
  device_id  TEXT COLLATE "C" NOT NULL REFERENCES device (id),
  state      TEXT COLLATE "C" NOT NULL,
  attempts   BIGINT NOT NULL DEFAULT 0,
  code       TEXT COLLATE "C" NOT NULL DEFAULT '',
  text       TEXT COLLATE "C" NOT NULL DEFAULT '',
  at         BIGINT NOT NULL,
  PRIMARY KEY (command_id, device_id)
);
CREATE INDEX command_device_open ON command_device (device_id) WHERE state IN ('pending', 'delivered');
CREATE INDEX command_device_all ON command_device (device_id, at);

CREATE TABLE warrant (
  uid BYTEA PRIMARY KEY,
  id  TEXT COLLATE "C" NOT NULL UNIQUE,
  doc TEXT COLLATE "C" NOT NULL
);
CREATE TABLE warrant_device (
  uid       BYTEA NOT NULL REFERENCES warrant (uid),
  device_id TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (uid, device_id)
);

CREATE TABLE bundle (
  product  TEXT COLLATE "C" NOT NULL,
  version  BIGINT NOT NULL,
  uid      BYTEA NOT NULL,
  envelope BYTEA NOT NULL,
  PRIMARY KEY (product, version)
);

-- +goose Down
DROP TABLE bundle;
DROP TABLE warrant_device;
DROP TABLE warrant;
DROP TABLE command_device;
DROP TABLE command;
DROP TABLE device;
