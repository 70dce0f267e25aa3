package store

// behind is the condition that a row of a list, newest first and then by key, comes behind the one whose key is $2; empty: at the
// beginning. A key that is not there gives an empty page.
func behind(table, key string) string {
	at := `(SELECT created FROM ` + table + ` WHERE ` + key + ` = $2)`
	return ` AND (length($2) = 0 OR created < ` + at + ` OR created = ` + at + ` AND ` + key + ` > $2)`
}

// atMost is a LIMIT; 0 means none.
func atMost(limit int) int {
	if limit <= 0 {
		return -1
	}
	return limit
}
