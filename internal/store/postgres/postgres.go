// Package postgres opens the store on PostgreSQL 15 or later: one database, any number of nodes.
//
// Under all stages. Nodes write at READ COMMITTED. Facts alone are appended side by side; every other write holds one advisory lock of
// the database from its first statement to its commit, and so sees what an embedded engine's one writer would. It trusts the server
// to keep what it committed, and refuses one that is set not to. It needs a database of its own and its owner, no superuser.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	neturl "net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/hallmark-iot/hallmark/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	readers = 16 // connections that read
	writers = 3  // the writer's, the sequencers', the leases'

	oldest = 150000 // server_version_num

	// Advisory locks are the database's own, and these are ours. The digits say nothing.
	writeLock   = 0x68616c6c6d61726b
	migrateLock = writeLock + 1

	// stuck is how long a transaction may wait for its node: one that was halted or cut off in the middle must not hold up the others.
	stuck = "30s"
)

// Open opens, and if need be migrates, the database of a libpq URL or connection string. Where that says nothing, the environment does,
// as for every client of PostgreSQL: PGPASSWORD, PGPASSFILE, PGSERVICE.
func Open(ctx context.Context, url string) (*store.DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err) // it has no password in it
	}
	cfg.DialFunc = (&net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}).DialContext
	d := dialect{place: placeOf(cfg)}
	write := pool(cfg, writers, map[string]string{"idle_in_transaction_session_timeout": stuck, "idle_session_timeout": "0"})
	err = check(ctx, write, d)
	if err == nil {
		err = migrate(ctx, write)
	}
	if err != nil {
		return nil, errors.Join(d.Explain(err), write.Close())
	}
	read := pool(cfg, readers, map[string]string{"default_transaction_read_only": "on"})
	db, err := store.New(ctx, read, write, d)
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	return db, nil
}

// CheckAddress refuses what Open cannot read, and a password: an address stands in files and lists of processes. Empty is none.
func CheckAddress(url string) error {
	if url == "" {
		return nil
	}
	if u, err := neturl.Parse(url); err == nil && u.Scheme != "postgres" && u.Scheme != "postgresql" && !strings.Contains(url, "=") {
		return errors.New("the database's address is none: want postgres://user@host/name")
	}
	if secret.MatchString(url) {
		return errors.New("the database's address has a password in it: leave it out, and give it in PGPASSWORD or the file that PGPASSFILE names")
	}
	if _, err := pgx.ParseConfig(url); err != nil {
		return fmt.Errorf("the database's address: %w", err)
	}
	return nil
}

// secret finds a password in either form of an address.
var secret = regexp.MustCompile(`(?i)(^|[?&\s])(ssl)?password\s*=|^postgres(ql)?://[^/?#@]*:[^/?#]*@`)

// placeOf names a database without its password.
func placeOf(cfg *pgx.ConnConfig) string {
	host := cfg.Host
	if host != "" && host[0] != '/' {
		host = net.JoinHostPort(host, fmt.Sprint(cfg.Port))
	}
	return fmt.Sprintf("%s at %s as %s", cfg.Database, host, cfg.User)
}

func pool(cfg *pgx.ConnConfig, size int, settings map[string]string) *sql.DB {
	c := cfg.Copy()
	c.RuntimeParams["default_transaction_isolation"] = "read committed"
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "hallmark"
	}
	maps.Copy(c.RuntimeParams, settings)
	db := stdlib.OpenDB(*c, stdlib.OptionAfterConnect(keep))
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

// keep makes a connection wait for the disk where the server's own default does not. More than that, as with a standby that has to
// have applied what was committed, stays as it is.
func keep(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`)
	return err
}

// check refuses a server that is too old, that cannot be written to, or that may lose what it committed.
func check(ctx context.Context, db *sql.DB, d dialect) error {
	var version int
	var standby, readOnly bool
	var named, encoding, sync, pages string
	err := db.QueryRowContext(ctx, `SELECT CAST(current_setting('server_version_num') AS INTEGER), current_setting('server_version'), pg_is_in_recovery(),
		CAST(current_setting('transaction_read_only') AS BOOLEAN), current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes')`).Scan(&version, &named, &standby, &readOnly, &encoding, &sync, &pages)
	if err != nil {
		return err
	}
	say := func(format string, args ...any) error {
		return fmt.Errorf("database %s: %s", d.place, fmt.Sprintf(format, args...))
	}
	switch {
	case version < oldest:
		return say("the server is PostgreSQL %s; 15 or later is needed: upgrade it", named)
	case standby:
		return say("the server is a standby, which cannot be written to: name the primary, or several hosts with target_session_attrs=read-write")
	case readOnly:
		return say("it is set read-only: take default_transaction_read_only from the database, the user or the server")
	case encoding != "UTF8":
		return say("its encoding is %s: make one with ENCODING 'UTF8' TEMPLATE template0", encoding)
	case sync != "on":
		return say("fsync is %s: the server would lose what was acknowledged; set fsync = on in postgresql.conf", sync)
	case pages != "on":
		return say("full_page_writes is %s: a torn page would lose what was acknowledged; set full_page_writes = on in postgresql.conf", pages)
	}
	return nil
}

// migrate brings the schema up to date, one node at a time.
func migrate(ctx context.Context, db *sql.DB) (err error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrateLock)); err != nil {
		return err
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(migrateLock))
		err = errors.Join(err, unlock)
	}()
	p, err := goose.NewProvider(goose.DialectPostgres, db, sub, goose.WithGoMigrations(goose.NewGoMigration(494, &goose.GoFunc{RunTx: store.FillKits}, nil)))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

type dialect struct{ place string }

var list = regexp.MustCompile(`\blist\((\$[0-9]+)\)`)

// Rewrite gives the rows of a JSON list the names SQLite has for them: value, and key from 0 on.
func (dialect) Rewrite(query string) string {
	return list.ReplaceAllString(query,
		`(SELECT value, n - 1 AS key FROM jsonb_array_elements_text(CAST(CAST($1 AS TEXT) AS jsonb)) WITH ORDINALITY AS t (value, n))`)
}

// Begin implements store.Dialect. The lock is waited for in a statement of its own, so that the next one sees all that was committed
// before it was given.
func (dialect) Begin(alone bool) string {
	if alone {
		return fmt.Sprintf("BEGIN; SELECT pg_advisory_xact_lock(%d)", int64(writeLock))
	}
	return "BEGIN"
}

// Lease implements store.Dialect.
func (dialect) Lease() string { return `SELECT pg_try_advisory_lock($1)` }

// Purge implements store.Dialect: the space of what was deleted is free again, and written over in time.
func (dialect) Purge(ctx context.Context, read *sql.DB) error {
	_, err := read.ExecContext(ctx, `VACUUM private, private_key, device, device_group, command, command_device, finding, remedy_case, retirement, proposal,
		stream_epoch, stream_record, stream_series`)
	return err
}

// Settle implements store.Dialect: what was committed is the server's.
func (dialect) Settle(*sql.Conn) error { return nil }
