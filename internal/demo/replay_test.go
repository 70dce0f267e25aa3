package demo

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver
)

// remembered is what must not be forgotten by a database that was brought back from the log that was published: by table, what of it a
// device or the world would be fooled without.
var remembered = map[string]string{
	"devices": `SELECT id, product, hardware, state, legitimacy, order_id, station, made, hex(identity), hex(attest_key), key_origin,
		is_virtual, coalesce(replaces, ''), coalesce(replaced_by, ''), since FROM device`,
	"certificates":          `SELECT key, device, role, issuer, serial, not_before, not_after, ended > 0 FROM cert`,
	"order CAs":             `SELECT ski, role, hex(der) FROM ca`,
	"revocations":           `SELECT DISTINCT scope, id FROM revocation`,
	"trust bundles":         `SELECT product, version, hex(uid), hex(envelope) FROM bundle`,
	"releases":              `SELECT hex(digest), id, status, published, hex(uid), hex(envelope) FROM release`,
	"components":            `SELECT product, hex(artifact), hex(release) FROM release_component`,
	"warrants":              `SELECT hex(uid), id, product FROM warrant`,
	"commands":              `SELECT id, hex(uid), hex(digest), act, ended, expires, coalesce(hex(warrant), '') FROM command WHERE id NOT LIKE 'forged-%'`,
	"production records":    `SELECT order_id, seq, ticket, device, hex(hash) FROM production_record WHERE state = 'made'`,
	"members":               `SELECT id, kind, ended > 0, json_extract(doc, '$.roles'), coalesce(json_extract(doc, '$.scope'), '') FROM member`,
	"destroyed keys":        `SELECT device FROM stream_destroyed`,
	"grants":                `SELECT id, reader, product FROM stream_grant`,
	"verdicts":              `SELECT device_id, hex(uid), status FROM verdict_current`,
	"heads of devices' log": `SELECT device, seq, hex(head), hex(anchor) FROM device_log`,
	"retirements":           `SELECT device_id, phase, open, hex(warrant_uid), hex(end_uid) FROM retirement`,
	"entries":               `SELECT log, idx, hex(uid), kind, subject, at, hex(data) FROM entry WHERE idx IS NOT NULL`,
}

// backup copies the database as it is.
func backup(t *testing.T, database, to string) {
	t.Helper()
	db := opened(t, database)
	if _, err := db.ExecContext(t.Context(), `VACUUM INTO ?`, to); err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// rows gives a query's rows as text, in an order of their own.
func rows(t *testing.T, database, query string) (out []string) {
	t.Helper()
	rs, err := opened(t, database).QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rs.Close()
	columns, err := rs.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rs.Next() {
		row := make([]any, len(columns))
		for i := range row {
			row[i] = new(any)
		}
		if err := rs.Scan(row...); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, v := range row {
			fmt.Fprintf(&b, "%v ", *v.(*any))
		}
		out = append(out, b.String())
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// comesBack restores the backup of the first day beside the files that were published since, and brings it up to them.
func comesBack(t *testing.T, bin, server, old string) {
	t.Helper()
	again := filepath.Join(t.TempDir(), "again")
	if err := os.CopyFS(again, os.DirFS(server)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"hallmark.db-wal", "hallmark.db-shm"} {
		if err := os.RemoveAll(filepath.Join(again, f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(old, filepath.Join(again, "hallmark.db")); err != nil {
		t.Fatal(err)
	}
	run := func(want string, args ...string) {
		t.Helper()
		said, err := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(bin, "hallmark"), append(args, "--dir", again)...).CombinedOutput()
		if err != nil || !strings.Contains(string(said), want) {
			t.Fatalf("%v: %v, want %q\n%s", args, err, want, said)
		}
	}
	run("Nothing was changed", "log", "recover")
	run("Replayed:", "log", "recover", "--apply")
	run("nothing is to be replayed", "log", "recover", "--apply")
	for name, query := range remembered {
		had, has := rows(t, filepath.Join(server, "hallmark.db"), query), rows(t, filepath.Join(again, "hallmark.db"), query)
		if !slices.Equal(had, has) {
			for _, r := range had {
				if !slices.Contains(has, r) {
					t.Errorf("%s: forgotten: %.300s", name, r)
				}
			}
			for _, r := range has {
				if !slices.Contains(had, r) {
					t.Errorf("%s: made up: %.300s", name, r)
				}
			}
		}
		if len(had) == 0 && name != "grants" {
			t.Errorf("%s: there were none: nothing is shown", name)
		}
	}
}
