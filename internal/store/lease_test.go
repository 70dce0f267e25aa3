package store_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// nodesOf opens one database several times.
func nodesOf(t *testing.T, n int) (out []*store.DB, url string) {
	t.Helper()
	url = storetest.Postgres(t)
	for range n {
		db, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		out = append(out, db)
	}
	return out, url
}

func leads(t *testing.T, db *store.DB, what string) bool {
	t.Helper()
	yes, err := db.Leads(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

func TestOneNodeLeads(t *testing.T) {
	nodes, url := nodesOf(t, 3)
	if !leads(t, nodes[0], "a") || leads(t, nodes[1], "a") || !leads(t, nodes[1], "b") || leads(t, nodes[0], "b") {
		t.Error("not one node for each work")
	}
	if !leads(t, nodes[0], "a") {
		t.Error("who leads does not go on")
	}
	if err := nodes[0].Close(); err != nil {
		t.Fatal(err)
	}
	if !takesOver(t, nodes[1], "a") { // the server learns of the end of a connection in its own time
		t.Error("nobody took over from a node that ended")
	}
	// A node that is cut off leads no more, whatever it thinks.
	_, database, _ := strings.Cut(strings.TrimSuffix(url, "?host="+storetest.Shared(t).Dir), "@/")
	if err := storetest.Shared(t).Super(database, `SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	if !leads(t, nodes[2], "a") || leads(t, nodes[1], "a") || !leads(t, nodes[2], "b") {
		t.Error("a node that was cut off still leads")
	}
	if db := storetest.Open(t); !storetest.OnPostgres() && !leads(t, db, "a") {
		t.Error("the only node does not lead")
	}
}

// takesOver waits until a node leads.
func takesOver(t *testing.T, node *store.DB, name string) bool {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if leads(t, node, name) {
			return true
		}
	}
	return false
}

// A write that reads before it changes sees what another node's did: of many that must happen once, one does.
func TestNodesDoNotActOnWhatIsPast(t *testing.T) {
	nodes, _ := nodesOf(t, 4)
	taken := errors.New("taken")
	for _, name := range []string{"a", "b", "c"} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 24 {
			wg.Go(func() {
				err := nodes[i%len(nodes)].Write(t.Context(), func(tx *store.Tx) error {
					var n int
					if err := tx.QueryRow(`SELECT count(*) FROM follower WHERE next = $1`, name[0]).Scan(&n); err != nil {
						return err
					}
					if n > 0 {
						return taken
					}
					_, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ($1, $2)`, name+string(rune('a'+i)), name[0])
					return err
				})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !errors.Is(err, taken) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%s: %d of them happened", name, won)
		}
	}
}

// While one node changes something, others append facts and give them their places; only who wants to change something waits.
func TestFactsDoNotWaitForOtherNodes(t *testing.T) {
	nodes, _ := nodesOf(t, 2)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var order []string
	in := func(place string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, place)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := nodes[0].Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ('x', 1)`)
			close(begun)
			<-goOn
			in("first")
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	<-begun
	if err := nodes[1].Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact("beside")) }); err != nil {
		t.Fatal(err)
	}
	if n, err := ledger.NewSequencer(nodes[1], ledger.Events, nil, nil).Step(t.Context()); err != nil || n != 1 {
		t.Fatalf("%d were placed: %v", n, err)
	}
	wg.Go(func() {
		if err := nodes[1].Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE follower SET next = 2 WHERE name = 'x'`)
			in("second")
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	close(goOn)
	wg.Wait()
	if strings.Join(order, " ") != "first second" {
		t.Errorf("in the order %v", order)
	}
	var next int
	if err := nodes[0].Read().QueryRowContext(t.Context(), `SELECT next FROM follower WHERE name = 'x'`).Scan(&next); err != nil || next != 2 {
		t.Errorf("next is %d, %v", next, err)
	}
}
