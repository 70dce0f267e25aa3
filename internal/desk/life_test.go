package desk_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/desk"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

const pass = "correct horse"

var app = []byte("firmware")

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spki(t testing.TB, pub any) []byte {
	t.Helper()
	der, err := wire.SPKIOf(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// maker is an OEM without an instance: what it would give a desk.
type maker struct {
	testing.TB
	root    *pki.Authority
	seal    hpke.PrivateKey
	people  *ecdsa.PrivateKey
	bundle  []byte
	release []byte
	station []byte
	pin     [32]byte
	now     time.Time
}

func newMaker(t testing.TB) *maker {
	t.Helper()
	m := &maker{TB: t, people: newKey(t), now: time.Now()}
	var err error
	if m.root, err = pki.NewRoot("acme", newKey(t), m.now); err != nil {
		t.Fatal(err)
	}
	if m.seal, err = hpke.MLKEM768P256().GenerateKey(); err != nil {
		t.Fatal(err)
	}
	m.bundle = m.bundled(1)
	sum := sha256.Sum256(app)
	release, err := wire.EncodeRelease(wire.Release{
		ID: "fw-1", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: "1.0.0", Counter: 1, Created: 1,
		Components: []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(app)), Digest: sum[:], Health: wire.HealthAlive}},
	})
	if err == nil {
		m.release, err = wire.NewThreshold(wire.TypeRelease, release, m.people)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.describe()
	return m
}

func (m *maker) bundled(version uint64) []byte {
	m.Helper()
	role := wire.KeySet{Keys: [][]byte{spki(m, m.people.Public())}, Threshold: 1}
	payload, err := wire.EncodeBundle(wire.Bundle{
		Version: version, Product: "pump", Root: role, Release: role, Warrant: role, Directive: role,
		Control: wire.LogTrust{Origin: "c", Key: make([]byte, 32)}, Events: wire.LogTrust{Origin: "e", Key: make([]byte, 32)},
		Issued: uint64(m.now.Unix()), Suites: []string{"HM-P256-1"},
	})
	if err != nil {
		m.Fatal(err)
	}
	env, err := wire.NewThreshold(wire.TypeBundle, payload, m.people)
	if err != nil {
		m.Fatal(err)
	}
	return env
}

// describe makes a station that nobody has.
func (m *maker) describe() {
	m.Helper()
	key := newKey(m)
	s := wire.Station{Name: "st-1", OEM: "acme", Module: "soft", Serial: "1", WrapAlg: wire.WrapOAEPSHA256, ContentAlg: wire.WrapOAEPSHA256, RecordKey: spki(m, key.Public())}
	for _, to := range []*[]byte{&s.WrapKey, &s.ContentKey} {
		k, err := rsa.GenerateKey(rand.Reader, 3072)
		if err != nil {
			m.Fatal(err)
		}
		*to = spki(m, k.Public())
	}
	payload, err := wire.EncodeStation(s)
	if err == nil {
		m.station, err = wire.Sign1(wire.TypeStation, payload, key)
	}
	if err != nil {
		m.Fatal(err)
	}
	m.pin = s.ID()
}

func (m *maker) of() factory.DeskFile {
	return factory.DeskFile{OEM: "acme", Instance: "hallmark.acme.example", Root: m.root.Cert.Raw, SealKey: m.seal.PublicKey().Bytes()}
}

// grant answers a desk's request.
func (m *maker) grant(request []byte) []byte {
	m.Helper()
	list, err := ceremony.OpenRequests(request)
	if err != nil {
		m.Fatal(err)
	}
	g, err := ceremony.Grant(m.root, list[0], "acme", m.now)
	if err != nil {
		m.Fatal(err)
	}
	return g
}

func (m *maker) spec(id string) factory.OrderSpec { return specOf(id, m.station, m.pin[:], m.release) }

func specOf(id string, station, pin, release []byte) factory.OrderSpec {
	return factory.OrderSpec{
		ID: id, Product: "pump", Hardware: "A", Quota: 2, NotAfter: time.Now().Add(time.Hour), Descriptor: station, StationPin: pin, Release: release,
		Payload: factory.InMemory(map[string][]byte{"app": app}),
		Params:  wire.DeviceParams{Flash: wire.Flash{Size: 4 << 20, Erase: 4096, Slots: 2, SlotSize: 1 << 20}, Servers: wire.Servers{Device: "https://d.example"}},
	}
}

