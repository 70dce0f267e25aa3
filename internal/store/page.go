package store

import "math"

// behind is the condition that a row of a list, newest first and then by key, comes behind the one whose key is $2; empty: at the
// beginning. A key that is not there gives an empty page.
func behind(table, key string) string {
	at := `(SELECT created FROM ` + table + ` WHERE ` + key + ` = $2)`
	return ` AND (created < ` + at + ` OR created = ` + at + ` AND ` + key + ` > $2 OR length($2) = 0)` // the key first: it tells the type
}

// atMost is a LIMIT; 0 means none.
func atMost(limit int) int64 {
	if limit <= 0 {
		return math.MaxInt64
	}
	return int64(limit)
}
