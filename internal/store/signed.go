package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Signed implements ledger.SignedStore.
func (db *DB) Signed(ctx context.Context, log ledger.Log, size uint64) (p ledger.Published, err error) {
	var root []byte
	var note string
	err = db.Read().QueryRowContext(ctx, `SELECT size, root, note FROM checkpoint WHERE log = $1 AND size >= $2 ORDER BY size LIMIT 1`,
		string(log), int64(size)).Scan(&p.Size, &root, &note)
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("signed checkpoint of %d entries of the %s log: %w", size, log, ledger.ErrNotFound)
	}
	copy(p.Root[:], root)
	p.Note = []byte(note)
	return p, db.dialect.Explain(err)
}