// order verifies what a desk has wrapped by its registration, as the instance does.
func (m *maker) order(d *desk.Desk, id string) {
	m.Helper()
	self, err := d.Self()
	if err != nil {
		m.Fatal(err)
	}
	key, err := wire.ParseKey(self.OrderKey)
	if err != nil {
		m.Fatal(err)
	}
	env, err := os.ReadFile(d.RegistrationFile(id))
	if err != nil {
		m.Fatal(err)
	}
	r, o, err := wire.VerifyRegistration(env, key)
	if err != nil || o.Header.ID != id {
		m.Fatalf("registration of %s: %v", id, err)
	}
	private, err := m.seal.Bytes()
	if err != nil {
		m.Fatal(err)
	}
	if _, err := r.Open(private); err != nil {
		m.Fatal(err)
	}
}

func open(dir string) (desk.Keys, error) {
	keys := desk.KeyDir(dir)
	if s, err := soft.Open(keys, pass); err == nil {
		return s, nil
	}
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	return soft.Create(keys, pass, 1000)
}

// given is what the steps of a desk's life work with, as files.
type given struct {
	Of      factory.DeskFile
	Grant   []byte
	Bundle  []byte
	Print   string
	Station []byte
	Pin     []byte
	Release []byte
	Master  string // file
}

// step is a part of a desk's life, over its directory, which the power may be cut in.
func step(name, dir string, g given) error {
	keys, err := open(dir)
	if err != nil {
		return err
	}
	if name == "begin" {
		_, err := desk.Begin(dir, desk.Config{Name: "desk-1", Of: g.Of}, keys, []string{"pump"}, time.Now())
		return err
	}
	d, err := desk.Open(dir)
	if err != nil {
		return err
	}
	switch name {
	case "install":
		_, _, err = d.Install(keys, g.Grant, time.Now())
	case "renew":
		_, err = d.Renew(keys, "pump", time.Now())
	case "trust":
		_, err = d.Pin(g.Bundle, g.Print)
	case "master":
		err = ofMaster(d, keys, g.Master, specOf("ord-master", g.Station, g.Pin, nil), filepath.Join(dir, "master.hmo"))
	default: // the ID of an order
		_, err = d.Wrap(context.Background(), keys, specOf(name, g.Station, g.Pin, g.Release), filepath.Join(dir, name+".hmo"), time.Now())
	}
	return err
}

const envStep = "DESK_TEST_STEP"

// TestMain does one step of a desk's life where it is a process that a failpoint may kill.
func TestMain(m *testing.M) {
	name := os.Getenv(envStep)
	if name == "" {
		os.Exit(m.Run())
	}
	var g given
	data, err := os.ReadFile(os.Args[2])
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err == nil {
		err = step(name, os.Args[1], g)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// cut does a step in a process of its own, which ends at a named place as by a power cut; it says whether it came by there.
func cut(t *testing.T, point, name, dir, with string) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir, with)
	cmd.Env = append(os.Environ(), envStep+"="+name, "HALLMARK_FAILPOINTS="+point)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%s, cut at %s: %v: %s", name, point, err, said.String())
	}
	return err != nil
}

