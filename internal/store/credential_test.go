package store_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

func credentials(t *testing.T) (*store.DB, *signin.Service, access.Caller) {
	t.Helper()
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	return db, signin.New(db, guard), access.Caller{ID: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}}
}

func grantTo(name string) signin.Grant {
	return signin.Grant{Caller: name, Kind: access.Person, Roles: []access.Role{access.Viewer}, Life: time.Hour, Use: signin.UseToken}
}

// Whoever issues secrets cannot make himself the system, a device, or somebody of another kind.
func TestASecretIsForAPersonOrAMachineAndNobodyElse(t *testing.T) {
	db, c, admin := credentials(t)
	for _, g := range []signin.Grant{grantTo("person:ann"), grantTo("person:a.b-c_d@example.com"), grantTo("person:0")} {
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
	for name, change := range map[string]func(*signin.Grant){
		"the system itself":        func(g *signin.Grant) { g.Caller, g.Kind = "system:reactions", access.System },
		"the system as a person":   func(g *signin.Grant) { g.Caller = "system:reactions" },
		"a person as the system":   func(g *signin.Grant) { g.Kind = access.System },
		"a device":                 func(g *signin.Grant) { g.Caller, g.Kind = "device:"+strings.Repeat("0", 32), access.Device },
		"a device as a machine":    func(g *signin.Grant) { g.Caller, g.Kind = "device:"+strings.Repeat("0", 32), access.Machine },
		"the host":                 func(g *signin.Grant) { g.Caller = "host:init" },
		"no kind":                  func(g *signin.Grant) { g.Kind = "" },
		"an unknown kind":          func(g *signin.Grant) { g.Kind = "root" },
		"a person as a machine":    func(g *signin.Grant) { g.Kind = access.Machine },
		"a machine as a person":    func(g *signin.Grant) { g.Caller = "machine:ci" },
		"no prefix":                func(g *signin.Grant) { g.Caller = "ann" },
		"no name":                  func(g *signin.Grant) { g.Caller = "person:" },
		"other letters":            func(g *signin.Grant) { g.Caller = "person:Ann" },
		"another alphabet":         func(g *signin.Grant) { g.Caller = "person:\u0430nn" },
		"a space":                  func(g *signin.Grant) { g.Caller = "person:ann " },
		"a second line":            func(g *signin.Grant) { g.Caller = "person:ann\n" },
		"a long name":              func(g *signin.Grant) { g.Caller = "person:" + strings.Repeat("a", 65) },
		"no use":                   func(g *signin.Grant) { g.Use = "" },
		"an unknown use":           func(g *signin.Grant) { g.Use = "all" },
		"a session, not signed in": func(g *signin.Grant) { g.Use = signin.UseSession },
		"no life":                  func(g *signin.Grant) { g.Life = 0 },
		"a life without end":       func(g *signin.Grant) { g.Life = signin.MaxLife + 1 },
		"no role":                  func(g *signin.Grant) { g.Roles = nil },
		"an unknown role":          func(g *signin.Grant) { g.Roles = []access.Role{access.Viewer, "god"} },
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
	revoked := func() error { _, err := c.EndMember(t.Context(), admin, "person:bob"); return err }
	bob := access.Caller{ID: "person:bob", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	if err := errors.Join(issue(admin, "person:bob"), issue(admin, "person:ann"), issue(admin, "person:bob"), revoked(), issue(access.Internal("recover"), "person:bob")); err != nil {
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
			Caller string     `json:"caller"`
			Again  *bool      `json:"again"`
			Ended  *time.Time `json:"ended"`
		}
		f, err := wire.DecodeFact(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(f.Data, &said); err == nil && said.Ended != nil {
			got = append(got, "end")
			continue
		} else if err != nil || said.Again == nil || said.Caller != subject {
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
	if s := strings.Join(got, ", "); s != "person:bob, person:ann, person:bob again, end, person:bob again" {
		t.Errorf("the ledger says: %s", s)
	}
}

// A name that is a member's of another kind, from whatever time, is not given away.
func TestANameOfAnotherKindIsNotIssued(t *testing.T) {
	db, c, admin := credentials(t)
	put(t, db, "x", signin.Member{ID: "person:bob", Kind: access.Machine})
	if _, err := c.Issue(t.Context(), admin, grantTo("person:bob")); fault.KindOf(err) != fault.Conflict {
		t.Errorf("%v", err)
	}
	if n := facts(t, db); n != 1 {
		t.Errorf("%d facts", n)
	}
}

// put stores a member and a token of theirs as nobody would be allowed to.
func put(t *testing.T, db *store.DB, secret string, m signin.Member) {
	t.Helper()
	if err := db.IssueCredential(t.Context(), m, signin.Credential{
		Hash: sha256.Sum256([]byte(secret)), Use: signin.UseToken, Caller: m.ID, Expires: time.Now().Add(time.Hour),
	}, false, func(bool) (ledger.Fact, error) {
		return ledger.New(ledger.KindAccessChanged, time.Now(), "test", m.ID, nil, []byte("{}")), nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A secret that was stored for the system before that was refused opens nothing.
func TestAStoredSecretOfTheSystemIsNone(t *testing.T) {
	db, c, _ := credentials(t)
	for kind, want := range map[access.Kind]bool{access.Person: true, access.Machine: true, access.System: false, access.Device: false, "": false} {
		secret := "hmk_" + string(kind)
		put(t, db, secret, signin.Member{ID: "x:" + string(kind), Kind: kind})
		if who, err := c.Authenticate(t.Context(), secret); (err == nil) != want {
			t.Errorf("kind %q: %+v, %v", kind, who, err)
		}
		if _, _, err := c.Begin(t.Context(), secret); (err == nil) != want {
			t.Errorf("kind %q begins a session: %v", kind, err)
		}
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// What a member may do changes for every secret at once; nobody changes himself; who has ended may do nothing any more.
func TestRolesAreTheMembersAndEndWithHim(t *testing.T) {
	_, c, admin := credentials(t)
	ctx := t.Context()
	first := must(c.Issue(ctx, admin, grantTo("person:bob")))(t)
	g := grantTo("person:bob")
	g.Use = signin.UseOnce
	session, _, err := c.Begin(ctx, must(c.Issue(ctx, admin, g))(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetRoles(ctx, admin, "person:bob", []access.Role{access.Operator}, []string{"pump"}); err != nil {
		t.Fatal(err)
	}
	bob := must(c.Authenticate(ctx, first))(t)
	if who := must(c.Caller(ctx, session))(t); !who.Has(access.Operator) || who.Has(access.Viewer) || !bob.Has(access.Operator) || bob.Scope[0] != "pump" {
		t.Errorf("%+v, %+v", who, bob)
	}
	boss := access.Caller{ID: "person:bob", Kind: access.Person, Roles: []access.Role{access.Admin}}
	if _, err := c.SetRoles(ctx, boss, "person:bob", []access.Role{access.Security}, nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("his own roles: %v", err)
	}
	if _, err := c.EndMember(ctx, boss, "person:bob"); fault.KindOf(err) != fault.Denied {
		t.Errorf("his own end: %v", err)
	}
	if _, err := c.SetRoles(ctx, bob, "person:ann", []access.Role{access.Admin}, nil); fault.KindOf(err) != fault.Denied {
		t.Errorf("an operator gives roles: %v", err)
	}
	if _, err := c.EndMember(ctx, admin, "person:bob"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Issue(ctx, admin, grantTo("person:bob")); fault.KindOf(err) != fault.Conflict {
		t.Errorf("who has ended is given a token again: %v", err)
	}
	for name, err := range map[string]error{
		"token": func() error { _, err := c.Authenticate(ctx, first); return err }(), "session": func() error { _, err := c.Caller(ctx, session); return err }(),
	} {
		if fault.KindOf(err) != fault.Denied {
			t.Errorf("the %s of who has ended: %v", name, err)
		}
	}
}

// One's own secrets can be listed and revoked, others' only by who manages access; what is listed opens nothing.
func TestSecretsAreListedAndRevokedOneByOne(t *testing.T) {
	_, c, admin := credentials(t)
	ctx := t.Context()
	token := must(c.Issue(ctx, admin, grantTo("person:bob")))(t)
	other := must(c.Issue(ctx, admin, grantTo("person:bob")))(t)
	bob := must(c.Authenticate(ctx, token))(t)
	ann := access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Operator}}
	held := must(c.Held(ctx, bob, "person:bob"))(t)
	if len(held) != 2 {
		t.Fatalf("%d secrets", len(held))
	}
	if _, err := c.Held(ctx, ann, "person:bob"); fault.KindOf(err) != fault.Denied {
		t.Errorf("another's: %v", err)
	}
	sum := sha256.Sum256([]byte(other))
	id := signin.Credential{Hash: sum}.ID()
	if err := c.Revoke(ctx, ann, "person:bob", id); fault.KindOf(err) != fault.Denied {
		t.Errorf("another's: %v", err)
	}
	if err := c.Revoke(ctx, bob, "person:bob", id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Authenticate(ctx, other); err == nil {
		t.Error("it still works")
	}
	if _, err := c.Authenticate(ctx, token); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if err := c.Revoke(ctx, bob, "person:bob", id); fault.KindOf(err) != fault.NotFound {
		t.Errorf("again: %v", err)
	}
}

// What cannot be undone needs more than an open browser; a token is its own proof.
func TestStepUp(t *testing.T) {
	db, _, _ := credentials(t)
	guard := must(access.NewGuard(db))(t)
	device := access.Resource{Type: "device", ID: "d", Product: "pump"}
	who := access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "session"}
	err := guard.Check(t.Context(), who, access.DeviceRetire, device)
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != "access.step-up" {
		t.Errorf("an open browser: %v", err)
	}
	if err := guard.Check(t.Context(), who, access.DeviceRead, device); err != nil {
		t.Errorf("reading needs no new proof: %v", err)
	}
	who.Fresh = true
	if err := guard.Check(t.Context(), who, access.DeviceRetire, device); err != nil {
		t.Errorf("just proven: %v", err)
	}
	who.Fresh, who.Via = false, "token"
	if err := guard.Check(t.Context(), who, access.DeviceRetire, device); err != nil {
		t.Errorf("a token: %v", err)
	}
	who.Roles, who.Via, who.Fresh = []access.Role{access.Viewer}, "session", true
	if err := guard.Check(t.Context(), who, access.DeviceRetire, device); fault.KindOf(err) != fault.Denied {
		t.Errorf("a proof is no permission: %v", err)
	}
}

// Who took a token has no more of it than the token: its sessions end with it, and none of them leaves a passkey behind.
func TestASessionOfATokenEndsWithIt(t *testing.T) {
	_, c, admin := credentials(t)
	ctx := t.Context()
	token := must(c.Issue(ctx, admin, grantTo("person:bob")))(t)
	session, _, err := c.Begin(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	link := grantTo("person:bob")
	link.Use = signin.UseOnce
	own, _, err := c.Begin(ctx, must(c.Issue(ctx, admin, link))(t))
	if err != nil {
		t.Fatal(err)
	}
	bob := must(c.Caller(ctx, session))(t)
	var f *fault.Fault
	if err := c.AddPasskey(ctx, bob, []byte("key"), []byte("{}"), "mine"); !errors.As(err, &f) || f.Code != "passkey.token" {
		t.Errorf("a passkey from a token's session: %v", err)
	}
	if err := c.AddPasskey(ctx, must(c.Caller(ctx, own))(t), []byte("key"), []byte("{}"), "mine"); err != nil {
		t.Errorf("a passkey from a link's session: %v", err)
	}
	if err := c.Revoke(ctx, admin, "person:bob", signin.Credential{Hash: sha256.Sum256([]byte(token))}.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Caller(ctx, session); fault.KindOf(err) != fault.Denied {
		t.Errorf("the session of a revoked token: %v", err)
	}
	if _, err := c.Caller(ctx, own); err != nil {
		t.Errorf("another session: %v", err)
	}
}
