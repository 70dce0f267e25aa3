package est_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// vault makes keys in memory.
type vault struct {
	mu sync.Mutex
	by map[string]crypto.Signer
	t  testing.TB
}

func (v *vault) Signer(name string) (crypto.Signer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := v.by[name]; k != nil {
		return k, nil
	}
	return nil, errors.New("no such key")
}

func (v *vault) GenerateP256(name string) (crypto.Signer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.by[name] = newKey(v.t)
	return v.by[name], nil
}

// lostWorld is an enrolment server with the registry of the store, at which devices may show vouchers.
type lostWorld struct {
	*world
	rekey *rekey.Service
	keys  *vault
	seq   uint32
	prev  [32]byte
}

func newLostWorld(t testing.TB, limits rekey.Limits) *lostWorld {
	t.Helper()
	w := &lostWorld{world: newWorld(t), keys: &vault{by: map[string]crypto.Signer{}, t: t}}
	guard, err := access.NewGuard(noAudit{})
	must(t, err)
	trust, revoked := w.pki.Trust(), pki.NewRevocations(time.Hour)
	w.pki, err = pki.New(pki.Config{
		Guard: guard, Store: w.db.PKI(), Trust: trust, Revocations: revoked, Operational: w.op, Root: w.root.Cert, Now: w.clock.now, NewKey: w.keys,
		Product: func(string) (*pki.Authority, error) { return w.product, nil },
	})
	must(t, err)
	must(t, w.pki.Refresh(t.Context()))
	enroller, err := onboard.New(onboard.Config{Guard: guard, PKI: w.pki, Registry: w.db.Onboard(), Store: w.db.Onboard(), Now: w.clock.now})
	must(t, err)
	w.rekey, err = rekey.New(rekey.Config{
		Guard: guard, Store: w.db.Vouchers(), PKI: w.pki, Rekeyer: w.pki.Rekeyer(), Limits: limits, Now: w.clock.now,
		Model: func(context.Context, string) (wire.UpdateModel, error) { return wire.ModelBlob, nil },
	})
	must(t, err)
	log := slog.New(slog.DiscardHandler)
	conf := w.server.TLS.Clone()
	conf.VerifyConnection = pki.VerifyConnection(trust, revoked, w.clock.now)
	w.server = httptest.NewUnstartedServer(nil)
	both := est.New(est.Config{Onboard: enroller, CACerts: w.pki.CACerts, Log: log})
	shown := est.NewVoucher(w.rekey, log)
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, est.VoucherPrefix) {
			shown.ServeHTTP(rw, r)
			return
		}
		both.ServeHTTP(rw, r)
	})
	w.server.TLS = conf
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	_, err = product.New(guard, w.db, []string{"HM-P256-1"}).Create(t.Context(), access.Internal("test"), product.Product{
		ID: "thermo", OEM: "acme", Name: "Thermo", Hardware: []string{"B"}, Model: wire.ModelBlob, Suite: "HM-P256-1", EndOfSupport: w.clock.now().AddDate(5, 0, 0),
	})
	must(t, err)
	must(t, w.db.CreateOrder(t.Context(), factory.Order{ID: "o-1", OEM: "acme", Product: "thermo", Hardware: "B", State: factory.Open}))
	w.prev = wire.RecordHash(nil) // of an order without an envelope
	return w
}

// piece is a device with a production record.
type piece struct {
	id   string
	chip []byte
	idev tls.Certificate
}

