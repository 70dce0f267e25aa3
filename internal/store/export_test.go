package store

import (
	"context"
	"maps"
	"slices"
	"time"
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

// Trace has fn told of each statement from now on; while there are none.
func (db *DB) Trace(fn func(query string)) { db.trace = fn }

// Wakes reports whether a statement wakes quiet devices.
func Wakes(query string) bool { return waking.MatchString(query) }

// AgeEars makes what was heard of other nodes older.
func (db *DB) AgeEars(by time.Duration) { db.ears.looked.Add(-int64(by)) }

// MissingQueries are what a rollout asks for who did not show.
var MissingQueries = []string{missing + missingFirst, missing + missingHeard + missingFirst}
