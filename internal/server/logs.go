package server

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Names of the keys an instance keeps online.
const (
	keyLogControl  = "log-control"
	keyLogEvents   = "log-events"
	keyDirective   = "directive"
	keyOperational = "operational-ca"
	keyProductCA   = "product-ca"
	keyOrder       = "order"
	keyServer      = "server-tls"
	keyInfra       = "infra-ca"
	keyBucket      = bucketPrefix + bucketName
	keyVault       = "vault" // AES-256 key under which small secrets of the database are sealed

	bucketPrefix = "bucket-"
	bucketName   = "default" // the retention bucket devices seal their data for
)

// Signers finds keys by name; the soft key store is one.
type Signers interface {
	Signer(name string) (crypto.Signer, error)
}

// edSigner signs a log's or a witness's texts with an Ed25519 key.
type edSigner struct {
	key crypto.Signer
	pub ed25519.PublicKey
}

func newEdSigner(keys Signers, name string) (edSigner, error) {
	k, err := keys.Signer(name)
	if err != nil {
		return edSigner{}, err
	}
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		return edSigner{}, fmt.Errorf("key %q is %T, want Ed25519", name, k.Public())
	}
	return edSigner{key: k, pub: pub}, nil
}

func (s edSigner) Sign(text []byte) ([]byte, error) {
	return s.key.Sign(rand.Reader, text, crypto.Hash(0))
}

func (s edSigner) Public() ed25519.PublicKey { return s.pub }

// logs are the two logs of an instance with their witnesses.
type logs struct {
	reader     *ledger.Reader
	sequencers []*ledger.Sequencer
	publishers []*ledger.Publisher
	trust      trustFile
	files      map[string]ledger.Exporter // by log: where /log/ serves from
}

// trustFile is what an outsider needs to verify the logs; `hallmark log verify` reads it.
type trustFile struct {
	Logs      []trustedLog         `json:"logs"`
	Witnesses []ledger.VerifierKey `json:"witnesses"`
	Quorum    int                  `json:"quorum"`
}

type trustedLog struct {
	Name   string            `json:"name"`
	Origin string            `json:"origin"`
	Key    ed25519.PublicKey `json:"key"`
}

func (c Config) origin(log ledger.Log) string { return c.Instance + "/" + string(log) }

// openLogs wires the logs, and refuses when signing on would fork one of them. published is called after each publication.
func openLogs(ctx context.Context, l Layout, cfg Config, db *store.DB, keys Signers, ring logKeys, log *slog.Logger, published func()) (*logs, error) {
	out := &logs{reader: ledger.NewReader(db), trust: trustFile{Quorum: cfg.Quorum}, files: map[string]ledger.Exporter{}}
	signers := map[ledger.Log]logSigners{}
	for _, name := range []ledger.Log{ledger.Control, ledger.Events} {
		s, err := ring(keys, name)
		if err != nil {
			return nil, err
		}
		signers[name] = s
		out.trust.Logs = append(out.trust.Logs, trustedLog{Name: string(name), Origin: cfg.origin(name), Key: s.newest.pub})
	}
	cosigners, err := openWitnesses(ctx, l, cfg, keys, out.trust.Logs, signers)
	if err != nil {
		return nil, err
	}
	for _, w := range cosigners {
		out.trust.Witnesses = append(out.trust.Witnesses, w.Keys()...)
	}
	for _, name := range []ledger.Log{ledger.Control, ledger.Events} {
		exports, err := cfg.exports(l, name)
		if err != nil {
			return nil, err
		}
		out.files[string(name)] = exports[0]
		p := ledger.NewPublisher(ledger.PublisherConfig{
			Store: db, Log: name, Origin: cfg.origin(name), Key: signers[name].newest,
			Others: signers[name].others, Former: signers[name].former, Witnesses: cosigners, Quorum: cfg.Quorum, Logger: log,
			Export: exports[0], Also: exports[1:], Published: published, Failpoint: failpoint.Hit,
		})
		if err := p.Check(ctx); err != nil {
			return nil, err
		}
		out.publishers = append(out.publishers, p)
		out.sequencers = append(out.sequencers, ledger.NewSequencer(db, name, p.Wake, log))
	}
	db.OnAppend(func() {
		for _, s := range out.sequencers {
			s.Wake()
		}
	})
	return out, out.saveTrust(l)
}

func (x *logs) saveTrust(l Layout) error {
	data, err := json.MarshalIndent(x.trust, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(l.Logs(), "trust.json"), append(data, '\n'), 0o644)
}

// run sequences and publishes until ctx ends.
func (x *logs) run(ctx context.Context, g *errgroup.Group) {
	for i := range x.sequencers {
		g.Go(func() error { return x.sequencers[i].Run(ctx) })
		g.Go(func() error { return x.publishers[i].Run(ctx) })
	}
}

// settle brings everything appended so far under a witnessed checkpoint; no loops may be running.
func (x *logs) settle(ctx context.Context) error {
	for i := range x.sequencers {
		for {
			n, err := x.sequencers[i].Step(ctx)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		if err := x.publishers[i].Step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// trusted is what devices are told of the logs, in their trust bundle.
func (x *logs) trusted() (control, events wire.LogTrust, witnesses []wire.NamedKey) {
	control = wire.LogTrust{Origin: x.trust.Logs[0].Origin, Key: x.trust.Logs[0].Key}
	events = wire.LogTrust{Origin: x.trust.Logs[1].Origin, Key: x.trust.Logs[1].Key}
	for _, k := range x.trust.Witnesses {
		if k.Type == ledger.TypeCosignature { // the other kind is too large for a proof to a device
			witnesses = append(witnesses, wire.NamedKey{Name: k.Name, Key: k.Key})
		}
	}
	return control, events, witnesses
}
