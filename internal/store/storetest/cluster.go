package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
)

// Cluster is a PostgreSQL server of this process alone: in a directory of its own, reached by a socket in it, gone with the process
// however that ends.
type Cluster struct {
	Dir string

	bin    string
	as     *syscall.Credential // nil: as who runs the tests
	reaper *os.File            // held open: at its end the server is stopped and the directory removed
	made   atomic.Int64
	own    []string // tables of a migrated database

	mu   sync.Mutex
	free []string // databases that no test uses; guarded by mu
}

// shared is the cluster that the tests of this process share, started by the first that asks.
var shared = sync.OnceValues(func() (*Cluster, error) {
	c, err := newCluster()
	if err != nil {
		return nil, err
	}
	db, err := postgres.Open(context.Background(), c.URL(template))
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil { // a database that somebody is connected to is no template
		return nil, err
	}
	c.own, err = c.tables(template)
	return c, err
})

const (
	template = "template_hallmark"
	owner    = "hallmark" // no superuser
)

// binaries finds the newest installed server from version 15 on.
func binaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is well-formed
	slices.Sort(found)
	for _, path := range slices.Backward(found) {
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))); err == nil && v >= 15 {
			return filepath.Dir(path)
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	return ""
}

func need(t testing.TB) {
	t.Helper()
	if binaries() == "" {
		t.Skip("postgresql 15 is not installed")
	}
}

// NewCluster starts a server for this test alone, that may be stopped and started.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	need(t)
	c, err := newCluster()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.reaper.Close() })
	return c
}

func newCluster() (c *Cluster, err error) {
	c = &Cluster{bin: binaries()}
	if c.Dir, err = os.MkdirTemp("", "hallmark-pg"); err != nil {
		return nil, err
	}
	if err := c.dropRoot(); err != nil {
		return nil, err
	}
	// The locale sorts otherwise than bytes do: what must not depend on it, does not.
	if err := c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US",
		"--no-sync", "--no-instructions"); err != nil {
		return nil, err
	}
	access := "local all stranger scram-sha-256\nlocal all all trust\n"
	if err := os.WriteFile(filepath.Join(c.data(), "pg_hba.conf"), []byte(access), 0o600); err != nil { //nolint:forbidigo // of a test's server
		return nil, err
	}
	if err := c.reap(); err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return c, c.Super("postgres", "CREATE ROLE "+owner+" LOGIN", "CREATE ROLE stranger LOGIN PASSWORD 'right'", "CREATE DATABASE "+template+" OWNER "+owner)
}

// dropRoot chooses who runs the server: it refuses to be root.
func (c *Cluster) dropRoot() error {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return err
		}
		c.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(c.Dir, uid, gid)
	}
	return errors.New("there is neither a user postgres nor nobody to run a server as")
}

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...) //nolint:noctx // the reaper outlives the test
	cmd.Dir, cmd.SysProcAttr = c.Dir, &syscall.SysProcAttr{Credential: c.as, Setpgid: true}
	return cmd
}

func (c *Cluster) run(name string, args ...string) error {
	out, err := os.CreateTemp("", "hallmark-pg-out") // a file: a server that outlives the command would hold a pipe open
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(out.Close(), os.Remove(out.Name())) }()
	cmd := c.command(filepath.Join(c.bin, name), args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return nil
}

// reap starts a shell that outlives this process: when its input ends, it stops the server and removes the directory.
func (c *Cluster) reap() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := c.command("/bin/sh", "-c", `read _; "$0" stop -D "$1/data" -m immediate >/dev/null 2>&1; cd /; rm -rf "$1"`, filepath.Join(c.bin, "pg_ctl"), c.Dir)
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	c.reaper = w
	go func() { _ = cmd.Wait() }() // it ends with the reaper's file, or we did
	return r.Close()
}

// Start starts the server.
func (c *Cluster) Start() error {
	return c.run("pg_ctl", "start", "-w", "-s", "-D", c.data(), "-l", filepath.Join(c.Dir, "server.log"), "-o",
		"-c listen_addresses='' -c unix_socket_directories="+c.Dir+" -c max_connections=300")
}

// Stop stops it at once, as a crash would.
func (c *Cluster) Stop() error {
	return c.run("pg_ctl", "stop", "-s", "-D", c.data(), "-m", "immediate")
}

func (c *Cluster) data() string { return filepath.Join(c.Dir, "data") }

// Standby starts the server anew, as the standby of nobody.
func (c *Cluster) Standby() error {
	if err := c.run("pg_ctl", "stop", "-s", "-D", c.data(), "-m", "fast"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.data(), "standby.signal"), nil, 0o600); err != nil { //nolint:forbidigo // of a test's server
		return err
	}
	return c.Start()
}

// URL is how the owner reaches a database.
func (c *Cluster) URL(database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s", owner, database, c.Dir)
}

// Super runs statements as a superuser.
func (c *Cluster) Super(database string, statements ...string) (err error) {
	db, err := c.super(database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil { //nolint:noctx // of a test's server
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// Create makes a database, empty or migrated already, and gives its name.
func (c *Cluster) Create(t testing.TB, migrated bool) string {
	t.Helper()
	from, name := "template1", fmt.Sprintf("t%d", c.made.Add(1))
	if migrated {
		from = template
	}
	if err := c.Super("postgres", fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s OWNER %s", name, from, owner)); err != nil {
		t.Fatal(err)
	}
	return name
}

// Postgres gives the URL of a fresh database, migrated already, on the cluster that the process's tests share. To make one takes half a
// second, so one that a test is done with is emptied for the next.
func Postgres(t testing.TB) string {
	t.Helper()
	c := Shared(t)
	c.mu.Lock()
	var name string
	if n := len(c.free); n > 0 {
		name, c.free = c.free[n-1], c.free[:n-1]
	}
	c.mu.Unlock()
	if name == "" {
		name = c.Create(t, true)
	}
	t.Cleanup(func() {
		if err := c.empty(name); err != nil {
			t.Logf("database %s is not used again: %v", name, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.free = append(c.free, name)
	})
	return c.URL(name)
}

// empty makes a database what it was when it was made.
func (c *Cluster) empty(name string) error {
	now, err := c.tables(name)
	if err != nil {
		return err
	}
	reset := []string{
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
		`SET session_replication_role = replica`, // no trigger keeps a fact, no reference its row
	}
	for _, table := range now {
		if slices.Contains(c.own, table) {
			reset = append(reset, "DELETE FROM "+table)
		} else {
			reset = append(reset, "DROP TABLE "+table)
		}
	}
	return c.Super(name, strings.Join(reset, "; "))
}

// tables are the tables of a database, but for goose's own.
func (c *Cluster) tables(name string) (out []string, err error) {
	db, err := c.super(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var all string
	err = db.QueryRow(`SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'goose%'`).Scan(&all) //nolint:noctx // of a test's server
	return strings.Fields(all), err
}

func (c *Cluster) super(database string) (*sql.DB, error) {
	return sql.Open("pgx", fmt.Sprintf("postgres://postgres@/%s?host=%s", database, c.Dir))
}

// Shared gives that cluster.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	need(t)
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// OpenPostgres opens a fresh store on PostgreSQL that is closed with the test.
func OpenPostgres(t testing.TB) *store.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, db)
}
