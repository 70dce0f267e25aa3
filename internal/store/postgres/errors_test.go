package postgres_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

func fact(subject string) ledger.Fact {
	return ledger.New(ledger.KindDeviceHealthy, time.Now(), "test", subject, nil, []byte("{}"))
}

func appendFact(t *testing.T, db *store.DB, subject string) error {
	return db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact(subject)) })
}

func facts(t *testing.T, db *store.DB, subject string) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE subject = $1`, subject).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// refused opens, and wants an error that names what, says what to do, and gives no secret away.
func refused(t *testing.T, name, url string, wants ...string) {
	t.Helper()
	db, err := postgres.Open(t.Context(), url)
	if err == nil {
		_ = db.Close()
		t.Errorf("%s: opened", name)
		return
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%s: the password is told: %v", name, err)
	}
}

func TestErrorsNameTheDatabaseAndTheRemedy(t *testing.T) {
	c := storetest.NewCluster(t)
	super := func(database string, statements ...string) {
		t.Helper()
		if err := c.Super(database, statements...); err != nil {
			t.Fatal(err)
		}
	}
	plain := c.Create(t, false)
	super("postgres", "CREATE ROLE lonely LOGIN CONNECTION LIMIT 0",
		"CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0 OWNER hallmark")
	as := func(who string) string { return strings.Replace(c.URL(plain), "hallmark", who, 1) }

	refused(t, "nobody listens", "postgres://hallmark:s3cret@127.0.0.1:1/x", "127.0.0.1:1", "cannot be reached")
	refused(t, "no such socket", "postgres://hallmark:s3cret@/x?host="+t.TempDir(), "cannot be reached")
	refused(t, "nonsense", "postgres://hallmark:s3cret@127.0.0.1:port/x", "database")
	refused(t, "no such database", c.URL("nowhere"), "nowhere at "+c.Dir, "CREATE DATABASE")
	refused(t, "no such user", as("nobody"), plain, "PGPASSWORD")
	refused(t, "a wrong password", as("stranger:s3cret"), plain, "PGPASSWORD")
	refused(t, "not the owner", as("stranger:right"), "own the database")
	refused(t, "no connection left", as("lonely"), "max_connections")
	refused(t, "another encoding", c.URL("ascii"), "SQL_ASCII", "ENCODING 'UTF8'")
	for _, setting := range []string{"fsync", "full_page_writes"} {
		super("postgres", "ALTER SYSTEM SET "+setting+" = off", "SELECT pg_reload_conf()")
		for { // the reload is the server's own affair
			db, err := postgres.Open(t.Context(), c.URL(plain))
			if err != nil {
				break
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		refused(t, setting, c.URL(plain), setting+" is off", setting+" = on")
		super("postgres", "ALTER SYSTEM RESET "+setting, "SELECT pg_reload_conf()")
	}
	if err := c.Standby(); err != nil {
		t.Fatal(err)
	}
	refused(t, "a standby", c.URL(plain), "standby", "primary")
}

// What the server's administrator set for speed does not cost what was acknowledged; what was set for more than that stays.
func TestACommitWaitsForTheDisk(t *testing.T) {
	c := storetest.Shared(t)
	name := c.Create(t, true)
	for set, want := range map[string]string{"off": "on", "local": "on", "on": "on", "remote_apply": "remote_apply"} {
		if err := c.Super("postgres", "ALTER DATABASE "+name+" SET synchronous_commit = "+set); err != nil {
			t.Fatal(err)
		}
		db, err := postgres.Open(t.Context(), c.URL(name))
		if err != nil {
			t.Fatal(err)
		}
		var have string
		err = db.Write(t.Context(), func(tx *store.Tx) error { return tx.QueryRow(`SHOW synchronous_commit`).Scan(&have) })
		if err := errors.Join(err, db.Close()); err != nil || have != want {
			t.Errorf("set to %s, it is %s for us: %v", set, have, err)
		}
	}
}

func TestADatabaseThatCannotBeWrittenSaysSo(t *testing.T) {
	c := storetest.Shared(t)
	name := c.Create(t, true)
	if err := c.Super("postgres", "ALTER DATABASE "+name+" SET default_transaction_read_only = on"); err != nil {
		t.Fatal(err)
	}
	refused(t, "read-only", c.URL(name), name, "set read-only")
}

// A text that cannot be stored is its sender's fault, and breaks nothing of what is stored with it.
func TestATextThatCannotBeStoredIsRefused(t *testing.T) {
	db := storetest.OpenPostgres(t)
	for _, bad := range []string{"a\x00b", "\xff"} {
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ($1, 1)`, bad)
			return err
		})
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok || f.Kind != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := appendFact(t, db, "after"); err != nil {
		t.Error(err)
	}
}

// cutter stands between a store and its server. When the store sends a statement with the armed text, the connection is cut: before
// the server gets it, or after.
type cutter struct {
	dir    string
	armed  atomic.Pointer[[]byte]
	before bool
}

func cutting(t *testing.T, c *storetest.Cluster, before bool) *cutter {
	t.Helper()
	x := &cutter{dir: t.TempDir(), before: before}
	const socket = ".s.PGSQL.5432"
	l, err := net.Listen("unix", filepath.Join(x.dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", filepath.Join(c.Dir, socket))
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
			go x.forward(client, server)
		}
	}()
	return x
}

func (x *cutter) forward(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if text := x.armed.Load(); text != nil && bytes.Contains(buf[:n], *text) {
			x.armed.Store(nil)
			_ = client.Close() // nothing comes back
			if !x.before {
				_, _ = server.Write(buf[:n])
				_, _ = io.Copy(io.Discard, server) // to the end: the server has done it, and has nobody to tell
			}
			return
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A connection that breaks at the commit leaves it open whether the write is stored, and that is said; one that breaks before leaves
// nothing. The store goes on by itself, and no write is run twice.
func TestABrokenConnectionIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name, at string
		before   bool
		stored   int
		unknown  bool
	}{
		{"in the middle of a write", "follower", true, 0, false},
		{"before the commit arrives", "COMMIT", true, 0, true},
		{"after the commit arrived", "COMMIT", false, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := storetest.Shared(t)
			name := cluster.Create(t, true)
			x := cutting(t, cluster, c.before)
			db, err := postgres.Open(t.Context(), strings.Replace(cluster.URL(name), cluster.Dir, x.dir, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			ran := 0
			write := func(subject string) error {
				return db.Write(t.Context(), func(tx *store.Tx) error {
					ran++
					if _, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ($1, 1)`, subject); err != nil {
						return err
					}
					return tx.Append(fact(subject))
				})
			}
			text := []byte(c.at)
			x.armed.Store(&text)
			err = write("cut")
			if err == nil || errors.Is(err, store.ErrUnknown) != c.unknown || !strings.Contains(err.Error(), name) {
				t.Errorf("%v", err)
			}
			if err := write("after"); err != nil || ran != 2 {
				t.Errorf("the next write, after %d runs: %v", ran, err)
			}
			if n := facts(t, db, "cut"); n != c.stored {
				t.Errorf("%d stored, want %d", n, c.stored)
			}
			if n := facts(t, db, "after"); n != 1 {
				t.Errorf("%d stored of the next", n)
			}
		})
	}
}
