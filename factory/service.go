package factory

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP for modules that have nothing newer
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// CA issues order CAs.
type CA interface {
	// IssueOrderCA gives the chain of a new CA of path length 0 for r.Key: the new certificate first, the OEM root last (DER).
	IssueOrderCA(ctx context.Context, r OrderCARequest) (chain [][]byte, err error)
}

// OrderCARequest is what an order CA is for.
type OrderCARequest struct {
	OEM, Product, Order, Station string
	Key                          crypto.PublicKey
	NotBefore                    time.Time
}

// Vault seals small secrets for the store. label binds a secret to its place.
type Vault interface {
	Seal(label string, plain []byte) ([]byte, error)
	Open(label string, sealed []byte) ([]byte, error)
}

// Config is what the service works with.
type Config struct {
	OEM      string             // this OEM's ID, in orders and certificates
	Root     []byte             // the OEM root's certificate (DER), which stations pin
	OrderKey crypto.Signer      // signs orders; stations pin it
	Former   []crypto.PublicKey // signed orders before; records of those are still taken in
	CA       CA
	Vault    Vault
	Store    Store
	Guard    *access.Guard
	Now      func() time.Time // nil: time.Now
}

// Service is the verbs on orders.
type Service struct {
	c       Config
	planned planned
}

// New makes the service.
func New(c Config) (*Service, error) {
	if !wire.ValidName(c.OEM) {
		return nil, fmt.Errorf("factory: OEM %q: lower-case letters, digits, '-' and '.', at most 64", c.OEM)
	}
	if c.OrderKey == nil || c.CA == nil || c.Vault == nil || c.Store == nil || c.Guard == nil || len(c.Root) == 0 {
		return nil, errors.New("factory: incomplete configuration")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c: c}, nil
}

// OEMFile is what a station pins of this OEM.
type OEMFile struct {
	ID       string `json:"id"`
	Root     []byte `json:"root"`
	OrderKey []byte `json:"order_key"`
}

// Fingerprint is what maker and station compare by voice before the station believes anything: SHA-256 over the hashes of root and order
// key, as the station computes it for itself.
func (f OEMFile) Fingerprint() string {
	r, k := sha256.Sum256(f.Root), sha256.Sum256(f.OrderKey)
	sum := sha256.Sum256(append(r[:], k[:]...))
	return hex.EncodeToString(sum[:])
}

// OEMFile gives it; it is public.
func (s *Service) OEMFile(ctx context.Context, caller access.Caller) (OEMFile, error) {
	if err := s.c.Guard.Check(ctx, caller, access.InstanceRead, access.Resource{Type: "instance"}); err != nil {
		return OEMFile{}, err
	}
	spki, err := wire.SPKIOf(s.c.OrderKey.Public())
	return OEMFile{ID: s.c.OEM, Root: s.c.Root, OrderKey: spki}, err
}

// OrderSpec is what to have made, where.
type OrderSpec struct {
	ID             string // empty: chosen
	Product        string
	Hardware       string
	Quota          uint32
	NotBefore      time.Time // zero: now
	NotAfter       time.Time
	Descriptor     []byte            // the station's, COSE_Sign1(Station)
	StationPin     []byte            // SHA-256 of its record key, learned another way
	Bundle         []byte            // COSE_Sign(Bundle)
	Release        []byte            // COSE_Sign(Release), threshold met
	Payload        map[string][]byte // the bytes of each component
	Params         wire.DeviceParams
	MaxOfflineDays uint32 // 0: no limit
}

func resource(id, product string) access.Resource {
	return access.Resource{Type: "order", ID: id, Product: product}
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "order.invalid", "order: "+format, args...)
}

// secret is what the Vault seals of an order.
type secret struct {
	Seed   []byte `json:"seed"`
	Return []byte `json:"return"` // P-256 scalar
}

// draft is an order being made.
type draft struct {
	spec    OrderSpec
	station wire.Station
	bundle  wire.Bundle
	release wire.Release
	header  wire.OrderHeader
	content wire.OrderContent
	payload []byte
	row     Order
}

// MayOrder says whether caller may order devices of a product: to be asked before its firmware is gathered. CreateOrder asks again.
func (s *Service) MayOrder(ctx context.Context, caller access.Caller, id, product string) error {
	return s.c.Guard.Check(ctx, caller, access.OrderCreate, resource(id, product))
}

