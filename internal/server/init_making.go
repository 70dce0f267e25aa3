package server

import (
	"context"
	"crypto"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// making is an instance that is being made: it makes the keys it will run with and asks for what only offline keys can give (ask); with
// the answer it comes to be (complete).
type making struct {
	l       Layout
	o       InitOptions
	db      *store.DB
	guard   *access.Guard
	checked ceremony.Checked
	open    *logs
	made    Made

	facts []ledger.Fact // of what happened before there was a log to write it to
}

func (m *making) note(kind ledger.Kind, subject string, data []byte) {
	m.facts = append(m.facts, ledger.New(kind, m.o.Now, "host:init", subject, nil, data))
}

func (m *making) noteKey(name, purpose string, spki []byte) error {
	data, err := json.Marshal(map[string]any{"name": name, "purpose": purpose, "spki": spki})
	if err != nil {
		return err
	}
	m.note(ledger.KindKeyCreated, name, data)
	return nil
}

// onlineKeys are the ECDSA keys of a running instance.
var onlineKeys = [...]struct{ name, purpose string }{
	{keyProductCA, "signs order CAs"},
	{keyOperational, "signs devices' operational certificates"},
	{keyInfra, "signs the servers' certificates"},
	{keyDirective, "directive authority"},
	{keyOrder, "signs production orders"},
	{keyServer, "TLS of this server"},
	{keyVerdict, verdictPurpose},
}

// ask makes the online keys, and the request for what they need from offline.
func (m *making) ask(ctx context.Context) ([]byte, error) {
	if err := m.keys(); err != nil {
		return nil, err
	}
	r := wire.CeremonyRequest{
		OEM: m.o.Config.OEM, Instance: m.o.Config.Instance, Purpose: "a new instance and its first product, " + m.o.Product.ID, Issued: uint64(m.o.Now.Unix()),
		Approvers: m.o.Approvers, Threshold: m.o.Threshold, NewRoot: true,
	}
	for _, ca := range []struct{ key, role, product string }{
		{keyProductCA, wire.CAProduct, m.o.Product.ID}, {keyOperational, wire.CAOperational, ""}, {keyInfra, wire.CAInfra, ""},
	} {
		k, err := m.o.Online.Signer(ca.key)
		if err != nil {
			return nil, err
		}
		env, err := wire.SignCARequest(wire.CARequest{
			Role: ca.role, OEM: r.OEM, Product: ca.product, Instance: r.Instance, Purpose: r.Purpose, Issued: r.Issued,
		}, k)
		if err != nil {
			return nil, err
		}
		r.CAs = append(r.CAs, env)
	}
	draft, err := m.draft(ctx)
	if err != nil {
		return nil, err
	}
	r.Draft = &draft
	return wire.EncodeCeremonyRequest(r)
}

func (m *making) keys() error {
	for _, k := range onlineKeys {
		if _, err := m.o.Online.GenerateP256(k.name); err != nil {
			return err
		}
	}
	for _, name := range m.edKeys() {
		if _, err := m.o.Online.GenerateEd25519(name); err != nil {
			return err
		}
	}
	bucket, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		return err
	}
	secret, err := bucket.Bytes()
	if err != nil {
		return err
	}
	vault := make([]byte, 32)
	if _, err := rand.Read(vault); err != nil {
		return err
	}
	return errors.Join(m.o.Online.PutSecret(keyBucket, secret), m.o.Online.PutSecret(keyVault, vault))
}

// edKeys are the keys of logs and witnesses.
func (m *making) edKeys() []string {
	return append([]string{keyLogControl, keyLogEvents}, m.o.Config.localWitnesses()...)
}

