package ledger

import (
	"crypto/ed25519"
	"testing"
)

type testKey struct{ ed25519.PrivateKey }

func (k testKey) Sign(text []byte) ([]byte, error) { return ed25519.Sign(k.PrivateKey, text), nil }

func (k testKey) Public() ed25519.PublicKey { return k.PrivateKey.Public().(ed25519.PublicKey) }

func FuzzParseCheckpoint(f *testing.F) {
	key := testKey{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	want := State{Size: 7, Root: [32]byte{1}}
	note, err := SignCheckpoint("log.example", want, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(note)
	f.Add([]byte("log.example\n7\nAA==\n\n\u2014 log.example AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseCheckpoint(b, "log.example", key.Public()); err == nil && s != want {
			t.Fatalf("a checkpoint nobody signed: %+v", s)
		}
		_, _, _ = SplitNote(b)
	})
}
