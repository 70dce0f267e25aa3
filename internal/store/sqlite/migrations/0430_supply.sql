-- +goose Up
-- What the bills of materials of releases say.
CREATE TABLE sbom (
  digest BLOB PRIMARY KEY, -- SHA-256 of the document
  doc    TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sbom_component (
  sbom      BLOB NOT NULL,
  n         INTEGER NOT NULL, -- from 1 on
  ecosystem TEXT NOT NULL, -- without a release; empty: advisories have no name for it
  name      TEXT NOT NULL,
  version   TEXT NOT NULL,
  doc       TEXT NOT NULL,
  PRIMARY KEY (sbom, n)
) WITHOUT ROWID;
CREATE INDEX sbom_component_package ON sbom_component (ecosystem, name, sbom);
CREATE TABLE release_sbom (
  release BLOB PRIMARY KEY,
  sbom    BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX release_sbom_document ON release_sbom (sbom, release);

-- Advisories, by import: what counts is the import that its ecosystem uses.
CREATE TABLE advisory_import (
  id        INTEGER PRIMARY KEY,
  ecosystem TEXT NOT NULL,
  begun     INTEGER NOT NULL, -- ms
  state     TEXT NOT NULL, -- filling, used, ended
  doc       TEXT NOT NULL
);
CREATE UNIQUE INDEX advisory_import_used ON advisory_import (ecosystem) WHERE state = 'used';
CREATE TABLE advisory (
  generation INTEGER NOT NULL,
  id         TEXT NOT NULL,
  doc        TEXT NOT NULL,
  PRIMARY KEY (generation, id)
) WITHOUT ROWID;
CREATE TABLE advisory_package (
  generation INTEGER NOT NULL,
  name       TEXT NOT NULL,
  advisory   TEXT NOT NULL,
  PRIMARY KEY (generation, name, advisory)
) WITHOUT ROWID;
CREATE TABLE advisory_name (
  generation INTEGER NOT NULL,
  name       TEXT NOT NULL, -- its ID, or an alias
  advisory   TEXT NOT NULL,
  PRIMARY KEY (generation, name, advisory)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE advisory_name;
DROP TABLE advisory_package;
DROP TABLE advisory;
DROP TABLE advisory_import;
DROP TABLE release_sbom;
DROP TABLE sbom_component;
DROP TABLE sbom;
