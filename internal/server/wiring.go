package server

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/cad"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func suiteIDs() []string {
	var out []string
	for _, id := range suite.IDs() {
		out = append(out, string(id))
	}
	return out
}

// newDeviceService wires the registry. releases and what follows may be nil where nothing is delivered, and nothing told (init).
func newDeviceService(db *store.DB, guard *access.Guard, reader *ledger.Reader, cfg Config, authorities func() []crypto.Signer, releases device.Releases,
	challenger device.Challenger, evidence device.Evidence, journal device.Journal, later device.Later,
) (*device.Service, error) {
	if releases == nil {
		releases = noReleases{}
	}
	d := db.Devices()
	return device.NewService(device.Config{
		Registry: d, Reports: d, Offers: db.Legacy(), Commands: d, Trust: d, Groups: d, Forgetter: d, Guard: guard, Ledger: reader, Releases: releases, Challenger: challenger, Evidence: evidence, Journal: journal, Later: later, Wakes: db,
		Bundles: d, Records: d, Authorities: authorities, Poll: cfg.poll(), Soon: min(cfg.poll(), time.Second),
	})
}

type noReleases struct{}

func (noReleases) Forms(context.Context, [32]byte, [32]byte) ([]wire.Form, error) { return nil, nil }

func (noReleases) Manifest(context.Context, [32]byte) (wire.Release, bool, error) {
	return wire.Release{}, false, fault.New(fault.NotFound, "release.unknown", "no releases are served here", "ask the instance that released it")
}

func (noReleases) HandsOut(context.Context, [32]byte) (bool, error) { return false, nil }

func (noReleases) Logged(context.Context, [32]byte) (wire.Logged, error) {
	return wire.Logged{}, errors.New("no releases are served here")
}

// sealer seals small secrets of the database under the instance's vault key.
type sealer struct{ aead cipher.AEAD }

func newSealer(keys Vault) (sealer, error) {
	key, err := keys.Secret(keyVault)
	if err != nil {
		return sealer{}, err
	}
	return sealerOf(key)
}

func sealerOf(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

// newLinkSealer seals what clients are given to show again, as often as they ask: under a key of its own, so that what the database keeps does not hang on how often that is. The nonces are random, and a key bears 2^32.
func newLinkSealer(keys Vault) (sealer, error) {
	secret, err := keys.Secret(keyVault)
	if err != nil {
		return sealer{}, err
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "hallmark links", len(secret))
	if err != nil {
		return sealer{}, err
	}
	return sealerOf(key)
}

// SubjectVault gives the vault of the subjects' keys, for what fills an instance's database before it serves.
func SubjectVault(keys Vault) (store.Vault, error) { return newSealer(keys) }

func (s sealer) Seal(label string, plain []byte) ([]byte, error) {
	return s.aead.Seal(nil, nil, plain, []byte(label)), nil
}

func (s sealer) Open(label string, sealed []byte) ([]byte, error) {
	return s.aead.Open(nil, nil, sealed, []byte(label))
}

// orderCA lets the factory have order CAs.
type orderCA struct{ pki *pki.Service }

func (o orderCA) IssueOrderCA(ctx context.Context, r factory.OrderCARequest) ([][]byte, error) {
	return o.pki.IssueOrderCA(ctx, access.Internal("factory"), pki.Name{
		OEM: r.OEM, Product: r.Product, Unit: idevid.OrderUnit(r.Order, r.Station),
	}, r.Key)
}

// policyOf decides what evidence of a product's devices must be.
func (i *Instance) policyOf(ctx context.Context, product string) (attest.Policy, error) {
	b, err := i.db.Devices().Bundle(ctx, product, 0)
	if err != nil {
		return attest.Policy{}, err
	}
	p, err := i.db.Product(ctx, product)
	return attest.Policy{AllowVirtual: i.cfg.Virtual, Floor: b.Wire.Floor, Suites: b.Wire.Suites, Isolation: p.Isolation, Starts: b.Wire.Starts}, err
}

// loadCert reads one of the instance's certificates.
func loadCert(l Layout, name string) (*x509.Certificate, error) {
	der, err := os.ReadFile(l.Cert(name))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w; restore it from a backup", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup", l.Cert(name), err)
	}
	return cert, nil
}

