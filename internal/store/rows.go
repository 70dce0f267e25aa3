package store

import (
	"fmt"
	"strings"
)

// insertion has the statements that insert 32, 16, … 1 rows: few texts, to be prepared once, and few statements for any number.
type insertion [6]string

// rowsInserted makes the insertion into a table and its columns, "table (a, b)", of which there are so many.
func rowsInserted(into string, columns int) (all insertion) {
	for i := range all {
		var b strings.Builder
		b.WriteString("INSERT INTO " + into + " VALUES ")
		for k := range all.size(i) * columns {
			switch {
			case k == 0:
				b.WriteString("(")
			case k%columns == 0:
				b.WriteString("), (")
			default:
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "$%d", k+1)
		}
		all[i] = b.String() + ")"
	}
	return all
}

func (all *insertion) size(i int) int { return 1 << (len(all) - 1 - i) }

// next gives the statement of the most rows that are not more than n, which is 1 at least, and how many it inserts.
func (all *insertion) next(n int) (rows int, query string) {
	i := 0
	for all.size(i) > n {
		i++
	}
	return all.size(i), all[i]
}
