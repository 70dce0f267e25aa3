package store

import (
	"context"
	"database/sql"
	"hash/fnv"
	"sync"
)

// leases are what this node does for all of them. They are held by one connection, and end with it: when the node dies, or is cut off,
// another takes them over.
type leases struct {
	mu   sync.Mutex // guards what follows
	conn *sql.Conn
	held map[string]bool
}

// Leads says whether this node is the one that does the work called name, and takes it when nobody does. A node that is cut off
// learns of it at its next question, so a step that was begun may still overlap with another node's first: what is done under a lease
// must bear that.
func (db *DB) Leads(ctx context.Context, name string) (bool, error) {
	query := db.dialect.Lease()
	if query == "" {
		return true, nil
	}
	l := &db.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		if err := l.conn.PingContext(ctx); err != nil {
			l.lose()
		}
	}
	if l.conn == nil {
		conn, err := db.writes.Conn(ctx)
		if err != nil {
			return false, db.dialect.Explain(err)
		}
		l.conn, l.held = conn, map[string]bool{}
	}
	if l.held[name] {
		return true, nil
	}
	h := fnv.New64a()
	h.Write([]byte("hallmark lease " + name)) // never fails (package hash)
	var got bool
	if err := l.conn.QueryRowContext(ctx, query, int64(h.Sum64())).Scan(&got); err != nil {
		l.lose()
		return false, db.dialect.Explain(err)
	}
	l.held[name] = got
	return got, nil
}

// lose gives up the connection, and with it every lease.
func (l *leases) lose() {
	discard(l.conn)
	l.conn, l.held = nil, nil
}

func (l *leases) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.lose()
	}
}
