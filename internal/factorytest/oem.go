// Package factorytest is an OEM and blank pieces for the tests of everything around the factory.
//
// Stage 2, birth, in tests only. The OEM is a real factory.Service over a real store, with a CA of three certificates; a Piece is a
// device in memory that keeps what a device keeps. It guarantees nothing and trusts everybody.
package factorytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Hardware and Product are what the OEM makes.
const (
	Product  = "door-lock"
	Hardware = "rev-b"
)

// OEM is one, with its products' trust bundle and first release.
type OEM struct {
	ID       string
	Service  *factory.Service
	DB       *store.DB
	Caller   access.Caller
	Now      time.Time
	Root     *x509.Certificate
	OrderKey *ecdsa.PrivateKey
	Bundle   []byte
	Release  []byte
	Payload  map[string][]byte
	CA       *CA
	Seal     SealKey // to which desks seal registrations

	approver *ecdsa.PrivateKey // of releases
	root     *ecdsa.PrivateKey // of trust bundles
	bundle   wire.Bundle

	config    factory.Config
	published Published
}

// Key makes a P-256 key.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// CA is a root and a product CA.
type CA struct {
	root, product       *x509.Certificate
	rootKey, productKey *ecdsa.PrivateKey

	Orders  int // CAs made for orders
	Adopted int // that were believed, of orders of desks
	Desks   int // and of desks

	desks []*x509.Certificate // product CAs of desks
}

func issue(name pkix.Name, pathLen int, pub crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := idevid.RandomSerial()
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: time.Now().Add(-time.Hour), NotAfter: idevid.NoExpiry(),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
		MaxPathLen: pathLen, MaxPathLenZero: pathLen == 0,
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// NewCA makes one for oem.
func NewCA(t testing.TB, oem string) *CA {
	t.Helper()
	ca := &CA{rootKey: Key(t), productKey: Key(t)}
	var err error
	if ca.root, err = issue(pkix.Name{CommonName: oem + " root"}, 2, ca.rootKey.Public(), nil, ca.rootKey); err != nil {
		t.Fatal(err)
	}
	if ca.product, err = issue(pkix.Name{CommonName: oem + " product CA"}, 1, ca.productKey.Public(), ca.root, ca.rootKey); err != nil {
		t.Fatal(err)
	}
	return ca
}

// IssueOrderCA implements factory.CA.
func (c *CA) IssueOrderCA(_ context.Context, r factory.OrderCARequest) ([][]byte, error) {
	c.Orders++
	cert, err := issue(pkix.Name{Organization: []string{r.OEM}, OrganizationalUnit: []string{r.Product}, CommonName: idevid.OrderName(r.Order, r.Station)}, 0, r.Key, c.product, c.productKey)
	if err != nil {
		return nil, err
	}
	return [][]byte{cert.Raw, c.product.Raw, c.root.Raw}, nil
}

// vault is AES-GCM with a key of its own.
type vault struct{ aead cipher.AEAD }

func newVault(t testing.TB) vault {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return vault{aead}
}

func (v vault) Seal(label string, plain []byte) ([]byte, error) {
	return v.aead.Seal(nil, nil, plain, []byte(label)), nil
}

func (v vault) Open(label string, sealed []byte) ([]byte, error) {
	return v.aead.Open(nil, nil, sealed, []byte(label))
}

// NewOEM makes an OEM with a store in a temporary directory.
func NewOEM(t testing.TB, id string) *OEM {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), id+".db"))
	if err != nil {
		t.Fatal(err)
	}
	db.KeepPrivate(storetest.Vault{})
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	o := &OEM{
		ID: id, DB: db, Now: time.Now().UTC().Truncate(time.Second), OrderKey: Key(t), CA: NewCA(t, id),
		Caller: access.Caller{ID: "person:fay", Kind: access.Person, Roles: []access.Role{access.Factory}, Via: "token"},
	}
	o.Root, o.Seal = o.CA.root, NewSealKey(t)
	o.software(t)
	o.config = factory.Config{
		OEM: id, Root: o.Root.Raw, OrderKey: o.OrderKey, CA: o.CA, Vault: newVault(t), Store: db, Inspections: db, Books: db, Guard: guard,
		Published: &o.published, Masters: db, Documents: o.documents(t), SealKeys: o.Seal, Intake: &factory.Intake{Store: db.Desks(), CAs: o.CA, Instance: "hallmark." + id + ".example"},
		Now: func() time.Time { return o.Now },
	}
	if o.Service, err = factory.New(o.config); err != nil {
		t.Fatal(err)
	}
	return o
}

// documents is a directory of its own.
func (o *OEM) documents(t testing.TB) factory.Documents {
	t.Helper()
	d, err := files.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return blob.New(d, o.DB.Blobs())
}

// Rotate has another key sign orders from now on, as after a new start of the server.
func (o *OEM) Rotate(t testing.TB) {
	t.Helper()
	former := []crypto.PublicKey{o.OrderKey.Public()}
	if o.config.Former != nil {
		former = append(former, o.config.Former()...)
	}
	o.OrderKey = Key(t)
	o.With(t, func(c *factory.Config) {
		c.Former, c.OrderKey = func() []crypto.PublicKey { return former }, o.OrderKey
	})
}

