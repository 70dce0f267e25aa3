package store_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// What happens between a look and the write that rests on it: on this node, and on another.

// request is a request of a device for a key of its own.
func (w *authorityWorld) request(id string) (pkcs10.Request, *ecdsa.PrivateKey) {
	w.t.Helper()
	who, k := idevid.Identity{Kind: idevid.LDevID, DeviceID: id, OEM: "acme", Product: "pump", HWRev: "A"}, newKey(w.t)
	tmpl, err := idevid.RequestTemplate(who)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, k)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := pkcs10.Parse(der, who, true)
	if err != nil {
		w.t.Fatal(err)
	}
	return req, k
}

// A node that has not heard yet of a revocation gives who was revoked nothing that outlives it: neither by that certificate, nor as that device,
// nor by that CA.
func TestWhoIsRevokedMeanwhileGetsNoOtherCertificate(t *testing.T) {
	for name, revoke := range map[string]func(w *authorityWorld, c *x509.Certificate) error{
		"the certificate": func(w *authorityWorld, c *x509.Certificate) error {
			return w.service.Revoke(w.t.Context(), access.Internal("test"), pki.CertKey(c), pki.KeyCompromise)
		},
		"the device": func(w *authorityWorld, _ *x509.Certificate) error {
			return w.service.RevokeDevice(w.t.Context(), access.Internal("test"), deviceID(1), "pump", pki.KeyCompromise)
		},
		"the CA": func(w *authorityWorld, _ *x509.Certificate) error {
			return w.service.RevokeIssuer(w.t.Context(), access.Caller{ID: "system:test", Kind: access.System}, w.operational.Cert, pki.CACompromise)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newAuthorityWorld(t)
			id := deviceID(1)
			had := w.issue(w.service, id)
			other := w.node()
			d, err := other.Trust().VerifyDevice([]*x509.Certificate{had}, w.now)
			if err != nil {
				t.Fatal(err)
			}
			renewed, _ := w.request(id)
			next, err := other.Issue(t.Context(), access.DeviceCaller(id), d, renewed)
			if err != nil {
				t.Fatalf("before: %v", err)
			}
			again, _ := w.request(id)
			if _, err := other.Issue(t.Context(), access.DeviceCaller(id), d, again); err != nil {
				t.Fatalf("replaced, with time left: %v", err)
			}
			if err := revoke(w, had); err != nil {
				t.Fatal(err)
			}
			late, _ := w.request(id)
			if c, err := other.Issue(t.Context(), access.DeviceCaller(id), d, late); !errors.Is(err, pki.ErrRevoked) {
				t.Errorf("%v, %v: want it refused", c != nil, err)
			}
			held, err := w.db.PKI().Certificates(t.Context(), id, "", 100)
			if err != nil || len(held) != 3 || next == nil {
				t.Errorf("%d certificates, %v", len(held), err)
			}
		})
	}
}

// renews is an authority at which somebody renews the certificate of the old owner's time while it is being revoked.
type renews struct {
	held    []pki.Issued
	renewed int
}

func (r *renews) Certificates(_ context.Context, _ access.Caller, _, _, after string, _ int) (out []pki.Issued, _ error) {
	for _, c := range r.held {
		if c.Key > after {
			out = append(out, c)
		}
	}
	return out, nil
}

func (r *renews) Revoke(_ context.Context, _ access.Caller, key string, _ int) error {
	for i := range r.held {
		if r.held[i].Key == key {
			if r.renewed < 3 { // with the one that is about to end; its key sorts before
				r.renewed++
				r.held = append([]pki.Issued{{Key: string(rune('a' + 3 - r.renewed)), Role: profile.LDevID, NotAfter: r.held[i].NotAfter}}, r.held...)
				i++
			}
			r.held[i].Ended = r.held[i].NotAfter.Add(-time.Hour)
			return nil
		}
	}
	return pki.ErrNotFound
}

