-- +goose Up
CREATE TABLE device (
  id            TEXT PRIMARY KEY,
  product       TEXT NOT NULL,
  hardware      TEXT NOT NULL,
  state         TEXT NOT NULL,
  legitimacy    TEXT NOT NULL,
  order_id      TEXT NOT NULL,
  station       TEXT NOT NULL,
  made          INTEGER NOT NULL,
  identity      BLOB, -- SHA-256 of the IDevID's SubjectPublicKeyInfo
  attest_key    BLOB,
  instance_id   BLOB,
  key_origin    TEXT NOT NULL,
  is_virtual    INTEGER NOT NULL,
  replaces      TEXT,
  replaced_by   TEXT,
  counter       INTEGER NOT NULL DEFAULT 0,
  acked_seq     INTEGER NOT NULL DEFAULT 0,
  last_seen     INTEGER NOT NULL DEFAULT 0,
  since         INTEGER NOT NULL,
  guard_until   INTEGER NOT NULL DEFAULT 0,
  release       BLOB,
  bundle        INTEGER NOT NULL DEFAULT 0,
  doc           TEXT NOT NULL -- the twin
);
CREATE UNIQUE INDEX device_instance ON device (instance_id) WHERE instance_id IS NOT NULL;
CREATE INDEX device_page ON device (product, state, id);
CREATE INDEX device_state ON device (state, id);
CREATE INDEX device_behind ON device (product, bundle);
CREATE INDEX device_seen ON device (state, last_seen);
CREATE INDEX device_order ON device (order_id);

CREATE TABLE command (
  id       TEXT PRIMARY KEY,
  uid      BLOB NOT NULL UNIQUE,
  digest   BLOB NOT NULL UNIQUE,
  product  TEXT NOT NULL,
  act      TEXT NOT NULL,
  priority INTEGER NOT NULL,
  warrant  BLOB,
  issued   INTEGER NOT NULL,
  expires  INTEGER NOT NULL,
  ended    INTEGER NOT NULL DEFAULT 0,
  doc      BLOB NOT NULL -- the payload as it was signed
);

CREATE TABLE command_device (
  command_id TEXT NOT NULL REFERENCES command (id),
  device_id  TEXT NOT NULL REFERENCES device (id),
  state      TEXT NOT NULL,
  attempts   INTEGER NOT NULL DEFAULT 0,
  code       TEXT NOT NULL DEFAULT '',
  text       TEXT NOT NULL DEFAULT '',
  at         INTEGER NOT NULL,
  PRIMARY KEY (command_id, device_id)
) WITHOUT ROWID;
CREATE INDEX command_device_open ON command_device (device_id) WHERE state IN ('pending', 'delivered');
CREATE INDEX command_device_all ON command_device (device_id, at);

CREATE TABLE warrant (
  uid BLOB PRIMARY KEY,
  id  TEXT NOT NULL UNIQUE,
  doc TEXT NOT NULL
);
CREATE TABLE warrant_device (
  uid       BLOB NOT NULL REFERENCES warrant (uid),
  device_id TEXT NOT NULL,
  PRIMARY KEY (uid, device_id)
) WITHOUT ROWID;

CREATE TABLE bundle (
  product  TEXT NOT NULL,
  version  INTEGER NOT NULL,
  uid      BLOB NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY (product, version)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE bundle;
DROP TABLE warrant_device;
DROP TABLE warrant;
DROP TABLE command_device;
DROP TABLE command;
DROP TABLE device;