// draft is the first trust bundle without what comes from offline: approvers' keys, and the root's certificate.
func (m *making) draft(ctx context.Context) (wire.Bundle, error) {
	directive, err := m.spki(keyDirective)
	if err != nil {
		return wire.Bundle{}, err
	}
	secret, err := m.o.Online.Secret(keyBucket)
	if err != nil {
		return wire.Bundle{}, err
	}
	bucket, err := hpke.MLKEM768P256().NewPrivateKey(secret)
	if err != nil {
		return wire.Bundle{}, err
	}
	order, err := m.spki(keyOrder)
	if err != nil {
		return wire.Bundle{}, err
	}
	suites := []string{m.o.Product.Suite}
	if first := string(suite.P256); m.o.Product.Suite != first {
		suites = []string{first, m.o.Product.Suite} // the keys that an instance begins with are of it: a later bundle replaces them. The last is the one that devices make theirs of
	}
	control, events, witnesses, err := m.logTrust(ctx)
	if err != nil {
		return wire.Bundle{}, err
	}
	return wire.Bundle{
		Version: 1, Product: m.o.Product.ID, Directive: wire.KeySet{Keys: [][]byte{directive}, Threshold: 1},
		Control: control, Events: events, Witnesses: witnesses, Quorum: uint(m.o.Config.Quorum), MaxAge: uint64(m.o.Config.MaxAge),
		BootManagers: m.o.BootManagers, Suites: suites, Orders: &wire.KeySet{Keys: [][]byte{order}, Threshold: 1}, Issued: uint64(m.o.Now.Unix()),
		Telemetry: []wire.StreamKey{{Bucket: bucketName, KEM: bucket.KEM().ID(), Key: bucket.PublicKey().Bytes()}},
	}, nil
}

// logTrust is whom devices believe about the logs; there are none yet.
func (m *making) logTrust(ctx context.Context) (control, events wire.LogTrust, witnesses []wire.NamedKey, err error) {
	x, signers := &logs{trust: trustFile{Quorum: m.o.Config.Quorum}}, map[ledger.Log]logSigners{}
	for _, name := range []ledger.Log{ledger.Control, ledger.Events} {
		s, err := firstLogKeys(m.o.Online, name)
		if err != nil {
			return control, events, nil, err
		}
		signers[name] = s
		x.trust.Logs = append(x.trust.Logs, trustedLog{Name: string(name), Origin: m.o.Config.origin(name), Key: s.newest.pub})
	}
	cosigners, err := openWitnesses(ctx, m.l, m.o.Config, m.o.Online, x.trust.Logs, signers)
	if err != nil {
		return control, events, nil, err
	}
	for _, w := range cosigners {
		x.trust.Witnesses = append(x.trust.Witnesses, w.Keys()...)
	}
	control, events, witnesses = x.trusted()
	return control, events, witnesses, nil
}

func (m *making) spki(key string) ([]byte, error) {
	k, err := m.o.Online.Signer(key)
	if err != nil {
		return nil, err
	}
	return wire.SPKIOf(k.Public())
}

// complete makes the instance of what it asked and was answered.
func (m *making) complete(ctx context.Context, request []byte, answer wire.CeremonyAnswer) (made Made, err error) {
	if m.checked, err = ceremony.Check(request, answer); err != nil {
		return Made{}, fmt.Errorf("init: %w", err)
	}
	if m.db, err = openDatabase(ctx, m.l, m.o.Config); err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, m.db.Close()) }()
	if m.guard, err = access.NewGuard(m.db); err != nil {
		return Made{}, err
	}
	if err := m.history(); err != nil {
		return Made{}, fmt.Errorf("init: %w", err)
	}
	for _, step := range []func(context.Context) error{
		m.certificates, m.logs, func(ctx context.Context) error { return m.held(ctx, answer.Transcript) }, m.product, func(ctx context.Context) error { return m.bundle(ctx, answer.Bundle) }, m.admin,
	} {
		if err := step(ctx); err != nil {
			return Made{}, fmt.Errorf("init: %w", err)
		}
	}
	return m.made, m.o.Config.save(m.l)
}

// history tells what happened so far: keys and CAs.
func (m *making) history() error {
	for _, k := range onlineKeys {
		spki, err := m.spki(k.name)
		if err != nil {
			return err
		}
		if err := m.noteKey(k.name, k.purpose, spki); err != nil {
			return err
		}
	}
	for _, name := range m.edKeys() {
		spki, err := m.spki(name)
		if err != nil {
			return err
		}
		if err := m.noteKey(name, "signs checkpoints", spki); err != nil {
			return err
		}
	}
	for i, spki := range m.checked.Bundle.Root.Keys {
		if err := m.noteKey(ceremony.ApproverKey(m.o.Approvers[i]), "offline approver", spki); err != nil {
			return err
		}
	}
	for _, ca := range append([]*x509.Certificate{m.checked.Root}, m.checked.CAs...) {
		m.note(ledger.KindCACreated, ca.Subject.CommonName, ca.Raw)
	}
	return nil
}

