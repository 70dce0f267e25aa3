package server

import (
	"context"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// openWitnesses opens the witnesses of the logs, those in this process and those elsewhere.
func openWitnesses(ctx context.Context, l Layout, cfg Config, keys Signers, known []trustedLog) (out []ledger.Cosigner, err error) {
	for _, name := range cfg.Witnesses {
		w, err := openLocalWitness(ctx, l, cfg, keys, name, known)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

func (c Config) witnessName(name string) string { return c.Instance + "/" + name }

func openLocalWitness(ctx context.Context, l Layout, cfg Config, keys Signers, name string, known []trustedLog) (*witness.Witness, error) {
	s, err := newEdSigner(keys, name)
	if err != nil {
		return nil, err
	}
	c := witness.Config{Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner(cfg.witnessName(name), s)}}
	for _, log := range known {
		c.Logs = append(c.Logs, witness.Log{
			Origin: log.Origin, Keys: []ledger.VerifierKey{log.verifierKey()}, Memory: durable.File{Path: l.Witness(name, log.Name)},
		})
	}
	return witness.Open(ctx, c)
}

// verifierKey is the log's key in the form of notes.
func (t trustedLog) verifierKey() ledger.VerifierKey {
	return ledger.VerifierKey{Name: t.Origin, Type: ledger.TypeEd25519, Key: t.Key}
}
