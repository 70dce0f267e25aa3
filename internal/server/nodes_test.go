package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// another copies a data directory, as for a second node.
func another(t *testing.T, l server.Layout) server.Layout {
	t.Helper()
	to := server.Layout{Dir: filepath.Join(t.TempDir(), "node")}
	if err := os.CopyFS(to.Dir, os.DirFS(l.Dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Two nodes serve one instance from one database: what one was told, the other knows and proves; when the one that does the common work
// is gone, the other does it.
func TestTwoNodesServeOneInstance(t *testing.T) {
	c := storetest.Shared(t)
	url := c.URL(c.Create(t, false))
	l, err := initialiseIn(t, time.Now(), url)
	if err != nil {
		t.Fatal(err)
	}
	second := another(t, l)
	one, _, stop := startAndStop(t, l)
	two, _ := start(t, second)
	secret, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	first, other := client.New(one, strings.TrimSpace(string(secret)), nil), client.New(two, strings.TrimSpace(string(secret)), nil)
	token := func(at *client.Client, name string) string {
		t.Helper()
		secret, err := at.Token(t.Context(), httpapi.TokenSpec{Caller: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Viewer}, Use: signin.UseToken, Seconds: 3600})
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	if _, err := other.As(token(first, "ann")).Summary(t.Context()); err != nil {
		t.Errorf("one node's token, at the other: %v", err)
	}
	db, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	followed := func() {
		t.Helper()
		wait(t, "somebody to look at all that happened", func() bool {
			s, err := db.State(t.Context(), ledger.Events)
			if err != nil {
				t.Fatal(err)
			}
			next, err := db.Cursor(t.Context(), "reactions")
			if err != nil {
				t.Fatal(err)
			}
			return next == s.Size && s.Size > 0
		})
	}
	followed()
	stop()
	happened := ledger.New(ledger.KindDeviceHealthy, time.Now(), "test", "nobody", nil, []byte("{}"))
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(happened) }); err != nil {
		t.Fatal(err)
	}
	reader := ledger.NewReader(db)
	wait(t, "the fact to be under a witnessed checkpoint", func() bool { // the other places and publishes as well
		_, err := reader.Logged(t.Context(), happened.UID)
		return err == nil
	})
	followed()
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestADatabaseThatIsNotTheInstancesIsRefused(t *testing.T) {
	c := storetest.Shared(t)
	url, empty := c.URL(c.Create(t, false)), c.URL(c.Create(t, false))
	theirs, err := initialiseIn(t, time.Now(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := initialiseIn(t, time.Now(), url); err == nil || !strings.Contains(err.Error(), "holds an instance already") {
		t.Errorf("a second instance in one database: %v", err)
	}
	renamed := another(t, theirs)
	edit(t, renamed, `"instance": "hallmark.local"`, `"instance": "other.local"`)
	for name, c := range map[string]struct {
		l    server.Layout
		db   string
		want string
	}{
		"of the same name, with other keys": {initialise(t), url, "another key"},
		"of another name":                   {renamed, url, `that of instance "hallmark.local"`},
		"one with nothing in it":            {theirs, empty, "log recover"},
		"one that cannot be reached":        {theirs, "postgres://hallmark@127.0.0.1:1/x", "cannot be reached"},
		"one with its password":             {theirs, "postgres://hallmark:s3cret@127.0.0.1:1/x", "PGPASSWORD"},
		"no address at all":                 {theirs, "hallmark.db", "postgres://"},
	} {
		c.l.DB = c.db
		inst, err := open(t, c.l)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = inst.Close()
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
