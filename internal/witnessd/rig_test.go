package witnessd_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/witnessd"
	"github.com/hallmark-iot/hallmark/ledger"
)

type signer struct{ ed25519.PrivateKey }

func newSigner(b byte) signer {
	return signer{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.PrivateKey, text), nil }

func (s signer) Public() ed25519.PublicKey { return s.PrivateKey.Public().(ed25519.PublicKey) }

func (s signer) key(name string) ledger.VerifierKey {
	return ledger.VerifierKey{Name: name, Type: ledger.TypeEd25519, Key: s.Public()}
}

func remove(path string) error { return os.Remove(path) }

// settings are witness.json as the rig made it.
func settings(t *testing.T, r *rig) []byte {
	t.Helper()
	s, err := r.dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	s.Logs = []witnessd.Log{{Origin: origin, Keys: []ledger.VerifierKey{r.log.key(origin)}}}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