// built has a factory make a device, and puts it into a state.
func (w *lostWorld) built(state device.State) piece {
	w.t.Helper()
	id, idev := w.made(false)
	leaf, err := x509.ParseCertificate(idev.Certificate[0])
	must(w.t, err)
	at := newKey(w.t)
	w.seq++
	chip := bytes.Repeat([]byte{byte(w.seq)}, 16)
	spki, err := wire.SPKIOf(at.Public())
	must(w.t, err)
	zero := make([]byte, 32)
	payload, err := wire.EncodeRecord(wire.Record{
		Order: "o-1", Station: zero, Seq: w.seq, Prev: zero, Ticket: w.seq, Device: id, Outcome: wire.Made, Nonce: zero, Certificate: leaf.Raw, Time: 1,
		Chip: &wire.ChipHello{Version: wire.PortVersion, ChipUID: chip, Hardware: "B"},
		Keys: &wire.KeyReply{IDevID: leaf.RawSubjectPublicKeyInfo, Attest: spki, Origin: "soft", ProofIDevID: []byte{1}, ProofAttest: []byte{1}},
		ReadBack: &wire.ReadBack{
			Components: []wire.NamedDigest{{Name: "app", Digest: zero}}, Bundle: zero, Release: zero, Certificate: zero, Params: zero,
		},
		Fuses: &wire.FuseState{Root: zero},
	})
	must(w.t, err)
	env, err := wire.Sign1(wire.TypeRecord, payload, newKey(w.t))
	must(w.t, err)
	identity, attest := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(spki)
	st, err := w.db.AddRecords(w.t.Context(), "o-1", []factory.Candidate{{
		Seq: w.seq, Hash: sha256.Sum256(env), Prev: w.prev, Ticket: w.seq, Serial: id, Outcome: wire.Made, IDevID: leaf.Raw, ChipUID: chip,
		Device:   device.Device{ID: id, Product: "thermo", Hardware: "B", Order: "o-1", Station: "st", Made: w.clock.now(), KeyOrigin: "soft", AttestKey: spki},
		Identity: identity[:], Attest: attest[:], Envelope: env,
		Accept: ledger.New(ledger.KindDeviceProvisioned, w.clock.now(), "test", id, nil, env),
		Alarm: func(reason string) ledger.Fact {
			return ledger.New(ledger.KindRecordRefused, w.clock.now(), "test", id, nil, []byte(reason))
		},
	}})
	must(w.t, err)
	if w.prev = sha256.Sum256(env); st[0].State != factory.Accepted {
		w.t.Fatalf("record: %+v", st[0])
	}
	if state != device.Provisioned {
		w.set(id, `state`, string(state))
	}
	return piece{id: id, chip: chip, idev: idev}
}

