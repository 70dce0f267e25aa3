package store

import (
	"context"
	"database/sql"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

// A node remembers what quiet devices were answered, and answers them without the database until something wakes them. What wakes is found here, in the
// one place that each statement passes: whatever writes a table that an answer without news was made from wakes every device, unless the
// statement says whom it concerns (Tx.Of). So a write that somebody adds without a thought of this costs some speed, and never an order.

// waking finds writes to the tables that the answer to a check-in, or a poll of another system's client, without news is made from; TestWhatAQuietAnswerIsMadeFrom holds it to them.
var waking = regexp.MustCompile(`(?i)\b(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?)\s+` +
	`(?:device|command|command_device|verdict|verdict_current|legacy_client|legacy_gateway|legacy_action)\b`)

// maxNamed bounds the devices that one commit names; more are everybody.
const maxNamed = 2048

// wakes are the devices that a transaction wakes.
type wakes struct {
	all   bool
	named []string
}

func (s *wakes) add(devices []string, everybody bool) {
	s.all = s.all || everybody || len(s.named)+len(devices) > maxNamed
	if s.all {
		s.named = nil
		return
	}
	s.named = append(s.named, devices...)
}

// Concerning is a view of a write whose statements concern some devices, and no others.
type Concerning struct {
	tx      *Tx
	devices []string
}

// Of says which devices' answers a statement may change: those, or nobody's. Without it, it is everybody's.
func (tx *Tx) Of(devices ...string) Concerning { return Concerning{tx, devices} }

// Exec is Tx.Exec.
func (c Concerning) Exec(query string, args ...any) (sql.Result, error) {
	defer c.tx.concern(c)()
	return c.tx.Exec(query, args...)
}

// QueryRow is Tx.QueryRow.
func (c Concerning) QueryRow(query string, args ...any) *sql.Row {
	defer c.tx.concern(c)()
	return c.tx.QueryRow(query, args...)
}

func (tx *Tx) concern(c Concerning) (end func()) {
	tx.concerns = &c
	return func() { tx.concerns = nil }
}

// looksAt notes what a statement wakes before it is run: that it fails, or is undone, wakes for nothing.
func (tx *Tx) looksAt(query string) {
	hit, known := tx.w.waking[query]
	if !known {
		hit = waking.MatchString(query)
		if len(tx.w.waking) < maxPrepared {
			tx.w.waking[query] = hit
		}
	}
	switch {
	case !hit:
	case tx.concerns == nil:
		tx.wakes.add(nil, true)
	default:
		tx.wakes.add(tx.concerns.devices, false)
	}
}

// tellNodes has the other nodes hear of it, in the same transaction. Where nobody else writes, nobody else has to.
func (tx *Tx) tellNodes() error {
	if tx.w.db.dialect.Lease() == "" || !tx.wakes.all && len(tx.wakes.named) == 0 {
		return nil
	}
	named := tx.wakes.named
	if tx.wakes.all {
		named = []string{""}
	}
	list, err := listOf(named)
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO quiet_wake (device, at) SELECT l.value, $2 FROM list($1) AS l`, list, Millis(time.Now()))
	return err
}

// ears are who is told of wakes.
type ears struct {
	mu     sync.Mutex
	fns    []func(devices []string) // guarded by mu
	looked atomic.Int64             // when other nodes' were read last, ns since start; 0: never
	last   int64                    // of quiet_wake; of FollowWakes alone
}

// OnWake has fn called with the devices that a write wakes, nil for all, once it is committed and before it is acknowledged. Of what other nodes
// write it is called by FollowWakes.
func (db *DB) OnWake(fn func(devices []string)) {
	db.ears.mu.Lock()
	defer db.ears.mu.Unlock()
	db.ears.fns = append(db.ears.fns, fn)
}

func (db *DB) wake(devices []string) {
	db.ears.mu.Lock()
	fns := db.ears.fns
	db.ears.mu.Unlock()
	for _, fn := range fns {
		fn(devices)
	}
}

// told tells of what a batch wakes.
func (db *DB) told(s wakes) {
	switch {
	case s.all:
		db.wake(nil)
	case len(s.named) > 0:
		db.wake(s.named)
	}
}

const (
	heardFor = 2 * time.Second // how long what was heard of other nodes is as good as now
	lostFrom = time.Minute     // who has not listened for so long begins anew
	keptFor  = time.Hour       // wakes, for those who listen
)

var began = time.Now()

// HearsAll reports whether what other nodes wrote until a moment ago was told here.
func (db *DB) HearsAll() bool {
	if db.dialect.Lease() == "" {
		return true
	}
	at := db.ears.looked.Load()
	return at != 0 && time.Since(began)-time.Duration(at) < heardFor
}

// FollowWakes tells of what other nodes have woken since it was called last. It is for one caller, again and again. Rows rise as they are committed, because
// who writes them writes alone.
func (db *DB) FollowWakes(ctx context.Context) error {
	if db.dialect.Lease() == "" {
		return nil
	}
	now := time.Since(began)
	if before := db.ears.looked.Load(); before == 0 || now-time.Duration(before) > lostFrom {
		if err := db.Read().QueryRowContext(ctx, `SELECT coalesce(max(n), 0) FROM quiet_wake`).Scan(&db.ears.last); err != nil {
			return err
		}
		db.wake(nil) // whatever came meanwhile
		db.ears.looked.Store(int64(now))
		return nil
	}
	type wake struct {
		n      int64
		device string
	}
	rows, err := collect(ctx, db, func(row scanner) (s wake, err error) { return s, row.Scan(&s.n, &s.device) },
		`SELECT n, device FROM quiet_wake WHERE n > $1 ORDER BY n`, db.ears.last)
	if err != nil {
		return err
	}
	var all wakes
	for _, s := range rows {
		all.add([]string{s.device}, s.device == "")
		db.ears.last = s.n
	}
	db.told(all)
	db.ears.looked.Store(int64(now))
	return nil
}

// PruneWakes removes what everybody has heard who still listens.
func (db *DB) PruneWakes(ctx context.Context) error {
	if db.dialect.Lease() == "" {
		return nil
	}
	return db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`DELETE FROM quiet_wake WHERE at < $1`, Millis(time.Now().Add(-keptFor)))
		return err
	})
}
