package store_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func credentials(t *testing.T) (*store.DB, *access.Credentials, access.Caller) {
	t.Helper()
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	return db, access.NewCredentials(db, guard), access.Caller{ID: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}}
}

func grantTo(name string) access.Grant {
	return access.Grant{Caller: name, Kind: access.Person, Roles: []access.Role{access.Viewer}, Life: time.Hour, Use: access.UseToken}
}

// Whoever issues secrets cannot make himself the system, a device, or somebody of another kind.
func TestASecretIsForAPersonOrAMachineAndNobodyElse(t *testing.T) {
	db, c, admin := credentials(t)
	for _, g := range []access.Grant{grantTo("person:ann"), grantTo("person:a.b-c_d@example.com"), grantTo("person:0")} {
		if _, err := c.Issue(t.Context(), admin, g); err != nil {
			t.Errorf("%s: %v", g.Caller, err)
		}
	}
	for _, name := range []string{"machine:ci", "token:ci"} {
		g := grantTo(name)
		g.Kind = access.Machine
		if _, err := c.Issue(t.Context(), admin, g); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := facts(t, db)
	for name, change := range map[string]func(*access.Grant){
		"the system itself":        func(g *access.Grant) { g.Caller, g.Kind = "system:reactions", access.System },
		"the system as a person":   func(g *access.Grant) { g.Caller = "system:reactions" },
		"a person as the system":   func(g *access.Grant) { g.Kind = access.System },
		"a device":                 func(g *access.Grant) { g.Caller, g.Kind = "device:"+strings.Repeat("0", 32), access.Device },
		"a device as a machine":    func(g *access.Grant) { g.Caller, g.Kind = "device:"+strings.Repeat("0", 32), access.Machine },
		"the host":                 func(g *access.Grant) { g.Caller = "host:init" },
		"no kind":                  func(g *access.Grant) { g.Kind = "" },
		"an unknown kind":          func(g *access.Grant) { g.Kind = "root" },
		"a person as a machine":    func(g *access.Grant) { g.Kind = access.Machine },
		"a machine as a person":    func(g *access.Grant) { g.Caller = "machine:ci" },
		"no prefix":                func(g *access.Grant) { g.Caller = "ann" },
		"no name":                  func(g *access.Grant) { g.Caller = "person:" },
		"other letters":            func(g *access.Grant) { g.Caller = "person:Ann" },
		"another alphabet":         func(g *access.Grant) { g.Caller = "person:\u0430nn" },
		"a space":                  func(g *access.Grant) { g.Caller = "person:ann " },
		"a second line":            func(g *access.Grant) { g.Caller = "person:ann\n" },
		"a long name":              func(g *access.Grant) { g.Caller = "person:" + strings.Repeat("a", 65) },
		"no use":                   func(g *access.Grant) { g.Use = "" },
		"an unknown use":           func(g *access.Grant) { g.Use = "all" },
		"a session, not signed in": func(g *access.Grant) { g.Use = access.UseSession },
		"no life":                  func(g *access.Grant) { g.Life = 0 },
		"a life without end":       func(g *access.Grant) { g.Life = access.MaxLife + 1 },
		"no role":                  func(g *access.Grant) { g.Roles = nil },
		"an unknown role":          func(g *access.Grant) { g.Roles = []access.Role{access.Viewer, "god"} },
	} {
		g := grantTo("person:eve")
		change(&g)
		if _, err := c.Issue(t.Context(), admin, g); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := facts(t, db); n != before {
		t.Errorf("%d facts of what was refused", n-before)
	}
}

func facts(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = 'access.changed'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A second secret for one name is how somebody gets in again who lost his, and how an administrator would get in as somebody else:
// it is possible, and the ledger says so, for good.
func TestIssuingAgainIsWrittenDown(t *testing.T) {
	db, c, admin := credentials(t)
	issue := func(by access.Caller, name string) error {
		_, err := c.Issue(t.Context(), by, grantTo(name))
		return err
	}
	revoked := func() error { return db.RevokeCaller(t.Context(), "person:bob") }
	bob := access.Caller{ID: "person:bob", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	if err := errors.Join(issue(admin, "person:bob"), issue(admin, "person:ann"), issue(admin, "person:bob"), revoked(), issue(admin, "person:bob")); err != nil {
		t.Fatal(err)
	}
	if err := issue(bob, "person:bob"); fault.KindOf(err) != fault.Denied {
		t.Errorf("by himself: %v", err)
	}
	rows, err := db.Read().QueryContext(t.Context(), `SELECT subject, data FROM entry WHERE kind = 'access.changed' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var subject string
		var data []byte
		if err := rows.Scan(&subject, &data); err != nil {
			t.Fatal(err)
		}
		var said struct {
			Caller string `json:"caller"`
			Again  *bool  `json:"again"`
		}
		f, err := wire.DecodeFact(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(f.Data, &said); err != nil || said.Again == nil || said.Caller != subject {
			t.Fatalf("%s: %v", f.Data, err)
		}
		if *said.Again {
			subject += " again"
		}
		got = append(got, subject)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(got, ", "); s != "person:bob, person:ann, person:bob again, person:bob again" {
		t.Errorf("the ledger says: %s", s)
	}
}

// A name that somebody of another kind holds, from whatever time, is not given away.
func TestANameOfAnotherKindIsNotIssued(t *testing.T) {
	db, c, admin := credentials(t)
	old := access.Credential{Hash: [32]byte{1}, Use: access.UseToken, Caller: "person:bob", Kind: access.Machine, Expires: time.Now().Add(time.Hour)}
	if err := db.PutCredential(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Issue(t.Context(), admin, grantTo("person:bob")); fault.KindOf(err) != fault.Conflict {
		t.Errorf("%v", err)
	}
	if n := facts(t, db); n != 0 {
		t.Errorf("%d facts", n)
	}
	f := ledger.New(ledger.Control, ledger.KindAccessChanged, time.Now(), "test", "x", nil, []byte("{}"))
	if err := db.RevokeCaller(t.Context(), "person:bob", f); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Issue(t.Context(), admin, grantTo("person:bob")); err != nil {
		t.Errorf("once it is free: %v", err)
	}
}

// A secret that was stored for the system before that was refused opens nothing.
func TestAStoredSecretOfTheSystemIsNone(t *testing.T) {
	db, c, _ := credentials(t)
	for kind, want := range map[access.Kind]bool{access.Person: true, access.Machine: true, access.System: false, access.Device: false, "": false} {
		secret := "hmk_" + string(kind)
		if err := db.PutCredential(t.Context(), access.Credential{
			Hash: sha256.Sum256([]byte(secret)), Use: access.UseToken, Caller: "x:" + string(kind), Kind: kind, Expires: time.Now().Add(time.Hour),
		}); err != nil {
			t.Fatal(err)
		}
		if who, err := c.Authenticate(t.Context(), secret); (err == nil) != want {
			t.Errorf("kind %q: %+v, %v", kind, who, err)
		}
	}
}