// A transfer leaves no operational certificate of the old owner's behind, also one that was renewed while the others were revoked.
func TestATransferRevokesWhatWasRenewedMeanwhile(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	ca := &renews{held: []pki.Issued{{Key: "z", Role: profile.LDevID, NotAfter: time.Now().AddDate(1, 0, 0)}}}
	o := x.db.Owners()
	svc, err := owner.NewService(owner.Config{
		Store: o, Codes: o, Transfers: o, Returns: o, Marks: o, Warrants: o, Devices: x.devices, Certificates: ca, Ledger: x.ledger, Guard: x.guard, Now: func() time.Time { return x.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	x.svc = svc
	x.a = x.claim(x.a, id, x.code(id))
	if _, err := svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"}); err != nil {
		t.Fatal(err)
	}
	if len(ca.held) != 4 {
		t.Fatalf("renewed %d times", ca.renewed)
	}
	for _, c := range ca.held {
		if c.Ended.IsZero() {
			t.Errorf("%s still holds", c.Key)
		}
	}
}

// meanwhile are codes between whose look and write something happens.
type meanwhile struct {
	owner.Codes
	then func()
}

func (m *meanwhile) Unclaimed(ctx context.Context, product, order string, ids []string, after string, limit int) ([]string, error) {
	out, err := m.Codes.Unclaimed(ctx, product, order, ids, after, limit)
	if m.then != nil {
		m.then()
	}
	return out, err
}

// Codes that are made while a device is claimed do not let another owner take it, without a transfer.
func TestACodeIsNoWayToWhatIsSomebodys(t *testing.T) {
	x := newSale(t, 1)
	id, o := devN(0), x.db.Owners()
	first := x.code(id)
	codes := &meanwhile{Codes: o, then: func() { x.a = x.claim(x.a, id, first) }}
	racing, err := owner.NewService(owner.Config{
		Store: o, Codes: codes, Transfers: o, Returns: o, Marks: o, Warrants: o, Devices: x.devices, Certificates: x.certs, Ledger: x.ledger, Guard: x.guard, Now: func() time.Time { return x.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	labels, _, err := racing.MakeCodes(t.Context(), person("sam"), owner.Labels{Product: "pump", Devices: []string{id}})
	if fault.KindOf(err) != fault.Conflict || len(labels) != 0 {
		t.Errorf("codes for what was claimed meanwhile: %d, %v", len(labels), err)
	}
	for _, l := range labels {
		if _, err := x.svc.Claim(t.Context(), x.b, owner.Claim{Device: id, Code: l.Code}); err == nil {
			t.Error("claimed from under its owner")
		}
	}
	p := owner.Period{Device: id, Number: 2, Owner: x.b.Owner, From: x.now}
	var hash [32]byte // however one came to be there
	if err := x.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO claim_code (device_id, hash, transfer, made) VALUES ($1, $2, 0, 0)`, id, hash[:])
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := o.Claim(t.Context(), p, hash, "pump", access.OwnerGroup(x.a.Owner), access.OwnerGroup(x.b.Owner)); !errors.Is(err, owner.ErrChanged) {
		t.Errorf("a second owner beside the first: %v", err)
	}
}

// stale are transfers as a node sees them that looked before another one wrote.
type stale struct {
	owner.Transfers
	blind bool
}

func (s *stale) Answer(ctx context.Context, id string, act wire.Act, since time.Time) (device.CommandDevice, error) {
	if s.blind {
		return device.CommandDevice{}, owner.ErrNotFound
	}
	return s.Transfers.Answer(ctx, id, act, since)
}

// Two nodes that come to a transfer at one time tell the device once: told twice, it would let go of the next owner as well.
func TestTwoNodesTellADeviceOnce(t *testing.T) {
	x := newSale(t, 1)
	id, o := devN(0), x.db.Owners()
	x.a = x.claim(x.a, id, x.code(id))
	begun, err := x.svc.Transfer(t.Context(), x.a, owner.Order{Devices: []string{id}, Kind: owner.Resale, Reason: "sold"})
	if err != nil {
		t.Fatal(err)
	}
	open, err := o.OpenTransfers(t.Context(), "", 10)
	if err != nil || len(open) != 1 || open[0].Tries != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	before := open[0]
	before.Tries, before.Command, before.Tried = 0, "", time.Time{} // as the other node has read it
	if err := o.SaveTransfer(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	other, err := owner.NewService(owner.Config{
		Store: o, Codes: o, Transfers: &stale{o, true}, Returns: o, Marks: o, Warrants: o, Devices: x.devices, Certificates: x.certs, Ledger: x.ledger, Guard: x.guard, Now: func() time.Time { return x.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	cmds := x.commands(id, wire.ActDisown)
	if len(cmds) != 1 {
		t.Fatalf("told %d times", len(cmds))
	}
	x.says(id, x.rel, true, false, map[string]wire.Outcome{cmds[0]: wire.OutcomeDone})
	x.tick()
	x.claim(x.b, id, begun[0].Code)
}

// Who is limited commands what is within their limits when the command is stored, not when it was looked at.
func TestACommandReachesNothingThatWasHandedOnMeanwhile(t *testing.T) {
	x := newSale(t, 2)
	x.a = x.claim(x.a, devN(0), x.code(devN(0)))
	n := 0
	put := func(within []string, id string) error {
		n++
		set, err := wire.SetOf([]string{id})
		if err != nil {
			t.Fatal(err)
		}
		c := device.Command{ID: fmt.Sprintf("%032x", n), Wire: wire.Command{Product: "pump", Act: wire.ActReset, Devices: set}, Issued: x.now, Expires: x.now.Add(time.Hour), Within: within}
		c.Wire.ID, c.Wire.Issued, c.Wire.Expires = c.ID, uint64(x.now.Unix()), uint64(x.now.Add(time.Hour).Unix())
		copy(c.Digest[:], c.ID)
		f := ledger.New(ledger.KindCommandIssued, x.now, "test", c.ID, nil, []byte{1})
		c.UID = f.UID
		return x.db.Devices().PutCommand(t.Context(), c, []string{id}, f)
	}
	for what, c := range map[string]struct {
		within []string
		id     string
		let    bool
	}{
		"the maker":              {nil, devN(1), true},
		"who has the product":    {[]string{"pump"}, devN(1), true},
		"its owner":              {x.a.Scope, devN(0), true},
		"another owner":          {[]string{"pump/" + access.OwnerGroup(x.b.Owner)}, devN(0), false},
		"who has it no more":     {x.a.Scope, devN(1), false},
		"who has nothing at all": {[]string{"?"}, devN(0), false},
	} {
		if err := put(c.within, c.id); (err == nil) != c.let || err != nil && !errors.Is(err, device.ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func factsOf(t *testing.T, db *store.DB, subject string) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE subject = $1`, subject).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// What the maker has marked as stolen, perhaps against its owner, the owner does not lift.
func TestAnOwnerDoesNotLiftTheMakersMark(t *testing.T) {
	x := newSale(t, 1)
	id := devN(0)
	x.a = x.claim(x.a, id, x.code(id))
	if err := x.svc.Steal(t.Context(), person("sam"), id, "never paid for"); err != nil {
		t.Fatal(err)
	}
	if err := x.svc.Found(t.Context(), x.a, id, "it is mine"); fault.KindOf(err) != fault.Denied {
		t.Errorf("lifted by its owner: %v", err)
	}
	if d, err := x.devices.Get(t.Context(), person("sam"), id); err != nil || d.Legitimacy != device.Stolen {
		t.Errorf("it is %s, %v", d.Legitimacy, err)
	}
	for _, who := range []access.Caller{x.a, person("olga")} {
		_, err := x.devices.Command(t.Context(), who, device.Instruction{Product: "pump", Act: wire.ActRelease, Devices: []string{id}, Reason: "it is mine"})
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != "command.stolen" {
			t.Errorf("let go of by %s: %v", who.ID, err)
		}
	}
	if err := x.svc.Found(t.Context(), person("sam"), id, "paid"); err != nil {
		t.Error(err)
	}
}

// A refusal for one thing hides none for another, and who invents devices hides none of those on record.
func TestARefusalHidesNoOther(t *testing.T) {
	db := storetest.Open(t)
	s, now := db.Onboard(), time.Now().UTC()
	refuse := func(id, code string) {
		t.Helper()
		r := onboard.Refusal{Device: id, Product: "pump", Issuer: "ca", Code: code, At: now}
		if err := s.Refuse(t.Context(), r, ledger.New(ledger.KindEnrolRefused, now, "test", id, nil, []byte(`{}`))); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		refuse("a", "enrol.state")
		refuse("a", onboard.FormerKey)
	}
	if n := factsOf(t, db, "a"); n != 2 {
		t.Errorf("%d facts about two kinds of refusals", n)
	}
	for i := range onboard.MaxRefusals + 1 {
		refuse(deviceID(i), onboard.Unordered)
	}
	refuse("b", onboard.FormerKey)
	if n := factsOf(t, db, "b"); n != 1 {
		t.Errorf("%d facts about a former key, behind a thousand strangers", n)
	}
	if n := factsOf(t, db, deviceID(onboard.MaxRefusals)); n != 0 {
		t.Errorf("%d facts about one stranger too many", n)
	}
}

// Whose a device is, and that two devices have one owner, is in no public log: what an owner's people do is there without their names, and
// without the group that all their devices are in. Who may read what is private reads who it was.
func TestThePublicDoesNotLearnWhoseADeviceIs(t *testing.T) {
	x := newSale(t, 2)
	x.a = x.buyer("xenia")
	for i := range 2 {
		x.a = x.claim(x.a, devN(i), x.code(devN(i)))
	}
	ids, mine := []string{devN(0), devN(1)}, access.OwnerGroup(x.a.Owner)
	at := int64(0)
	if err := x.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry`).Scan(&at); err != nil {
		t.Fatal(err)
	}
	reset, err := x.devices.Command(t.Context(), x.a, device.Instruction{Product: "pump", Act: wire.ActReset, Devices: ids, Reason: "hangs"})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.devices.CancelCommand(t.Context(), x.a, reset, "not needed"); err != nil {
		t.Fatal(err)
	}
	if err := x.devices.Group(t.Context(), x.a, ids, mine+"/ward-3", "moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := x.devices.Move(t.Context(), x.a, devN(0), device.Maintain, nil, "new seal"); err != nil {
		t.Fatal(err)
	}
	if err := x.svc.Steal(t.Context(), x.a, devN(1), "gone"); err != nil {
		t.Fatal(err)
	}
	rows, err := x.db.Read().QueryContext(t.Context(), `SELECT kind, data FROM entry`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := map[string]int{}
	for rows.Next() {
		var kind string
		var data []byte
		if err := rows.Scan(&kind, &data); err != nil {
			t.Fatal(err)
		}
		seen[kind]++
		if kind == string(ledger.KindOwnerCreated) {
			continue
		}
		for _, word := range []string{x.a.ID, x.a.Owner, "ward-3"} {
			if bytes.Contains(data, []byte(word)) {
				t.Errorf("%s says %q in public", kind, word)
			}
		}
	}
	if err := rows.Err(); err != nil || seen["command.cancelled"] != 1 || seen["device.grouped"] != 2 {
		t.Fatalf("facts %v, %v", seen, err)
	}
	lines, err := x.db.FleetTimeline(t.Context(), reset, 10)
	if err != nil || len(lines) == 0 || lines[0].Actor != x.a.ID {
		t.Errorf("who may read it reads %+v, %v", lines, err)
	}
}
