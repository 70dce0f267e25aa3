package sqlite

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/wire"
)

// earlier is a database with the steps that bring it up to date.
func earlier(t *testing.T, path string) (*sql.DB, *goose.Provider) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, "rwc"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	p, err := provider(db)
	if err != nil {
		t.Fatal(err)
	}
	return db, p
}

// A database that stopped at any version is brought up to date, and every step can be taken back.
func TestEveryEarlierDatabaseIsBroughtUpToDate(t *testing.T) {
	_, list := earlier(t, filepath.Join(t.TempDir(), "list"))
	for _, s := range list.ListSources() {
		path := filepath.Join(t.TempDir(), "old.db")
		_, p := earlier(t, path)
		if _, err := p.UpTo(t.Context(), s.Version); err != nil {
			t.Fatalf("version %d: %v", s.Version, err)
		}
		db, err := Open(t.Context(), path)
		if err != nil {
			t.Fatalf("from version %d: %v", s.Version, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if _, err := p.DownTo(t.Context(), 0); err != nil {
			t.Errorf("back from the newest to nothing: %v", err)
		}
	}
}

// What was proposed before groups limited what is seen is where its resource is.
func TestAnOldProposalHasAPlace(t *testing.T) {
	db, p := earlier(t, filepath.Join(t.TempDir(), "old.db"))
	if _, err := p.UpTo(t.Context(), 164); err != nil {
		t.Fatal(err)
	}
	for id, old := range map[string][2]string{
		"":               {"", `{"resource":{"type":"member"}}`},
		"pump":           {"pump", `{"resource":{"type":"device","product":"pump"}}`},
		"pump/eu/berlin": {"pump", `{"resource":{"type":"device","product":"pump","group":"eu/berlin"}}`},
	} {
		if _, err := db.ExecContext(t.Context(), `INSERT INTO proposal (id, product, state, proposer, expires, rev, doc) VALUES ($1, $2, 'open', 'x', 1, 1, $3)`, id, old[0], old[1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wrong int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM proposal WHERE place <> id`).Scan(&wrong); err != nil || wrong != 0 {
		t.Errorf("%d are elsewhere, %v", wrong, err)
	}
}

// Devices of before there were kits have theirs, and one of whose settings nobody can make anything has none.
func TestDevicesOfBeforeHaveKits(t *testing.T) {
	db, p := earlier(t, filepath.Join(t.TempDir(), "old.db"))
	if _, err := p.UpTo(t.Context(), 493); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for i := range 12_000 { // more than are done at once
		twin := device.Twin{Version: fmt.Sprintf("1.%d.0", i%3), Reported: []wire.ConfigEntry{{Name: "rate", Value: fmt.Sprint(i % 2)}}, BootCount: uint64(i)}
		if i == 7000 {
			twin.Desired = []byte("no configuration")
		}
		doc, err := json.Marshal(twin)
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("device-%05d", i)
		if _, want[id], err = store.TwinRow(twin); err != nil || (want[id] == nil) != (i == 7000) {
			t.Fatalf("kit %x, %v", want[id], err)
		}
		if _, err := db.ExecContext(t.Context(), `INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, doc)
			VALUES ($1, 'pump', 'A', 'active', 'genuine', '', '', 0, 'soft', 0, 0, $2)`, id, string(doc)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := db.QueryContext(t.Context(), `SELECT id, kit FROM device`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var id string
		var kit []byte
		if err := rows.Scan(&id, &kit); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(kit, want[id]) {
			t.Errorf("%s has %x, want %x", id, kit, want[id])
		}
	}
	if err := rows.Err(); err != nil || n != len(want) {
		t.Errorf("%d devices, %v", n, err)
	}
}
