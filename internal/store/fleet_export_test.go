package store

import (
	"context"

	"github.com/hallmark-iot/hallmark/fleet"
)

// FactsQuery, FindingsQuery and FindingPage are what pages ask the database, for tests of how it answers.
var (
	FactsQuery    = factsQuery
	FindingsQuery = findingsQuery
	FindingPage   = findingPage
)

// DevicesQueries are what a page asks the database, along each of its conditions.
func DevicesQueries(q fleet.Query) (queries []string, args [][]any, err error) {
	list, err := conditions(q.Filter, q.Scope)
	for i := range max(len(list), 1) {
		if i > 0 {
			list[0], list[i] = list[i], list[0]
		}
		text, with := pageOf(fleetColumns, fleetJoins, q, list)
		queries, args = append(queries, text), append(args, with)
	}
	return queries, args, err
}

// Rewritten is a query in the engine's own words.
func (db *DB) Rewritten(q string) string { return db.dialect.Rewrite(q) }

var _ fleet.Reader = (*DB)(nil)

// Vacuum counts a PostgreSQL's rows and marks its pages, as it does by itself in time.
func (db *DB) Vacuum(ctx context.Context) error {
	_, err := db.read.ExecContext(ctx, `VACUUM (ANALYZE)`)
	return err
}