// authorities are the CAs an instance holds.
type authorities struct {
	root                        *x509.Certificate
	product, operational, infra *pki.Authority
	trust                       *pki.Trust
	held                        *pki.Held // those above whose keys are here, and what `hallmark ca install` added
}

func loadAuthorities(l Layout, keys Signers) (a authorities, err error) {
	if a.root, err = loadCert(l, keyRoot); err != nil {
		return a, err
	}
	cas := []*x509.Certificate{}
	a.held = pki.NewHeld()
	for _, c := range []struct {
		name string
		role profile.Role
		to   **pki.Authority
	}{{keyProductCA, profile.Product, &a.product}, {keyOperational, profile.Operational, &a.operational}, {keyInfra, profile.Infra, &a.infra}} {
		cert, err := loadCert(l, c.name)
		if err != nil {
			return a, err
		}
		var key crypto.Signer
		if key, err = keys.Signer(c.name); err != nil {
			return a, err
		}
		if apart, ok := keys.(*cad.Client); ok {
			if err := apart.Bind(c.name, cert); err != nil {
				return a, err
			}
		}
		if *c.to, err = pki.NewAuthority(c.role, cert, key); err != nil {
			return a, fmt.Errorf("%s: %w", c.name, err)
		}
		a.held.Add(*c.to)
		cas = append(cas, cert)
	}
	a.trust, err = pki.NewTrust([]*x509.Certificate{a.root}, cas...)
	return a, err
}

func newKeyAccess(keys Vault, names []string) (*telemetry.KeyAccess, error) {
	buckets := map[string]hpke.PrivateKey{}
	for _, name := range names {
		secret, err := keys.Secret(name)
		if err != nil {
			return nil, err
		}
		bucket := strings.TrimPrefix(name, bucketPrefix)
		if buckets[bucket], err = hpke.MLKEM768P256().NewPrivateKey(secret); err != nil {
			return nil, fmt.Errorf("key of retention bucket %s: %w", bucket, err)
		}
	}
	return telemetry.NewKeyAccess(buckets), nil
}

// firmware gathers what an order puts on devices; whether it may is the factory's to say.
func firmware(devices *store.Devices, releases *release.Service) func(context.Context, access.Caller, string, [32]byte) (httpapi.Firmware, error) {
	return func(ctx context.Context, caller access.Caller, productID string, digest [32]byte) (httpapi.Firmware, error) {
		r, err := releases.Get(ctx, caller, digest)
		if err != nil {
			return httpapi.Firmware{}, err
		}
		b, err := devices.Bundle(ctx, productID, 0)
		if errors.Is(err, device.ErrNotFound) {
			return httpapi.Firmware{}, fault.New(fault.Conflict, "product.not-ready", "product "+productID+" has no trust bundle: its devices would believe nobody",
				"ask a key ceremony for what it needs: `hallmark product request "+productID+"`")
		}
		if err != nil {
			return httpapi.Firmware{}, err
		}
		digests := map[string][32]byte{}
		for _, c := range r.Manifest.Components {
			digests[c.Name] = [32]byte(c.Digest)
		}
		f := httpapi.Firmware{Bundle: b.Envelope, Release: r.Envelope, Payload: func(ctx context.Context, component string) (io.ReadCloser, error) {
			_, rd, err := releases.Open(ctx, access.Internal("factory"), productID, digests[component])
			return rd, err
		}}
		return f, nil
	}
}

// willTell knows what the rollouts will tell, which are opened after the devices.
type willTell struct{ i *Instance }

// WillTell implements device.Later.
func (w willTell) WillTell(ctx context.Context, id string, counter uint32) (bool, error) {
	return w.i.rollout.WillTell(ctx, id, counter)
}

// recaller reaches the device stage, which is made behind the release stage: it asks that for what devices are given.
type recaller struct{ i *Instance }

// Recall implements release.Commands.
func (r recaller) Recall(ctx context.Context, caller access.Caller, product string, release [32]byte, reason string) error {
	return r.i.device.Recall(ctx, caller, product, release, reason)
}