// CreateOrder makes an order and its file. The file holds everything the station needs and is given out once: it is not kept.
func (s *Service) CreateOrder(ctx context.Context, caller access.Caller, spec OrderSpec) ([]byte, Order, error) {
	if spec.ID == "" {
		var b [6]byte
		_, _ = rand.Read(b[:])
		spec.ID = "ord-" + hex.EncodeToString(b[:])
	}
	if err := s.c.Guard.Check(ctx, caller, access.OrderCreate, resource(spec.ID, spec.Product)); err != nil {
		return nil, Order{}, err
	}
	d := &draft{spec: spec}
	if err := s.check(d); err != nil {
		return nil, Order{}, err
	}
	taken := fault.New(fault.Conflict, "order.exists", fmt.Sprintf("order %q exists already", spec.ID), "choose another ID")
	switch _, err := s.c.Store.Order(ctx, spec.ID); { // before a CA is made for it
	case err == nil:
		return nil, Order{}, taken
	case !errors.Is(err, ErrNotFound):
		return nil, Order{}, err
	}
	file, err := s.wrap(ctx, d)
	if err != nil {
		return nil, Order{}, err
	}
	now := d.row.Created
	created := ledger.New(ledger.Control, ledger.KindOrderCreated, now, caller.ID, spec.ID, nil, d.row.Envelope)
	d.row.UID = created.UID
	err = s.c.Store.CreateOrder(ctx, d.row, created)
	if errors.Is(err, ErrExists) {
		return nil, Order{}, taken
	}
	if err != nil {
		return nil, Order{}, err
	}
	return file, d.row.shown(), nil
}

// check verifies everything that comes in, and that it belongs together, before any key is made.
func (s *Service) check(d *draft) error {
	spec := d.spec
	now := s.c.Now().UTC().Truncate(time.Second)
	if spec.NotBefore.IsZero() {
		spec.NotBefore = now
		d.spec.NotBefore = now
	}
	if !spec.NotAfter.After(now) {
		return invalid("its end %s is not ahead", spec.NotAfter.Format(time.RFC3339))
	}
	if len(spec.StationPin) != 32 {
		return invalid("the fingerprint of the station's record key is missing: ask the programming centre, not by the channel the descriptor came")
	}
	var err error
	if d.station, err = wire.VerifyStation(spec.Descriptor, [32]byte(spec.StationPin)); err != nil {
		return fault.Newf(fault.Denied, "order.station", "order: station: %w", err)
	}
	if d.station.OEM != s.c.OEM {
		return invalid("the descriptor is for OEM %q: ask for one for %q", d.station.OEM, s.c.OEM)
	}
	if d.bundle, err = wire.VerifyBundle(nil, spec.Bundle); err != nil {
		return invalid("trust bundle: %w", err)
	}
	if d.bundle.Product != spec.Product {
		return invalid("the trust bundle is for product %q", d.bundle.Product)
	}
	var digest [32]byte
	if d.release, digest, err = wire.VerifyRelease(d.bundle, spec.Release); err != nil {
		return invalid("release: %w", err)
	}
	if !d.release.RunsOn(spec.Hardware) {
		return invalid("release %s is not for hardware %q", d.release.ID, spec.Hardware)
	}
	if err := d.collect(); err != nil {
		return err
	}
	return d.fill(s.c.OEM, digest, now)
}

// collect lays the components one after another, in the release's order.
func (d *draft) collect() error {
	var total uint64
	for _, c := range d.release.Components {
		b, ok := d.spec.Payload[c.Name]
		if sum := sha256.Sum256(b); !ok || uint64(len(b)) != c.Size || !bytes.Equal(sum[:], c.Digest) {
			return invalid("component %q is missing or is not the release's", c.Name)
		}
		total += c.Size
		d.payload = append(d.payload, b...)
		d.row.Components = append(d.row.Components, wire.NamedDigest{Name: c.Name, Digest: c.Digest})
	}
	if slot := d.spec.Params.Flash.SlotSize; total > slot {
		return invalid("the components have %d bytes, a slot %d", total, slot)
	}
	return nil
}

