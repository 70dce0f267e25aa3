package store_test

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// node is a process that writes to, sequences and publishes from a database it shares with others.
type node struct {
	cmd *exec.Cmd
	out io.Reader
}

func startNode(t *testing.T, dir, url, failpoint string) node {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HALLMARK_TEST_WRITER="+dir, writersDB+"="+url, "HALLMARK_FAILPOINTS="+failpoint)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return node{cmd, out}
}

// Several processes write to one database, sequence it and publish from it. Wherever one of them is killed, and the others with it:
// what any of them acknowledged is in the log once, without a gap, and each checkpoint that any of them signed is of the one tree.
func TestNodesOfOneDatabaseCompete(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	url := storetest.Postgres(t)
	t.Setenv(writersDB, url)
	rng := rand.New(rand.NewPCG(3, 4))
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	var mu sync.Mutex
	acked := map[string]bool{}
	for round, point := range []string{
		"store.before-commit", "store.after-commit", "sequence.placed", "publish.exported", "publish.witnessed", "publish.checkpoint-file",
	} {
		var nodes []node
		var reading sync.WaitGroup
		busy := []progress{newProgress(), newProgress(), newProgress()}
		for i, dir := range dirs {
			failpoint := ""
			if i == round%len(dirs) {
				failpoint = fmt.Sprintf("%s=%d", point, 1+rng.IntN(4))
			}
			n := startNode(t, dir, url, failpoint)
			nodes = append(nodes, n)
			reading.Go(func() {
				for sc := bufio.NewScanner(n.out); sc.Scan(); {
					if len(sc.Text()) == 32 {
						busy[i].made()
						mu.Lock()
						acked[sc.Text()] = true
						mu.Unlock()
					}
				}
			})
		}
		victim := nodes[round%len(dirs)].cmd
		if err := victim.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("%s: the node ended with %v, want a kill", point, err)
		}
		for i, n := range nodes {
			if n.cmd != victim {
				busy[i].wait(t, 50) // they go on without it
				if err := n.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		reading.Wait()
		for _, n := range nodes {
			if n.cmd != victim {
				_ = n.cmd.Wait() // killed
			}
		}
	}
	checkAfterKill(t, "all nodes", t.TempDir(), acked)
	checkOneTree(t, url, len(acked))
}

// progress tells that something is being done.
type progress chan struct{}

func newProgress() progress { return make(progress, 1) }

func (p progress) made() {
	select {
	case p <- struct{}{}:
	default: // nobody waits just now
	}
}

// wait waits until that much more was done, at least.
func (p progress) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-p:
		case <-t.Context().Done():
			t.Fatal("nothing goes on")
		}
	}
}

// checkOneTree recomputes all: places without a gap, each fact once, and every checkpoint's root.
func checkOneTree(t *testing.T, url string, atLeast int) {
	t.Helper()
	db, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := db.State(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	var rows, places, highest, uids int
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*), count(DISTINCT idx), max(idx), count(DISTINCT uid) FROM entry`).Scan(&rows, &places, &highest, &uids); err != nil {
		t.Fatal(err)
	}
	if n := int(s.Size); rows != n || places != n || highest != n-1 || uids != n || n < atLeast {
		t.Errorf("%d facts, %d places up to %d, %d of them different; the tree has %d, and %d were acknowledged", rows, places, highest, uids, n, atLeast)
	}
	reader := ledger.NewReader(db)
	list, err := db.Read().QueryContext(t.Context(), `SELECT size, root FROM checkpoint`)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	signed := 0
	for list.Next() {
		var size uint64
		var root []byte
		if err := list.Scan(&size, &root); err != nil {
			t.Fatal(err)
		}
		want, err := reader.RootAt(t.Context(), ledger.Events, size)
		if err != nil || !slices.Equal(root, want[:]) {
			t.Errorf("checkpoint of size %d: another tree's: %v", size, err)
		}
		signed++
	}
	if err := list.Err(); err != nil || signed < 6 {
		t.Errorf("%d checkpoints, %v", signed, err)
	}
}

// A server that stops in the middle of the work and comes back takes nothing that was acknowledged with it, and the nodes go on by
// themselves.
func TestAStoppedDatabaseTakesNothingWithIt(t *testing.T) {
	if testing.Short() {
		t.Skip("crashes a server of its own")
	}
	c := storetest.NewCluster(t)
	db, err := postgres.Open(t.Context(), c.URL(c.Create(t, false)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	seq := ledger.NewSequencer(db, ledger.Events, nil, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = seq.Run(ctx) })
	var mu sync.Mutex
	acked, unknown, denied := map[[16]byte]bool{}, map[[16]byte]bool{}, 0
	stored := newProgress()
	for i := range 16 {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				f := fact(fmt.Sprint("w", i))
				ran := 0
				err := db.Write(context.WithoutCancel(ctx), func(tx *store.Tx) error {
					ran++
					if i%2 == 0 {
						if _, err := tx.Exec(`INSERT INTO follower (name, next) VALUES ($1, 1)`, fmt.Sprint(i, " ", n)); err != nil {
							return err
						}
					}
					return tx.Append(f)
				})
				mu.Lock()
				switch {
				case err == nil:
					acked[f.UID] = true
					stored.made()
				case errors.Is(err, store.ErrUnknown):
					unknown[f.UID] = true
				default:
					denied++
				}
				mu.Unlock()
				if err != nil {
					<-time.After(10 * time.Millisecond) // a server that is away is not asked all the time
				}
				if ran > 1 {
					t.Errorf("a write was run %d times", ran)
				}
			}
		})
	}
	for range 3 {
		stored.wait(t, 100)
		if err := errors.Join(c.Stop(), c.Start()); err != nil {
			t.Fatal(err)
		}
	}
	stored.wait(t, 100)
	cancel()
	work.Wait()
	_, err = seq.Step(t.Context())
	for range 20 { // connections of before the last restart are found dead by whoever uses them
		if !errors.Is(err, driver.ErrBadConn) {
			break
		}
		_, err = seq.Step(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if denied == 0 {
		t.Error("nothing was refused: the server was never away")
	}
	for uid := range acked {
		if _, placed, err := db.Locate(t.Context(), uid); err != nil || !placed {
			t.Fatalf("fact %x was acknowledged, and is lost: %v", uid, err)
		}
	}
	// What was refused is not there; what is, was acknowledged, or said to be open.
	n := count(t, db)
	if n < len(acked) || n > len(acked)+len(unknown) {
		t.Errorf("%d facts; %d acknowledged, %d open, %d refused", n, len(acked), len(unknown), denied)
	}
	var state, facts int
	if err := db.Read().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM follower),
		(SELECT count(*) FROM entry WHERE subject IN ('w0', 'w2', 'w4', 'w6', 'w8', 'w10', 'w12', 'w14'))`).Scan(&state, &facts); err != nil || state != facts {
		t.Errorf("%d states, %d facts about them: %v", state, facts, err)
	}
	t.Logf("%d acknowledged, %d open, %d refused", len(acked), len(unknown), denied)
}
