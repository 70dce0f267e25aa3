package store_test

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
)

const issuer = "https://login.acme.example"

// Of many who bring one bound email at one time, under as many names, one is the first, and stays it.
func TestOneBoundEmailIsOnePersons(t *testing.T) {
	_, c, _ := credentials(t)
	system := access.Internal("test")
	if _, err := c.Issue(t.Context(), system, grantTo("person:alice")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.BindIdentity(t.Context(), system, "person:alice", issuer, "", "alice@acme.example"); err != nil {
		t.Fatal(err)
	}
	begin := func(n int) error {
		_, _, err := c.BeginByIdentity(t.Context(), signin.Assertion{Issuer: issuer, Subject: strconv.Itoa(n), Email: "alice@acme.example", Proven: time.Now()})
		return err
	}
	var wg sync.WaitGroup
	var in, first atomic.Int64
	for n := range 16 {
		wg.Go(func() {
			if begin(n) == nil {
				in.Add(1)
				first.Store(int64(n))
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Fatalf("%d got in", in.Load())
	}
	for n := range 16 {
		if err := begin(n); (err == nil) != (int64(n) == first.Load()) {
			t.Errorf("%d afterwards: %v; the first was %d", n, err, first.Load())
		}
	}
}

// A new way in to somebody else's power takes a second person, once there is one to ask; one's own does not.
func TestABindingTakesTwo(t *testing.T) {
	_, c, admin := credentials(t)
	admin.Via = "token"
	system := access.Internal("test")
	for _, who := range []string{admin.ID, "person:second", "person:olga"} {
		g := grantTo(who)
		if g.Roles = []access.Role{access.Admin}; who == "person:olga" {
			g.Roles = []access.Role{access.Operator}
		}
		if _, err := c.Issue(t.Context(), system, g); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.BindIdentity(t.Context(), admin, "person:olga", issuer, "olga", "")
	if _, ok := errors.AsType[*access.SecondNeededError](err); !ok {
		t.Errorf("alone: %v", err)
	}
	admin.Seconded = "person:second"
	if _, err := c.BindIdentity(t.Context(), admin, "person:olga", issuer, "olga", ""); err != nil {
		t.Errorf("with a second person: %v", err)
	}
	admin.Seconded = ""
	if _, err := c.BindIdentity(t.Context(), admin, admin.ID, issuer, "root", ""); err != nil {
		t.Errorf("one's own: %v", err)
	}
}
