package device

import (
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// A proof is given out for a moment, to whom it is good for: the same bundle's key, a tree no smaller than the one that the device has seen.
func TestAProofIsGivenOutForAMoment(t *testing.T) {
	var p prepared
	made, size := 0, uint64(10)
	now := time.Unix(1_700_000_000, 0)
	held, other := wire.Bundle{MaxAge: 3600, Control: wire.LogTrust{Key: []byte("a")}}, wire.Bundle{MaxAge: 3600, Control: wire.LogTrust{Key: []byte("b")}}
	get := func(what string, b wire.Bundle, seen uint64, at time.Time) uint64 {
		l, err := p.get(what, b, wire.Checkin{TreeSize: seen}, at, func() (wire.Logged, error) {
			made++
			return wire.Logged{Proof: wire.Proof{Size: size}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return l.Proof.Size
	}
	for i, c := range []struct {
		what string
		b    wire.Bundle
		seen uint64
		at   time.Duration
		made int
	}{
		{"x", held, 0, 0, 1},
		{"x", held, 10, 29 * time.Second, 1},
		{"y", held, 0, 0, 2},
		{"x", other, 0, 0, 3},
		{"x", held, 11, 0, 4}, // it has seen more than that proof's tree
		{"x", held, 0, 31 * time.Second, 5},
		{"x", held, 0, -time.Hour, 6}, // the clock was set back
	} {
		if get(c.what, c.b, c.seen, now.Add(c.at)); made != c.made {
			t.Fatalf("step %d: %d proofs, want %d", i, made, c.made)
		}
		size++
	}
	short := wire.Bundle{MaxAge: 8, Control: wire.LogTrust{Key: []byte("c")}}
	get("x", short, 0, now)
	if before := made; get("x", short, 0, now.Add(3*time.Second)) == 0 || made == before {
		t.Error("a proof that is believed for 8 seconds was given out after 3")
	}
	if _, err := p.get("z", held, wire.Checkin{}, now, func() (wire.Logged, error) { return wire.Logged{}, errors.New("not yet") }); err == nil {
		t.Error("no error")
	}
	if before := made; get("z", held, 0, now) == 0 || made == before {
		t.Error("that there was none is remembered")
	}
}
