-- +goose Up
-- Masters that were given to this instance: how their files begin, which is all but the firmware, and how long the documents are that
-- they name, 0 for one that is not here. What they are is in doc.
CREATE TABLE kept_master (
  digest     TEXT COLLATE "C" PRIMARY KEY,
  product    TEXT COLLATE "C" NOT NULL,
  hardware   TEXT COLLATE "C" NOT NULL,
  created    BIGINT NOT NULL,
  doc        TEXT COLLATE "C" NOT NULL,
  head       BYTEA NOT NULL,
  sbom       BIGINT NOT NULL,
  provenance BIGINT NOT NULL
);
CREATE INDEX kept_master_newest ON kept_master (product, created);

-- +goose Down
DROP TABLE kept_master;
