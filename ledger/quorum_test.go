package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// fake is a witness that answers as it is told.
type fake struct {
	name   string
	keys   []CosignerKey
	answer func(ctx context.Context, n Note) (string, error)
}

func (f fake) Name() string { return f.name }

func (f fake) Keys() (out []VerifierKey) {
	for _, k := range f.keys {
		out = append(out, k.VerifierKey)
	}
	return out
}

func (f fake) Cosign(ctx context.Context, _ uint64, _ [][32]byte, note []byte) ([]byte, error) {
	n, err := ParseNote(note)
	if err != nil {
		return nil, err
	}
	out, err := f.answer(ctx, n)
	return []byte(out), err
}

// honest is a witness that signs, with a key of each number.
func honest(name string, keys ...CosignerKey) fake {
	return fake{name, keys, func(_ context.Context, n Note) (out string, _ error) {
		for _, k := range keys {
			line, err := k.Line(n, time.Now())
			if err != nil {
				return "", err
			}
			out += line
		}
		return out, nil
	}}
}

func ed(name string, b byte) CosignerKey { return Ed25519Cosigner(name, newTestKey(b)) }

// collected asks witnesses for a quorum, and tells how long that took.
func collected(t *testing.T, quorum int, witnesses ...Cosigner) (lines string, p *Publisher, took time.Duration, err error) {
	t.Helper()
	p = NewPublisher(PublisherConfig{Log: Events, Origin: "log.example", Witnesses: witnesses, Quorum: quorum, Logger: slog.New(slog.DiscardHandler)})
	note, err := SignCheckpoint("log.example", State{Size: 7, Root: [32]byte{1}}, newTestKey(1))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	out, err := p.collect(t.Context(), State{Size: 7, Root: [32]byte{1}}, note)
	return strings.TrimPrefix(string(out), string(note)), p, time.Since(begun), err
}

func TestAWitnessThatIsNoGoodHoldsUpNobody(t *testing.T) {
	good := ed("bad.example", 9)
	with := func(answer func(ctx context.Context, n Note) (string, error)) fake {
		return fake{"bad.example", []CosignerKey{good}, answer}
	}
	line := func(k CosignerKey, at time.Duration) fake {
		return with(func(_ context.Context, n Note) (string, error) { return k.Line(n, time.Now().Add(at)) })
	}
	for name, bad := range map[string]fake{
		"dead": with(func(ctx context.Context, _ Note) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}),
		"deaf to the end": with(func(context.Context, Note) (string, error) {
			time.Sleep(time.Hour)
			return "", nil
		}),
		"slow": with(func(_ context.Context, n Note) (string, error) {
			at := time.Now()
			time.Sleep(15 * time.Second)
			return good.Line(n, at)
		}),
		"refusing":           with(func(context.Context, Note) (string, error) { return "", errors.New("403") }),
		"silent":             with(func(context.Context, Note) (string, error) { return "", nil }),
		"talking nonsense":   with(func(context.Context, Note) (string, error) { return "<html>", nil }),
		"of another key":     line(ed("bad.example", 8), 0),
		"of another name":    line(ed("w1.example", 9), 0),
		"of an hour ago":     line(good, -time.Hour),
		"of tomorrow":        line(good, 24*time.Hour),
		"wrong about a size": with(func(context.Context, Note) (string, error) { return "", &OldSizeError{} }),
		"signing something else": with(func(_ context.Context, n Note) (string, error) {
			n.Body = strings.Replace(n.Body, "\n7\n", "\n8\n", 1)
			return good.Line(n, time.Now())
		}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := honest("w1.example", ed("w1.example", 2)), honest("w2.example", ed("w2.example", 3))
				lines, p, took, err := collected(t, 2, a, bad, b)
				if err != nil || strings.Count(lines, "\n") != 2 || strings.Contains(lines, "bad") || took > witnessGrace {
					t.Errorf("two others are enough: %q, %v, after %s", lines, err, took)
				}
				if s := p.Standing().Witnesses; s["bad.example"].Err == nil || s["w1.example"].Err != nil || s["w2.example"].Err != nil {
					t.Errorf("who is no good: %v", s)
				}
				if lines, _, took, err := collected(t, 3, a, bad, b); !errors.Is(err, wire.ErrNotWitnessed) || lines != "" || took > witnessWait ||
					!strings.Contains(err.Error(), "witness bad.example: ") {
					t.Errorf("all are needed: %q, %v, after %s", lines, err, took)
				}
				time.Sleep(2 * time.Hour) // whoever is late ends as well
			})
		})
	}
}

// The quorum is of different keys, and of those that devices verify.
func TestWhatCountsForAQuorum(t *testing.T) {
	pq := MLDSA44Cosigner("pq.example", newTestPQ(t, 4))
	both := honest("both.example", ed("both.example", 5), MLDSA44Cosigner("both.example", newTestPQ(t, 5)))
	half := honest("both.example", both.keys...)
	half.answer = func(_ context.Context, n Note) (string, error) { return both.keys[1].Line(n, time.Now()) }
	one := honest("w1.example", ed("w1.example", 2))
	for _, c := range []struct {
		name      string
		witnesses []Cosigner
		counts    int
		lines     int
	}{
		{"one", []Cosigner{one}, 1, 1},
		{"two", []Cosigner{one, honest("w2.example", ed("w2.example", 3))}, 2, 2},
		{"one key under two names", []Cosigner{one, honest("w2.example", ed("w2.example", 2))}, 1, 2},
		{"one with keys of two kinds", []Cosigner{both}, 1, 2},
		{"one that signs with one of its two keys", []Cosigner{one, half}, 1, 1},
		{"one with a key that is too large for devices", []Cosigner{one, honest("pq.example", pq)}, 1, 2},
	} {
		lines, _, _, err := collected(t, c.counts, c.witnesses...)
		if err != nil || strings.Count(lines, "\n") != c.lines {
			t.Errorf("%s: %d lines, want %d: %v", c.name, strings.Count(lines, "\n"), c.lines, err)
		}
		if _, _, _, err := collected(t, c.counts+1, c.witnesses...); !errors.Is(err, wire.ErrNotWitnessed) {
			t.Errorf("%s counts for more than %d: %v", c.name, c.counts, err)
		}
	}
}

// What fails is told for as long as it does, with since when.
func TestHowALogStands(t *testing.T) {
	p := NewPublisher(PublisherConfig{})
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	broken := fmt.Errorf("disk full")
	for _, c := range []struct {
		err   error
		now   int64
		since time.Time
	}{{nil, 1, time.Time{}}, {broken, 2, at(2)}, {broken, 3, at(2)}, {nil, 4, time.Time{}}, {broken, 5, at(5)}} {
		p.tried(c.err, at(c.now))
		if s := p.Standing(); !s.Since.Equal(c.since) || !errors.Is(s.Err, c.err) {
			t.Errorf("at %d: %+v", c.now, s)
		}
	}
}
