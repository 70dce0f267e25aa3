package store

import (
	"github.com/hallmark-iot/hallmark/fleet"
)

// DevicesQuery, StatusesOf and FactsQuery are what a page asks the database, for tests of how it answers.
var (
	DevicesQuery = devicesQuery
	StatusesOf   = statusesOf
	FactsQuery   = factsQuery
)

// Rewritten is a query in the engine's own words.
func (db *DB) Rewritten(q string) string { return db.dialect.Rewrite(q) }

var _ fleet.Reader = (*DB)(nil)
