-- +goose Up
-- Masters that were given to this instance: how their files begin, which is all but the firmware, and how long the documents are that
-- they name, 0 for one that is not here. What they are is in doc.
CREATE TABLE kept_master (
  digest     TEXT PRIMARY KEY,
  product    TEXT NOT NULL,
  hardware   TEXT NOT NULL,
  created    INTEGER NOT NULL,
  doc        TEXT NOT NULL,
  head       BLOB NOT NULL,
  sbom       INTEGER NOT NULL,
  provenance INTEGER NOT NULL
);
CREATE INDEX kept_master_newest ON kept_master (product, created);

-- +goose Down
DROP TABLE kept_master;
