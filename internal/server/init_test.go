package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/product"
)

func options() server.InitOptions {
	cfg := server.DefaultConfig()
	return server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob"}, Threshold: 2, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}
}

func vault(dir string) (server.Vault, error) { return soft.Create(dir, "pass", quick) }

// Of many who make an instance in one directory at once, one does, and none of the others takes away what it made.
func TestOneOfManyMakesTheInstance(t *testing.T) {
	l := server.Layout{Dir: filepath.Join(t.TempDir(), "a", "inst")}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, errs[i] = server.Make(t.Context(), l, options(), vault) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		}
	}
	if made != 1 {
		t.Fatalf("%d were made: %v", made, errs)
	}
	inst, err := open(t, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := inst.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whatever fails, and wherever, the file system is as it was.
func TestAFailedInitLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	parent := t.TempDir()
	for name, fail := range map[string]func(string) (server.Vault, error){
		"first": func(string) (server.Vault, error) { return nil, boom },
		"second": func(dir string) (server.Vault, error) {
			if strings.HasSuffix(dir, "offline") {
				return nil, boom
			}
			return vault(dir)
		},
		"later": func(dir string) (server.Vault, error) {
			v, err := vault(dir)
			if err == nil && strings.HasSuffix(dir, "offline") {
				_, err = v.GenerateP256("approver-bob") // is there already when init makes it
			}
			return v, err
		},
	} {
		l := server.Layout{Dir: filepath.Join(parent, "x", "inst")}
		if _, err := server.Make(t.Context(), l, options(), fail); err == nil {
			t.Errorf("%s: made", name)
		}
		if names, err := os.ReadDir(parent); err != nil || len(names) != 0 {
			t.Errorf("%s: left %v, %v", name, names, err)
		}
	}
}