// certificates are laid down where the server finds them, each beside a key that is its own.
func (m *making) certificates(context.Context) error {
	for i, name := range []string{keyProductCA, keyOperational, keyInfra} {
		k, err := m.o.Online.Signer(name)
		if err != nil {
			return err
		}
		ca := m.checked.CAs[i]
		if pub, ok := ca.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(k.Public()) {
			return fmt.Errorf("the certificate for %s is of another key than the one here", name)
		}
		if err := durable.WriteFile(m.l.Cert(name), ca.Raw, 0o644); err != nil {
			return err
		}
	}
	m.made.Root = sha256.Sum256(m.checked.Root.Raw)
	return durable.WriteFile(m.l.Cert(keyRoot), m.checked.Root.Raw, 0o644)
}

func (m *making) logs(ctx context.Context) error {
	err := m.db.Write(ctx, func(tx *store.Tx) error { //nolint:contextcheck // the transaction has a context of its own
		if err := vacant(tx); err != nil {
			return err
		}
		for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
			data, err := json.Marshal(map[string]string{"origin": m.o.Config.origin(log)})
			if err != nil {
				return err
			}
			if err := tx.Append(ledger.Genesis(log, m.o.Now, "host:init", m.o.Config.Instance, data)); err != nil {
				return err
			}
		}
		cfg := m.o.Config
		if cfg.CAToken != "" { // which token, and where its PIN is, is nobody's business who reads the log
			cfg.CAToken = pkcs11.Scheme
		}
		data, err := json.Marshal(cfg)
		if err != nil {
			return err
		}
		init := ledger.New(ledger.KindInitialised, m.o.Now, "host:init", m.o.Config.Instance, nil, data)
		return tx.Append(append([]ledger.Fact{init}, m.facts...)...)
	})
	if err != nil {
		return err
	}
	m.open, err = openLogs(ctx, m.l, m.o.Config, m.db, m.o.Online, firstLogKeys, slog.New(slog.DiscardHandler), nil)
	return err
}

func (m *making) product(ctx context.Context) error {
	_, err := product.New(m.guard, m.db, suiteIDs()).Create(ctx, access.Internal("init"), m.o.Product)
	return err
}

// bundle stores the first trust bundle. Nobody is asked for permission: the approvers' signatures are the permission.
func (m *making) bundle(ctx context.Context, envelope []byte) error {
	payload, _, err := wire.ThresholdPayload(wire.TypeBundle, envelope)
	if err != nil {
		return err
	}
	m.made.Bundle = sha256.Sum256(payload)
	nobody := func() []crypto.Signer { return nil } // nothing is commanded yet
	devices, err := newDeviceService(m.db, m.guard, m.open.reader, m.o.Config, nobody, nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	_, err = devices.PublishBundle(ctx, access.Internal("init"), envelope)
	return err
}

// admin issues the first administrator's token, and brings everything so far under a witnessed checkpoint.
func (m *making) admin(ctx context.Context) error {
	var err error
	m.made.AdminToken, err = signin.New(m.db, m.guard).Issue(ctx, access.Internal("init"), signin.Grant{
		Caller: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}, Use: signin.UseToken, Life: 365 * 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	once, err := signin.New(m.db, m.guard).Issue(ctx, access.Internal("init"), signin.Grant{
		Caller: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}, Use: signin.UseOnce, Life: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	m.made.SignIn = m.o.Config.signInLink(once)
	if err := durable.WriteFile(m.l.AdminToken(), []byte(m.made.AdminToken+"\n"), 0o600); err != nil {
		return err
	}
	return m.open.settle(ctx)
}

// Fingerprint prints a digest for people to compare: groups of four hex digits.
func Fingerprint(sum [32]byte) string { return ceremony.Fingerprint(sum) }
