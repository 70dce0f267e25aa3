package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
)

type silent struct{}

func (silent) Record(context.Context, access.Decision) error { return nil }

// shelf is store, vault and field.
type shelf struct {
	keys  []keyring.Key
	facts []ledger.Fact
	made  int
	need  map[string]int // by name of the key's role
	lost  bool           // the next write fails
}

func (s *shelf) OnlineKeys(context.Context) ([]keyring.Key, error) { return slices.Clone(s.keys), nil }

func (s *shelf) PutOnlineKey(_ context.Context, k keyring.Key, f ledger.Fact) error {
	if s.lost {
		return errors.New("disk full")
	}
	s.keys, s.facts = append(s.keys, k), append(s.facts, f)
	return nil
}

func (s *shelf) RetireOnlineKey(_ context.Context, k keyring.Key, f ledger.Fact) error {
	i := slices.IndexFunc(s.keys, func(o keyring.Key) bool { return o.Name == k.Name })
	if i < 0 {
		s.keys = append(s.keys, k)
	} else {
		s.keys[i].Retired = k.Retired
	}
	s.facts = append(s.facts, f)
	return nil
}

func (s *shelf) Make(_ keyring.Role, _, name string) ([]byte, error) {
	s.made++
	return fmt.Appendf(nil, "public %s", name), nil
}

func (s *shelf) Public(_ keyring.Role, name string) ([]byte, error) {
	return fmt.Appendf(nil, "public %s", name), nil
}

func (s *shelf) NeedKey(_ context.Context, role keyring.Role, key []byte, others [][]byte) (int, bool, error) {
	if role == keyring.Server {
		return 0, false, nil
	}
	return s.need[string(key)], true, nil
}

func newRing(t *testing.T) (*shelf, *keyring.Service) {
	t.Helper()
	guard, err := access.NewGuard(silent{})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{need: map[string]int{}}
	first := map[keyring.Role]string{}
	for _, r := range keyring.Roles() {
		first[r] = string(r)
	}
	ring := keyring.New(keyring.Config{Guard: guard, Store: s, Vault: s, Field: s, First: first})
	if err := ring.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, ring
}

func code(err error) string {
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return f.Code
	}
	return fmt.Sprint(err)
}

// A key is replaced in order: the new beside the old, the old retired when nobody needs it, and never the last.
func TestAKeyIsReplacedInOrder(t *testing.T) {
	s, ring := newRing(t)
	ctx, caller := t.Context(), access.Internal("test")
	retire := func(name string, force bool) string {
		_, err := ring.Retire(ctx, caller, name, force, "test")
		return code(err)
	}
	if got := retire("directive", true); got != "key.last" {
		t.Errorf("the only key: %s", got)
	}
	if k, err := ring.Rotate(ctx, caller, keyring.Directive, "", "stolen"); err != nil || k.Name != "directive-2" {
		t.Fatalf("%+v, %v", k, err)
	}
	if got := ring.Names(keyring.Directive); !slices.Equal(got, []string{"directive-2", "directive"}) {
		t.Errorf("newest first: %v", got)
	}
	s.need["public directive"] = 7
	if got := retire("directive", false); got != "key.needed" {
		t.Errorf("needed by 7 devices: %s", got)
	}
	if got := retire("directive", true); got != "<nil>" {
		t.Errorf("forced: %s", got)
	}
	if got := retire("directive", true); got != "key.retired" {
		t.Errorf("twice: %s", got)
	}
	if got := retire("directive-2", true); got != "key.last" {
		t.Errorf("the last one left: %s", got)
	}
	if got := ring.Names(keyring.Directive); !slices.Equal(got, []string{"directive-2"}) || len(ring.Retired(keyring.Directive)) != 1 {
		t.Errorf("used %v", got)
	}
	kinds := []ledger.Kind{s.facts[0].Kind, s.facts[len(s.facts)-1].Kind}
	if len(s.facts) != 2 || kinds[0] != ledger.KindKeyCreated || kinds[1] != ledger.KindKeyRetired {
		t.Errorf("facts %v", kinds)
	}
	for n := 3; n <= 5; n++ {
		if _, err := ring.Rotate(ctx, caller, keyring.Directive, "", "test"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ring.Rotate(ctx, caller, keyring.Directive, "", "test"); code(err) != "key.many" {
		t.Errorf("a fifth key at once: %v", err)
	}
}

func TestWhoMayNotReplaceKeys(t *testing.T) {
	s, ring := newRing(t)
	for _, role := range access.Roles() {
		caller := access.Caller{Kind: access.Person, ID: "person:x", Roles: []access.Role{role}}
		_, err := ring.Rotate(t.Context(), caller, keyring.Directive, "", "test")
		if allowed := role == access.Admin; (err == nil) != allowed {
			t.Errorf("%s: %v", role, err)
		}
	}
	if s.made != 1 {
		t.Errorf("%d keys were made for one who may", s.made)
	}
	if _, err := ring.Rotate(t.Context(), access.Internal("test"), "nonsense", "", "test"); code(err) != "key.role" {
		t.Errorf("%v", err)
	}
	s.lost = true
	before := ring.Names(keyring.Order)
	if _, err := ring.Rotate(t.Context(), access.Internal("test"), keyring.Order, "", "test"); err == nil {
		t.Error("a key that is not stored counts")
	}
	if got := ring.Names(keyring.Order); !slices.Equal(got, before) {
		t.Errorf("used: %v", got)
	}
}
