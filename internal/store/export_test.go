package store

import (
	"context"
	"maps"
	"slices"
)

// Prepared are the statements that the writer has run until now, but for those about transactions.
func (db *DB) Prepared(ctx context.Context) (queries []string, err error) {
	err = db.Write(ctx, func(tx *Tx) error {
		queries = slices.Sorted(maps.Keys(tx.w.prepared))
		return nil
	})
	return queries, err
}

// TallyQueries are what an order is counted by.
var TallyQueries = []string{countRecords, firstSeen}

// BookQueries are what the lists of an order are read by.
var BookQueries = map[string]string{
	"place": samePlace, "ticket": sameTicket, "chip": sameChip, "identity": sameIdentity, "attest": sameAttest,
	"made": madeOf, "rework": reworksOf, "unseen": unseenOf, "places": recordPlaces, "behind": placesBehind, "alarms": alarmsOf, "refused": refusedOf,
}

// IssuedAtOnce tells fn how many certificates each write stores, from now on.
func (db *DB) IssuedAtOnce(fn func(n int)) {
	do := db.issues.do
	db.issues.do = func(tx *Tx, all []*issue) error {
		fn(len(all))
		return do(tx, all)
	}
}