func (w *lostWorld) set(id, column, value string) {
	w.t.Helper()
	must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET `+column+` = $1 WHERE id = $2`, value, id)
		return err
	}))
}

// ann asks for vouchers, and ben agrees.
func ann() access.Caller {
	return access.Caller{ID: "person:ann", Kind: access.Person, Roles: []access.Role{access.Operator}, Seconded: "person:ben"}
}

func (w *lostWorld) voucher(id string) string {
	w.t.Helper()
	w.clock.add(time.Millisecond)
	_, secret, err := w.rekey.Issue(w.t.Context(), ann(), id, "flash and key store are gone", 0)
	must(w.t, err)
	return secret
}

// asking is what a technician's device asks with.
type asking struct {
	key, attest *ecdsa.PrivateKey
	csr         []byte
}

func (w *lostWorld) asking(id string, chip []byte) asking {
	w.t.Helper()
	a := asking{key: newKey(w.t), attest: newKey(w.t)}
	a.csr = w.request(id, chip, a)
	return a
}

func (w *lostWorld) request(id string, chip []byte, a asking) []byte {
	w.t.Helper()
	spki, err := wire.SPKIOf(a.key.Public())
	must(w.t, err)
	claim, err := wire.NewRekeyClaim(id, chip, spki, a.attest, "soft")
	must(w.t, err)
	csr, err := agentest.NewRekeyCSR(idevid.Identity{Kind: idevid.IDevID, DeviceID: id, OEM: "acme", Product: "thermo", HWRev: "B"}, a.key, claim)
	must(w.t, err)
	return csr
}

func (w *lostWorld) show(id, secret string, csr []byte) (*x509.Certificate, error) {
	return w.client().Recover(w.t.Context(), agentest.Voucher{Device: id, Secret: secret}, csr)
}

// enrol has a device ask for an LDevID with a factory identity.
func (w *lostWorld) enrol(as tls.Certificate) error {
	_, err := w.client().Enrol(w.t.Context(), agentest.Request{As: as, Key: newKey(w.t)})
	return err
}

func (w *lostWorld) state(id string) (state string) {
	w.t.Helper()
	must(w.t, w.db.Read().QueryRowContext(w.t.Context(), `SELECT state FROM device WHERE id = $1`, id).Scan(&state))
	return state
}

func TestADeviceThatLostBothKeysComesBackByAVoucher(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{})
	p := w.built(device.Provisioned)
	must(t, w.enrol(p.idev))
	w.set(p.id, "state", string(device.Active))
	secret := w.voucher(p.id)
	kit, err := w.client().Kit(t.Context(), agentest.Voucher{Device: p.id, Secret: secret})
	must(t, err)
	if kit.Product != "thermo" || kit.OEM != "acme" || kit.Hardware != "B" || kit.Model != wire.ModelBlob {
		t.Errorf("kit %+v", kit)
	}
	a := w.asking(p.id, p.chip)
	cert, err := w.show(p.id, secret, a.csr)
	must(t, err)
	after, err := w.client().Kit(t.Context(), agentest.Voucher{Device: p.id, Secret: secret})
	must(t, err)
	chain, err := w.client().CheckIdentity(cert, idevid.Identity{DeviceID: p.id, OEM: "acme", Product: "thermo", HWRev: "B"}, after.Issuers)
	must(t, err)
	if !strings.HasPrefix(cert.Issuer.CommonName, "order rekey ") || len(chain) != 3 {
		t.Errorf("signed by %s, chain of %d", cert.Issuer, len(chain))
	}
	if s := w.state(p.id); s != "onboarded" {
		t.Errorf("it was active and is %s: it has not proved itself with its new key", s)
	}
	// It is what it was, with the new key only.
	must(t, w.enrol(tls.Certificate{Certificate: chain, PrivateKey: a.key}))
	if err := w.enrol(p.idev); err == nil || !strings.Contains(err.Error(), onboard.FormerKey) {
		t.Errorf("the former identity: %v", err)
	}
	for kind, n := range map[ledger.Kind]int{
		ledger.KindVoucherIssued: 1, ledger.KindDeviceRekeyed: 1, ledger.KindEnrolRefused: 1, ledger.KindCertRevoked: 2, // the factory's and the LDevID
	} {
		if got := w.facts(string(kind), p.id); got != n {
			t.Errorf("%d facts %s, want %d", got, kind, n)
		}
	}
	former, err := w.rekey.Lineage(t.Context(), ann(), p.id)
	if must(t, err); len(former) != 1 {
		t.Errorf("lineage %+v", former)
	}
	// Its answer was lost: the same keys get the same certificate, in another request too; others get nothing.
	for _, csr := range [][]byte{a.csr, w.request(p.id, p.chip, a)} {
		again, err := w.show(p.id, secret, csr)
		if err != nil || !again.Equal(cert) {
			t.Errorf("the same keys again: %v", err)
		}
	}
	if _, err := w.show(p.id, secret, w.asking(p.id, p.chip).csr); !denied(err, "voucher.ended") {
		t.Errorf("a used voucher: %v", err)
	}
	if got := w.facts(string(ledger.KindDeviceRekeyed), p.id); got != 1 {
		t.Errorf("%d facts of new keys", got)
	}
	// The voucher's time is over before the answer arrived: a new voucher and the same keys bring it again.
	w.clock.add(25 * time.Hour)
	must(t, w.pki.Refresh(t.Context()))
	again, err := w.show(p.id, w.voucher(p.id), a.csr)
	if err != nil || !again.Equal(cert) {
		t.Errorf("by another voucher: %v", err)
	}
}

func denied(err error, code string) bool {
	var s *agentest.Status
	return errors.As(err, &s) && s.Code == 403 && strings.HasPrefix(s.Text, code+":")
}

func TestWhomAVoucherDoesNotHelp(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{})
	p, other := w.built(device.Active), w.built(device.Active)
	for name, c := range map[string]struct {
		ask  func(secret string) (id, shown string, csr []byte)
		code string
	}{
		"another device": {func(s string) (string, string, []byte) { return other.id, s, w.asking(other.id, other.chip).csr }, "voucher.refused"},
		"another chip":   {func(s string) (string, string, []byte) { return p.id, s, w.asking(p.id, other.chip).csr }, "voucher.chip"},
		"a guess": {func(string) (string, string, []byte) {
			return p.id, wire.NewVoucher(p.id), w.asking(p.id, p.chip).csr
		}, "voucher.refused"},
		"nothing to show": {func(string) (string, string, []byte) { return p.id, "", w.asking(p.id, p.chip).csr }, "voucher.refused"},
		"a device nobody knows": {func(string) (string, string, []byte) {
			id := deviceID(t)
			return id, wire.NewVoucher(id), w.asking(id, p.chip).csr
		}, "voucher.refused"},
		"a device that calls itself a path": {func(s string) (string, string, []byte) { return "../x", s, w.asking(p.id, p.chip).csr }, "voucher.refused"},
		"an expired one": {func(s string) (string, string, []byte) {
			w.clock.add(25 * time.Hour)
			must(t, w.pki.Refresh(t.Context()))
			return p.id, s, w.asking(p.id, p.chip).csr
		}, "voucher.ended"},
		"a device that was retired meanwhile": {func(s string) (string, string, []byte) {
			w.set(p.id, "state", string(device.Decommissioned))
			return p.id, s, w.asking(p.id, p.chip).csr
		}, ""},
		"a device that was stolen meanwhile": {func(s string) (string, string, []byte) {
			w.set(p.id, "legitimacy", string(device.Stolen))
			return p.id, s, w.asking(p.id, p.chip).csr
		}, ""},
	} {
		w.clock.add(25 * time.Hour) // another day
		must(t, w.pki.Refresh(t.Context()))
		id, shown, csr := c.ask(w.voucher(p.id))
		if cert, err := w.show(id, shown, csr); err == nil || c.code != "" && !denied(err, c.code) {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
		w.set(p.id, "state", string(device.Active))
		w.set(p.id, "legitimacy", string(device.Genuine))
	}
	if n := w.facts(string(ledger.KindDeviceRekeyed), p.id) + w.facts(string(ledger.KindDeviceRekeyed), other.id); n != 0 {
		t.Errorf("%d devices have new keys", n)
	}
}

func TestWhoGetsNoVoucher(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{})
	good := w.built(device.Active)
	var second *access.SecondNeededError
	alone := ann()
	alone.Seconded = ""
	if _, _, err := w.rekey.Issue(t.Context(), alone, good.id, "x", 0); !errors.As(err, &second) {
		t.Errorf("one person alone: %v", err)
	}
	for _, role := range access.Roles() {
		c := access.Caller{ID: "person:x", Kind: access.Person, Roles: []access.Role{role}, Seconded: "person:ben"}
		_, _, err := w.rekey.Issue(t.Context(), c, good.id, "x", 0)
		if may := role == access.Operator || role == access.Security; (err == nil) != may {
			t.Errorf("%s: %v", role, err)
		}
		w.clock.add(24 * time.Hour)
	}
	for _, s := range []device.State{device.Decommissioning, device.Decommissioned, device.Disposed, device.Lost} {
		w.set(good.id, "state", string(s))
		if _, _, err := w.rekey.Issue(t.Context(), ann(), good.id, "x", 0); code(err) != "voucher.state" {
			t.Errorf("%s: %v", s, err)
		}
	}
	// A copy that goes on calling keeps the device from being told apart: other keys are the way out.
	w.set(good.id, "state", string(device.Suspected))
	if _, _, err := w.rekey.Issue(t.Context(), ann(), good.id, "x", 0); err != nil {
		t.Errorf("%s: %v", device.Suspected, err)
	}
	w.set(good.id, "state", string(device.Active))
	for _, l := range []device.Legitimacy{device.Stolen, device.Unknown} {
		w.set(good.id, "legitimacy", string(l))
		if _, _, err := w.rekey.Issue(t.Context(), ann(), good.id, "x", 0); code(err) != "voucher.state" {
			t.Errorf("%s: %v", l, err)
		}
	}
	w.set(good.id, "legitimacy", string(device.Genuine))
	for name, c := range map[string]struct {
		id, reason string
		life       time.Duration
		code       string
	}{
		"a device nobody knows": {deviceID(t), "x", 0, "device.unknown"},
		"no reason":             {good.id, " ", 0, "voucher.reason"},
		"a month":               {good.id, "x", 30 * 24 * time.Hour, "voucher.life"},
		"a second":              {good.id, "x", time.Second, "voucher.life"},
	} {
		if _, _, err := w.rekey.Issue(t.Context(), ann(), c.id, c.reason, c.life); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func code(err error) string {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok {
		return ""
	}
	return f.Code
}

func TestVouchersAreRationed(t *testing.T) {
	for name, c := range map[string]struct {
		limits rekey.Limits
		same   bool // device
	}{
		"of a device":           {rekey.Limits{Device: 2}, true},
		"that a person seconds": {rekey.Limits{Second: 2}, false},
		"of a product":          {rekey.Limits{Product: 2}, false},
	} {
		w := newLostWorld(t, c.limits)
		ids := []string{w.built(device.Active).id, w.built(device.Active).id, w.built(device.Active).id}
		for i, id := range ids {
			if c.same {
				id = ids[0]
			}
			_, _, err := w.rekey.Issue(t.Context(), ann(), id, "x", 0)
			if i < 2 && err != nil || i == 2 && code(err) != "voucher.many" {
				t.Errorf("%s, %d: %v", name, i, err)
			}
		}
		w.clock.add(24*time.Hour + time.Minute)
		_, _, err := w.rekey.Issue(t.Context(), ann(), ids[0], "x", 0)
		must(t, err)
	}
}

// One voucher of a device is open at a time; who has it beside another chip locks it, who guesses at it does not, and a person may end it.
func TestAVoucherEnds(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{Attempts: 3, Device: 10})
	p := w.built(device.Active)
	first := w.voucher(p.id)
	second := w.voucher(p.id)
	a := w.asking(p.id, p.chip)
	if _, err := w.show(p.id, first, a.csr); !denied(err, "voucher.ended") {
		t.Errorf("the one before: %v", err)
	}
	for range 30 {
		if _, err := w.show(p.id, wire.NewVoucher(p.id), a.csr); !denied(err, "voucher.refused") {
			t.Errorf("a guess: %v", err)
		}
	}
	if n := w.facts(string(ledger.KindVoucherGuessed), p.id); n != 1 {
		t.Errorf("%d facts about guesses", n)
	}
	found := w.asking(p.id, []byte("another chip 123"))
	for range 3 {
		if _, err := w.show(p.id, second, found.csr); !denied(err, "voucher.chip") {
			t.Errorf("after guesses it is good, for its chip: %v", err)
		}
	}
	if _, err := w.show(p.id, second, a.csr); !denied(err, "voucher.ended") {
		t.Errorf("after too many tries with another chip: %v", err)
	}
	third := w.voucher(p.id)
	open, err := w.rekey.List(t.Context(), ann(), "", "", true, "", 0)
	must(t, err)
	if len(open) != 1 {
		t.Fatalf("open: %+v", open)
	}
	_, err = w.rekey.Revoke(t.Context(), ann(), open[0].ID, "not needed")
	must(t, err)
	if _, err := w.rekey.Revoke(t.Context(), ann(), open[0].ID, "again"); code(err) != "voucher.ended" {
		t.Errorf("twice: %v", err)
	}
	if _, err := w.show(p.id, third, a.csr); !denied(err, "voucher.ended") {
		t.Errorf("a revoked one: %v", err)
	}
	all, err := w.rekey.List(t.Context(), ann(), "thermo", p.id, false, "", 0)
	must(t, err)
	var states []rekey.State
	for _, v := range all {
		states = append(states, v.State)
	}
	if !slices.Equal(states, []rekey.State{rekey.Revoked, rekey.Locked, rekey.Revoked}) {
		t.Errorf("%v", states)
	}
	if n := w.facts(string(ledger.KindVoucherRevoked), p.id); n != 3 { // replaced, guessed, revoked
		t.Errorf("%d facts", n)
	}
}

// Two that show the same voucher at once with other keys: one of them gets a certificate, and the device has its keys.
func TestTwoAtOnceWithOneVoucher(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{})
	p := w.built(device.Active)
	secret := w.voucher(p.id)
	asks := []asking{w.asking(p.id, p.chip), w.asking(p.id, p.chip), w.asking(p.id, p.chip), w.asking(p.id, p.chip)}
	got := make([]*x509.Certificate, len(asks))
	var all sync.WaitGroup
	for i := range asks {
		all.Go(func() { got[i], _ = w.show(p.id, secret, asks[i].csr) })
	}
	all.Wait()
	won := slices.DeleteFunc(got, func(c *x509.Certificate) bool { return c == nil })
	if len(won) != 1 || w.facts(string(ledger.KindDeviceRekeyed), p.id) != 1 {
		t.Fatalf("%d certificates, %d facts", len(won), w.facts(string(ledger.KindDeviceRekeyed), p.id))
	}
	var identity []byte
	must(t, w.db.Read().QueryRowContext(t.Context(), `SELECT identity FROM device WHERE id = $1`, p.id).Scan(&identity))
	if sum := sha256.Sum256(won[0].RawSubjectPublicKeyInfo); !bytes.Equal(identity, sum[:]) {
		t.Error("the registry has another key than the one that was certified")
	}
}

// A key that a device has or had is not given to another.
func TestAKnownKeyIsNotTakenForNew(t *testing.T) {
	w := newLostWorld(t, rekey.Limits{})
	p, other := w.built(device.Active), w.built(device.Active)
	a := asking{key: other.idev.PrivateKey.(*ecdsa.PrivateKey), attest: newKey(t)}
	_, err := w.show(p.id, w.voucher(p.id), w.request(p.id, p.chip, a))
	var s *agentest.Status
	if !errors.As(err, &s) || s.Code != 409 || !strings.HasPrefix(s.Text, "voucher.key-known") {
		t.Errorf("another device's key: %v", err)
	}
	a.key = p.idev.PrivateKey.(*ecdsa.PrivateKey)
	if _, err := w.show(p.id, w.voucher(p.id), w.request(p.id, p.chip, a)); !errors.As(err, &s) || s.Code != 409 {
		t.Errorf("its own, which it has still: %v", err)
	}
}