// With has the service work with something else from now on, as after a new start of the server.
func (o *OEM) With(t testing.TB, change func(*factory.Config)) {
	t.Helper()
	change(&o.config)
	var err error
	if o.Service, err = factory.New(o.config); err != nil {
		t.Fatal(err)
	}
}

func role(t testing.TB, key *ecdsa.PrivateKey) wire.KeySet {
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return wire.KeySet{Keys: [][]byte{spki}, Threshold: 1}
}

// software makes the trust bundle and a release of two components, one of which spans several chunks.
func (o *OEM) software(t testing.TB) {
	root, release := Key(t), Key(t)
	app := make([]byte, 3*wire.OrderChunk+17)
	for i := range app {
		app[i] = byte(i * 7)
	}
	o.Payload = map[string][]byte{"app": app, "assets": []byte("the second component")}
	o.root = root
	o.bundle = wire.Bundle{
		Product: Product, Root: role(t, root), Release: role(t, release), Warrant: role(t, Key(t)), Directive: role(t, Key(t)),
		Control: wire.LogTrust{Origin: "c", Key: make([]byte, 32)}, Events: wire.LogTrust{Origin: "e", Key: make([]byte, 32)},
		Issued: uint64(o.Now.Unix()), Suites: []string{"HM-P256-1"},
	}
	o.published = Published{Bundles: map[[32]byte]wire.Bundle{}, Releases: map[[32]byte][]byte{}, Withdrawn: map[[32]byte]bool{}}
	o.NextBundle(t)
	o.approver = release
	var list []wire.Component
	for _, n := range []string{"app", "assets"} {
		sum, kind, health := sha256.Sum256(o.Payload[n]), wire.KindExec, wire.HealthAlive
		if n == "assets" {
			kind, health = wire.KindData, wire.HealthNone
		}
		list = append(list, wire.Component{
			Name: n, Kind: kind, Version: "1.0.0", Size: uint64(len(o.Payload[n])), Digest: sum[:], Health: health,
		})
	}
	o.Publish(t, list...)
}

// NextBundle has another trust bundle in force, which believes the same keys but for what change makes of it.
func (o *OEM) NextBundle(t testing.TB, change ...func(*wire.Bundle)) {
	t.Helper()
	o.bundle.Version++
	for _, c := range change {
		c(&o.bundle)
	}
	payload, err := wire.EncodeBundle(o.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if o.Bundle, err = wire.NewThreshold(wire.TypeBundle, payload, o.root); err != nil {
		t.Fatal(err)
	}
	o.published.Bundles[sha256.Sum256(o.Bundle)], o.published.InForce = o.bundle, o.bundle
}

// Withdraw takes the release back that orders are for.
func (o *OEM) Withdraw(t testing.TB) {
	t.Helper()
	payload, _, err := wire.ThresholdPayload(wire.TypeRelease, o.Release)
	if err != nil {
		t.Fatal(err)
	}
	o.published.Withdrawn[wire.ReleaseDigest(payload)] = true
}

// Approver signs what approvers of releases sign.
func (o *OEM) Approver() crypto.Signer { return o.approver }

// Publish makes a release of those components the one that orders are for.
func (o *OEM) Publish(t testing.TB, components ...wire.Component) {
	t.Helper()
	payload, err := wire.EncodeRelease(wire.Release{
		ID: "fw-1", Product: Product, Hardware: []string{Hardware}, Model: wire.ModelAsset, Version: "1.0.0", Counter: 3, Created: 1, Components: components,
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.Release, err = wire.NewThreshold(wire.TypeRelease, payload, o.approver); err != nil {
		t.Fatal(err)
	}
	o.published.Releases[wire.ReleaseDigest(payload)] = o.Release
}

// Params are the parameters of every order.
func Params() wire.DeviceParams {
	return wire.DeviceParams{
		Flash:   wire.Flash{Size: 4 << 20, Erase: 4096, Slots: 2, SlotSize: 1 << 20},
		Servers: wire.Servers{Device: "https://devices.example:8443"},
	}
}

// Spec is an order for n devices.
func (o *OEM) Spec(id string, n uint32, descriptor []byte, pin [32]byte) factory.OrderSpec {
	return factory.OrderSpec{
		ID: id, Product: Product, Hardware: Hardware, Quota: n, NotAfter: o.Now.Add(48 * time.Hour), Descriptor: descriptor,
		StationPin: pin[:], Bundle: o.Bundle, Release: o.Release, Payload: factory.InMemory(o.Payload), Params: Params(), MaxOfflineDays: 30,
	}
}

// Bytes is an order's file.
func Bytes(t testing.TB, w *factory.Wrapped) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := w.WriteFile(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(b.Len()) {
		t.Fatalf("the file has %d bytes, said to be %d", b.Len(), w.Size())
	}
	return b.Bytes()
}

// File is what stations pin.
func (o *OEM) File(t testing.TB) []byte {
	t.Helper()
	f, err := o.Service.OEMFile(t.Context(), o.Caller)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