// Cut at every place between two effects, a desk goes on with the same call; and no order's file is there whose registration is not.
func TestADeskGoesOnAfterACut(t *testing.T) {
	m := newMaker(t)
	dir, with := filepath.Join(t.TempDir(), "desk"), filepath.Join(t.TempDir(), "given")
	g := given{Of: m.of(), Bundle: m.bundle, Print: ceremony.Fingerprint(sha256.Sum256(m.bundle)), Station: m.station, Pin: m.pin[:], Release: m.release}
	write := func() {
		data, err := json.Marshal(g)
		if err == nil {
			err = os.WriteFile(with, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write()
	through := func(name string, points ...string) {
		t.Helper()
		for _, p := range points {
			if !cut(t, p+"=1", name, dir, with) {
				t.Fatalf("%s never came by %s", name, p)
			}
		}
	}
	through("begin", "desk.order-key", "desk.ca-key", "desk.request")
	if _, err := desk.Open(dir); fault.KindOf(err) != fault.NotFound {
		t.Errorf("half a desk opens: %v", err)
	}
	through("begin", "desk.config")
	request, err := os.ReadFile(filepath.Join(dir, "requests", "pump.request"))
	if err != nil {
		t.Fatal(err)
	}
	g.Grant = m.grant(request)
	write()
	through("install", "desk.grant", "desk.described")
	cut(t, "", "install", dir, with)
	through("trust", "desk.bundle")
	cut(t, "", "trust", dir, with)
	d, err := desk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for id, point := range map[string]string{"ord-claimed": "desk.claimed", "ord-registered": "desk.registration", "ord-written": "desk.order"} {
		through(id, point)
		_, file := os.Stat(filepath.Join(dir, id+".hmo"))
		_, registration := os.Stat(d.RegistrationFile(id))
		if (file == nil) != (id == "ord-written") || (registration == nil) != (id != "ord-claimed") {
			t.Errorf("%s: file %v, registration %v", point, file, registration)
		}
		keys, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Wrap(t.Context(), keys, m.spec(id), filepath.Join(dir, "again"), m.now)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != "order.exists" {
			t.Errorf("%s: the ID was used again: %v", id, err)
		}
	}
	m.order(d, "ord-registered")
	m.order(d, "ord-written")
	cut(t, "", "ord-after", dir, with)
	m.order(d, "ord-after")
}

// A desk believes what people have compared, what the root has signed for its own keys, and what follows from that by its own rules.
func TestWhatADeskDoesNotBelieve(t *testing.T) {
	m, other := newMaker(t), newMaker(t)
	dir := t.TempDir()
	keys, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	code := func(what string, err error, want string) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	begin := func(change func(*desk.Config), products ...string) error {
		c := desk.Config{Name: "desk-1", Of: m.of()}
		change(&c)
		_, err := desk.Begin(dir, c, keys, products, m.now)
		return err
	}
	code("a name that breaks a DN", begin(func(c *desk.Config) { c.Name = "desk,O=evil" }, "pump"), "desk.name")
	code("a name too long for a certificate", begin(func(c *desk.Config) { c.Name = strings.Repeat("x", 41) }, "pump"), "desk.name")
	leaf, err := m.root.Sub(profile.Product, pki.Name{OEM: "acme", Product: "pump"}, newKey(t).Public(), m.now)
	if err != nil {
		t.Fatal(err)
	}
	code("a CA that is no root", begin(func(c *desk.Config) { c.Of.Root = leaf.Raw }, "pump"), "desk.root")
	code("no product", begin(func(*desk.Config) {}), "desk.product")
	code("a product that is a path", begin(func(*desk.Config) {}, "../pump"), "desk.product")
	if err := begin(func(*desk.Config) {}, "pump"); err != nil {
		t.Fatal(err)
	}
	code("the same again", begin(func(*desk.Config) {}, "pump"), "desk.there")
	d, err := desk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(id string, at time.Time) error {
		_, err := d.Wrap(t.Context(), keys, m.spec(id), filepath.Join(t.TempDir(), "o"), at)
		return err
	}
	code("an order without a CA", wrap("o-1", m.now), "desk.ungranted")
	request, err := os.ReadFile(d.RequestFile("pump"))
	if err != nil {
		t.Fatal(err)
	}
	install := func(g []byte) error {
		_, _, err := d.Install(keys, g, m.now)
		return err
	}
	code("what is no grant", install([]byte("x")), "desk.grant")
	code("a grant of another root", install(other.grant(request)), "desk.grant")
	foreign, err := wire.SignCARequest(wire.CARequest{Role: wire.CAProduct, OEM: "acme", Product: "pump", Instance: "x", Purpose: "p", Issued: 1}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	code("a grant for somebody else's request", install(m.grant(foreign)), "desk.grant")
	good := m.grant(request)
	for range 2 {
		if err := install(good); err != nil {
			t.Fatal(err)
		}
	}
	code("another CA for the same key", install(m.grant(request)), "desk.granted")
	code("an order without a trust bundle", wrap("o-1", m.now), "desk.bundle")

	printed := func(b []byte) string { return ceremony.Fingerprint(sha256.Sum256(b)) }
	pin := func(b []byte, fingerprint string) error {
		_, err := d.Pin(b, fingerprint)
		return err
	}
	second, fourth := m.bundled(2), m.bundled(4)
	code("what is no bundle", pin([]byte("x"), ""), "desk.bundle")
	code("a bundle that nobody compared", pin(m.bundle, ""), "desk.fingerprint")
	code("another bundle than was compared", pin(other.bundle, printed(m.bundle)), "desk.fingerprint")
	if err := errors.Join(pin(m.bundle, strings.ToUpper(printed(m.bundle))), pin(second, "")); err != nil { // the second follows the first
		t.Fatal(err)
	}
	code("a bundle of before", pin(m.bundle, printed(m.bundle)), "desk.bundle")
	code("one that others signed", pin(other.bundled(3), ""), "desk.fingerprint")
	code("one that does not follow at once", pin(fourth, ""), "desk.fingerprint")
	if err := pin(fourth, printed(fourth)); err != nil {
		t.Error(err)
	}
	code("an order by a clock of long ago", wrap("o-1", m.now.Add(-time.Hour)), "desk.clock")
	if err := wrap("o-1", m.now); err != nil {
		t.Error(err)
	}
	of := other.of()
	code("the file of another root", d.Repin(of), "desk.instance")
	of.Root = m.of().Root
	if err := d.Repin(of); err != nil {
		t.Error(err)
	}
	if again, err := desk.Open(dir); err != nil || !bytes.Equal(again.Of.SealKey, of.SealKey) {
		t.Errorf("the new key was not kept: %v", err)
	}
}

// A CA is replaced without the desk: it orders under the old one until the answer is there, under the new one from then on, and tells the instance of it; also
// when the power is cut between any two steps.
func TestADeskReplacesItsCA(t *testing.T) {
	m := newMaker(t)
	dir, with := filepath.Join(t.TempDir(), "desk"), filepath.Join(t.TempDir(), "given")
	g := given{Of: m.of(), Bundle: m.bundle, Print: ceremony.Fingerprint(sha256.Sum256(m.bundle)), Station: m.station, Pin: m.pin[:], Release: m.release}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	does := func(name string, points ...string) {
		t.Helper()
		data, err := json.Marshal(g)
		if err == nil {
			err = os.WriteFile(with, data, 0o600)
		}
		must(err)
		for _, p := range points {
			if !cut(t, p+"=1", name, dir, with) {
				t.Fatalf("%s never came by %s", name, p)
			}
		}
		cut(t, "", name, dir, with)
	}
	request := func(where string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, where, "pump.request"))
		must(err)
		return data
	}
	must(step("begin", dir, g))
	if err := step("renew", dir, g); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a CA that is not there yet is replaced: %v", err)
	}
	g.Grant = m.grant(request("requests"))
	must(errors.Join(step("install", dir, g), step("trust", dir, g)))
	d, err := desk.Open(dir)
	must(err)
	issuer := func(order string) []byte {
		t.Helper()
		does(order)
		m.order(d, order)
		env, err := os.ReadFile(d.RegistrationFile(order))
		must(err)
		self, err := d.Self()
		must(err)
		key, err := wire.ParseKey(self.OrderKey)
		must(err)
		_, o, err := wire.VerifyRegistration(env, key)
		must(err)
		if len(self.CAs) != 1 || !bytes.Equal(self.CAs[0], o.Header.Chain[1]) {
			t.Errorf("%s: the desk tells of %d CAs, and not of the one that it orders under", order, len(self.CAs))
		}
		return o.Header.Chain[1]
	}
	cas := [][]byte{issuer("ord-first")}
	for round := range 2 {
		does("renew", "desk.ca-key", "desk.request")
		if next := request("renewals"); bytes.Equal(next, request("requests")) {
			t.Fatal("it asks for the CA that it has")
		} else {
			g.Grant = m.grant(next)
		}
		if !bytes.Equal(issuer(fmt.Sprint("ord-between-", round)), cas[round]) {
			t.Error("it orders under a CA that is not granted")
		}
		if round == 1 { // and again before it has settled: the one that was granted counts
			if !cut(t, "desk.grant=1", "install", dir, with) {
				t.Fatal("install never came by desk.grant")
			}
			does("renew")
			g.Grant = m.grant(request("renewals"))
		}
		does("install", "desk.grant", "desk.promoted", "desk.described")
		cas = append(cas, issuer(fmt.Sprint("ord-after-", round)))
		if bytes.Equal(cas[round], cas[round+1]) {
			t.Error("it orders under the CA that was replaced")
		}
	}
	// The keys of CAs that were replaced may be destroyed, and another CA is asked for when the key of the one that there is has gone.
	keys := func() (all []string) {
		must(filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && strings.HasPrefix(filepath.Base(path), d.Name+"-ca-pump") {
				all = append(all, path)
			}
			return err
		}))
		return all
	}
	first := slices.IndexFunc(keys(), func(path string) bool { return !strings.Contains(filepath.Base(path), "_") })
	if first < 0 || len(keys()) < 3 {
		t.Fatalf("its CAs' keys: %q", keys())
	}
	must(os.Remove(keys()[first]))
	if !bytes.Equal(issuer("ord-without-the-first"), cas[len(cas)-1]) {
		t.Error("it orders under another CA")
	}
	for _, path := range keys() {
		must(os.Remove(path))
	}
	does("renew")
	g.Grant = m.grant(request("renewals"))
	does("install")
	if bytes.Equal(issuer("ord-anew"), cas[len(cas)-1]) {
		t.Error("it orders under a CA whose key is gone")
	}
	if _, err := os.Stat(d.RenewalFile("pump")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a request that was answered is left: %v", err)
	}
}
