package store_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// The child process: it writes facts, and prints the UID of each that was acknowledged, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HALLMARK_TEST_WRITER"); dir != "" {
		if err := writer(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writersDB names the variable with the database that several writers share; unset: each has a file of its own.
const writersDB = "HALLMARK_TEST_WRITERS_DB"

func seedKey(b byte) edKey {
	return edKey{ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(b)), ed25519.SeedSize)))}
}

// openLog opens a log in dir as a server would at its start: it refuses to begin when it would fork.
func openLog(ctx context.Context, dir string) (*rig, error) {
	open, at := sqlite.Open, filepath.Join(dir, "hallmark.db")
	if url := os.Getenv(writersDB); url != "" {
		open, at = postgres.Open, url
	}
	db, err := open(ctx, at)
	if err != nil {
		return nil, err
	}
	r := &rig{key: seedKey('l'), export: durable.Files{Dir: filepath.Join(dir, "log")}}
	for _, b := range []byte{'a', 'b'} {
		w, err := witness.Open(ctx, witness.Config{
			Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner("w"+string(rune(b)), seedKey(b))},
			Logs: []witness.Log{{Origin: origin, Keys: logKeys(origin, r.key), Memory: durable.File{Path: filepath.Join(dir, "witness-"+string(rune(b)))}}},
		})
		if err != nil {
			return nil, err
		}
		r.w = append(r.w, w)
	}
	r.start(db)
	return r, r.pub.Check(ctx)
}

func writer(ctx context.Context, dir string) error {
	r, err := openLog(ctx, dir)
	if err != nil {
		return err
	}
	err = r.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE IF NOT EXISTS kept (uid BYTEA PRIMARY KEY)`)
		return err
	})
	if err != nil {
		return err
	}
	go func() { _ = r.seq.Run(ctx) }()
	go func() { _ = r.pub.Run(ctx) }()
	r.db.OnAppend(func() { r.seq.Wake(); r.pub.Wake() })
	acks := make(chan string)
	for i := range 8 {
		go func() {
			for {
				f := fact("x")
				err := r.db.Write(ctx, func(tx *store.Tx) error {
					if i%2 == 0 { // half of them keep state beside the fact
						f.Subject = "kept"
						if _, err := tx.Exec(`INSERT INTO kept (uid) VALUES ($1)`, f.UID[:]); err != nil {
							return err
						}
					}
					return tx.Append(f)
				})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				acks <- hex.EncodeToString(f.UID[:])
			}
		}()
	}
	for uid := range acks {
		fmt.Println(uid)
	}
	return nil
}

// Killed at every named place, in any round: every acknowledged fact is there once, and what was published still verifies.
func TestKilledAnywhereNothingAcknowledgedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, point := range []string{
		"store.before-commit", "store.after-commit", "sequence.placed", "publish.exported", "publish.witnessed", "publish.checkpoint-file",
	} {
		dir := t.TempDir()
		acked := map[string]bool{}
		for range 3 {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "HALLMARK_TEST_WRITER="+dir, fmt.Sprintf("HALLMARK_FAILPOINTS=%s=%d", point, 1+rng.IntN(12)))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for sc := bufio.NewScanner(out); sc.Scan(); {
				if len(sc.Text()) == 32 {
					acked[sc.Text()] = true
				}
			}
			if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("%s: the writer ended with %v, want a kill", point, err)
			}
			checkAfterKill(t, point, dir, acked)
		}
	}
}

func checkAfterKill(t *testing.T, point, dir string, acked map[string]bool) {
	t.Helper()
	r, err := openLog(t.Context(), dir)
	if err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	defer r.db.Close()
	r.seq = ledger.NewSequencer(r.db, ledger.Events, nil, slog.New(slog.DiscardHandler))
	r.grow(t, 1)
	rep, err := audit.Verify(t.Context(), r.policy(), r.fetch)
	if err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	for uid := range acked {
		if _, ok := rep.UIDs[uid]; !ok {
			t.Fatalf("%s: fact %s was acknowledged and is lost (%d of %d)", point, uid, len(rep.UIDs), len(acked))
		}
	}
	var state, facts, both int
	row := r.db.Read().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM kept),
		(SELECT count(*) FROM entry WHERE subject = 'kept'), (SELECT count(*) FROM entry JOIN kept ON entry.uid = kept.uid)`)
	if err := row.Scan(&state, &facts, &both); err != nil {
		// Killed before the table was committed: then there can be no such fact either.
		if err := r.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE subject = 'kept'`).Scan(&facts); err != nil {
			t.Fatal(err)
		}
	}
	if state != facts || both != facts {
		t.Fatalf("%s: %d states, %d facts about them, %d of them together", point, state, facts, both)
	}
}