func (d *draft) fill(oem string, release [32]byte, now time.Time) error {
	spec := d.spec
	root, err := wire.RootDigest(d.bundle)
	if err != nil {
		return err
	}
	bundle, id := sha256.Sum256(spec.Bundle), d.station.ID()
	d.header = wire.OrderHeader{
		ID: spec.ID, OEM: oem, Product: spec.Product, Hardware: spec.Hardware, Quota: spec.Quota,
		NotBefore: uint64(spec.NotBefore.Unix()), NotAfter: uint64(spec.NotAfter.Unix()), Station: id[:], HSMSerial: d.station.Serial,
		Profile: wire.ProfileIDevID1, Bundle: bundle[:], Release: release[:], Root: root[:], Counter: d.release.Counter,
		MaxOffline: spec.MaxOfflineDays, Created: uint64(now.Unix()),
	}
	d.content = wire.OrderContent{TicketSeed: make([]byte, 32), Bundle: spec.Bundle, Release: spec.Release, Params: spec.Params}
	_, _ = rand.Read(d.content.TicketSeed)
	params, err := wire.Marshal(spec.Params)
	if err != nil {
		return err
	}
	rel, par := sha256.Sum256(spec.Release), sha256.Sum256(params)
	d.row.ID, d.row.OEM, d.row.Product, d.row.Hardware, d.row.Quota = spec.ID, oem, spec.Product, spec.Hardware, spec.Quota
	d.row.NotBefore, d.row.NotAfter, d.row.State, d.row.Created = spec.NotBefore.UTC(), spec.NotAfter.UTC(), Open, now
	d.row.Station, d.row.StationName, d.row.Module = hex.EncodeToString(id[:]), d.station.Name, d.station.Module
	d.row.Release, d.row.RecordKey = hex.EncodeToString(release[:]), d.station.RecordKey
	d.row.Version, d.row.Bundle = d.release.Version, d.bundle.Version
	d.row.ReleaseSum, d.row.ParamsSum = rel[:], par[:]
	return nil
}

// wrap makes the order CA, wraps its key and the content to the station, and signs.
func (s *Service) wrap(ctx context.Context, d *draft) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ret, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	d.header.ReturnKey = ret.PublicKey().Bytes()
	if d.header.Chain, err = s.c.CA.IssueOrderCA(ctx, OrderCARequest{
		OEM: s.c.OEM, Product: d.spec.Product, Order: d.spec.ID, Station: d.row.Station, Key: key.Public(), NotBefore: d.spec.NotBefore,
	}); err != nil {
		return nil, fmt.Errorf("order CA: %w", err)
	}
	if n := len(d.header.Chain); n == 0 || !bytes.Equal(d.header.Chain[n-1], s.c.Root) {
		return nil, errors.New("order CA: its chain does not end in the OEM's root")
	}
	sec, err := json.Marshal(secret{Seed: d.content.TicketSeed, Return: ret.Bytes()})
	if err != nil {
		return nil, err
	}
	if d.row.Secret, err = s.c.Vault.Seal(vaultLabel(d.spec.ID), sec); err != nil {
		return nil, fmt.Errorf("order %s: %w", d.spec.ID, err)
	}
	cek := wire.NewContentKey()
	defer clear(cek)
	order, file := wire.Order{Header: d.header}, wire.OrderFile{}
	if order.Key, order.Content, err = wrapKeys(d.station, key, cek); err != nil {
		return nil, err
	}
	if file.Content, err = wire.SealContent(cek, d.header, d.content); err != nil {
		return nil, invalid("%w", err)
	}
	if file.Payload, err = wire.SealPayload(cek, d.header, d.payload); err != nil {
		return nil, invalid("%w", err)
	}
	sealed := file.SealedDigest()
	order.Sealed = sealed[:]
	payload, err := wire.EncodeOrder(order)
	if err != nil {
		return nil, invalid("%w", err)
	}
	if file.Order, err = wire.Sign1(wire.TypeOrder, payload, s.c.OrderKey); err != nil {
		return nil, err
	}
	d.row.Envelope = file.Order
	return wire.EncodeOrderFile(file)
}

func vaultLabel(order string) string { return "factory/order/" + order }

// wrapKeys wraps both keys directly under the station's RSA keys: one hop each.
func wrapKeys(st wire.Station, key *ecdsa.PrivateKey, cek []byte) (wire.WrappedKey, wire.Recipient, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, err
	}
	defer clear(der)
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, err
	}
	blob, err := oaep(st.WrapKey, st.WrapAlg, der)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, fmt.Errorf("wrapping key: %w", err)
	}
	content, err := oaep(st.ContentKey, st.ContentAlg, cek)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, fmt.Errorf("content key: %w", err)
	}
	return wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: spki, Alg: st.WrapAlg, Template: wire.SigningTemplate(), Blob: blob},
		wire.Recipient{Alg: st.ContentAlg, Blob: content}, nil
}

func oaep(spki []byte, alg wire.WrapAlg, plain []byte) ([]byte, error) {
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() < 3072 {
		return nil, errors.New("want RSA of at least 3072 bits")
	}
	hash, err := alg.Hash()
	if err != nil {
		return nil, err
	}
	return rsa.EncryptOAEP(hash.New(), rand.Reader, pub, plain, nil)
}
