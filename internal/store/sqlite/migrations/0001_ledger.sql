-- +goose Up
-- One row a fact. idx is NULL until the sequencer gives the fact its place in its log.
CREATE TABLE entry (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  log     TEXT NOT NULL,
  uid     BLOB NOT NULL UNIQUE,
  kind    TEXT NOT NULL,
  subject TEXT NOT NULL,
  at      INTEGER NOT NULL,
  data    BLOB NOT NULL,
  idx     INTEGER
);
CREATE UNIQUE INDEX entry_place ON entry (log, idx) WHERE idx IS NOT NULL;
CREATE INDEX entry_pending ON entry (log, id) WHERE idx IS NULL;
CREATE INDEX entry_subject ON entry (subject, id);

-- +goose StatementBegin
CREATE TRIGGER entry_keep BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER entry_fixed BEFORE UPDATE ON entry
WHEN OLD.idx IS NOT NULL OR NEW.idx IS NULL OR NEW.id <> OLD.id OR NEW.log <> OLD.log OR NEW.uid <> OLD.uid
  OR NEW.kind <> OLD.kind OR NEW.subject <> OLD.subject OR NEW.at <> OLD.at OR NEW.data <> OLD.data
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd

-- Hashes of the tree, 256 to a tile (c2sp.org/tlog-tiles); data grows until the tile is full.
CREATE TABLE tile (
  log   TEXT NOT NULL,
  level INTEGER NOT NULL,
  idx   INTEGER NOT NULL,
  data  BLOB NOT NULL,
  PRIMARY KEY (log, level, idx)
) WITHOUT ROWID;

CREATE TABLE tlog_state (
  log  TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  root BLOB NOT NULL
) WITHOUT ROWID;

-- Signed checkpoints; note is filled with cosignatures as they come.
CREATE TABLE checkpoint (
  log       TEXT NOT NULL,
  size      INTEGER NOT NULL,
  root      BLOB NOT NULL,
  note      TEXT NOT NULL,
  published INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (log, size)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE checkpoint; DROP TABLE tlog_state; DROP TABLE tile; DROP TABLE entry;
