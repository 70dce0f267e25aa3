package rite

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

var errLeft = errors.New("somebody left")

// table is a desk whose people say yes, until the leave-th thing that they are asked.
type table struct {
	asked, leave int
	absent       string // gives no passphrase
	said         []string
}

func (d *table) ask() error {
	d.asked++
	if d.asked == d.leave {
		return errLeft
	}
	return nil
}

func (d *table) Say(lines ...string)                                   { d.said = append(d.said, lines...) }
func (d *table) Confirm(context.Context, string, string) error         { return d.ask() }
func (d *table) Type(context.Context, string) (string, error)          { return "4 2 6 1 1 3", d.ask() }
func (d *table) Share(context.Context, string, string) (string, error) { return "", d.ask() }

func (d *table) Passphrase(_ context.Context, person, _ string, _ bool) (string, error) {
	if person == d.absent {
		return "", d.ask()
	}
	return "of " + person, d.ask()
}

func (d *table) PIN(_ context.Context, person, _ string) (string, error) {
	return "1234-" + person, d.ask()
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func spkiOf(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// instanceRequest is what an instance asks of its first ceremony.
func instanceRequest(t *testing.T) ceremony.Brought {
	t.Helper()
	r := wire.CeremonyRequest{OEM: "acme", Instance: "hallmark.acme.example", Purpose: "the first ceremony", Issued: 1, NewRoot: true, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2}
	for _, c := range []wire.CARequest{{Role: wire.CAProduct, Product: "pump"}, {Role: wire.CAOperational}, {Role: wire.CAInfra}} {
		c.OEM, c.Instance, c.Purpose, c.Issued = r.OEM, r.Instance, "a CA", 1
		env, err := wire.SignCARequest(c, newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		r.CAs = append(r.CAs, env)
	}
	log := wire.LogTrust{Origin: "o", Key: bytes.Repeat([]byte{1}, 32)}
	r.Draft = &wire.Bundle{
		Version: 1, Product: "pump", Directive: wire.KeySet{Keys: [][]byte{spkiOf(t, newKey(t))}, Threshold: 1}, Control: log, Events: log,
		MaxAge: 60, Suites: []string{"HM-P256-1", "HM-MLDSA44-1"}, Issued: 1,
	}
	data, err := wire.EncodeCeremonyRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	return ceremony.Brought{Name: "request.ceremony", Data: data}
}

func cast() ceremony.Cast {
	return ceremony.Cast{
		Administrator: "adam", Custodians: []string{"alice", "bob", "carol"}, Witnesses: []string{"walt"}, Need: 2,
		Names: map[string]string{"alice": "Alice Example"},
	}
}

// place lays down a script with its files, and gives options to run it.
func place(t *testing.T, s ceremony.Script, files ...ceremony.Brought) Options {
	t.Helper()
	beside := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(beside, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := ceremony.EncodeScript(s)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Script: script, Beside: beside, Dir: filepath.Join(t.TempDir(), "held"), Iterations: 1000, Now: time.Now, Program: [32]byte{1}}
}

func first(t *testing.T) (Options, ceremony.Brought) {
	t.Helper()
	request := instanceRequest(t)
	s, err := ceremony.PlanFirst("acme-first", request, cast())
	if err != nil {
		t.Fatal(err)
	}
	return place(t, s, request), request
}

func mustRun(t *testing.T, o Options, d *table) Done {
	t.Helper()
	done, err := Run(t.Context(), o, d)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func answerOf(t *testing.T, done Done) wire.CeremonyAnswer {
	t.Helper()
	data, err := os.ReadFile(done.Answer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := wire.DecodeCeremonyAnswer(data)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// checkFirst holds what a first ceremony has made against what was asked.
func checkFirst(t *testing.T, a wire.CeremonyAnswer, request ceremony.Brought, script []byte) {
	t.Helper()
	root, err := x509.ParseCertificate(a.Root)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := ceremony.OpenRequests(request.Data)
	if err != nil {
		t.Fatal(err)
	}
	for i, one := range asked {
		if _, err := ceremony.CheckGrant(a.Grants[i], one, root, "acme"); err != nil {
			t.Error(err)
		}
	}
	if b, err := wire.VerifyBundle(nil, a.Bundle); err != nil || !bytes.Equal(b.Anchors[0], a.Root) || len(b.Root.Keys) != 3 {
		t.Errorf("bundle: %+v, %v", b, err)
	}
	tr, err := wire.OpenTranscript(a.Transcript)
	if err != nil {
		t.Fatal(err)
	}
	if err := ceremony.Follows(tr, script); err != nil {
		t.Error(err)
	}
	if len(tr.Signers().Keys) != 5 {
		t.Errorf("%d signed", len(tr.Signers().Keys))
	}
	if bytes.Contains(a.Transcript, []byte("Alice Example")) {
		t.Error("a whole name is in the transcript, which is public")
	}
}

func TestTheFirstCeremonyAnswersItsInstance(t *testing.T) {
	o, request := first(t)
	d := &table{}
	done := mustRun(t, o, d)
	checkFirst(t, answerOf(t, done), request, o.Script)
	if again := mustRun(t, o, &table{}); len(again.Transcript.Steps) != len(done.Transcript.Steps) || again.Transcript.Steps[3].At != done.Transcript.Steps[3].At {
		t.Error("a ceremony that is over was held again")
	}
}

// The script says of which suite a key is made: approvers of two suites sign the first bundle and the transcript together.
func TestApproversOfASuiteThatWithstandsQuantumComputers(t *testing.T) {
	request := instanceRequest(t)
	s, err := ceremony.PlanFirst("acme-first", request, cast())
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.Keys {
		if s.Keys[i].Name == "approver-alice" {
			s.Keys[i].Suite = "HM-MLDSA44-1"
		}
	}
	o := place(t, s, request)
	a := answerOf(t, mustRun(t, o, &table{}))
	checkFirst(t, a, request, o.Script)
	b, err := wire.VerifyBundle(nil, a.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	if pub, err := wire.ParseKey(b.Release.Keys[0]); err != nil {
		t.Error(err)
	} else if set, err := suite.Of(pub); err != nil || set.ID != suite.MLDSA44 {
		t.Errorf("alice's key is of suite %s (%v)", set.ID, err)
	}
}

// Wherever somebody leaves, the ceremony goes on there, and comes to what it would have come to.
func TestACeremonyMayBeLeftAtAnyMoment(t *testing.T) {
	o, request := first(t)
	whole := &table{}
	mustRun(t, o, whole)
	for n := 1; n <= whole.asked; n += 3 {
		o.Dir = filepath.Join(t.TempDir(), fmt.Sprint(n))
		if _, err := Run(t.Context(), o, &table{leave: n}); !errors.Is(err, errLeft) {
			t.Fatalf("left at %d: %v", n, err)
		}
		checkFirst(t, answerOf(t, mustRun(t, o, &table{})), request, o.Script)
	}
}

func TestARehearsalMakesNothingThatIsBelieved(t *testing.T) {
	o, request := first(t)
	o.Rehearsal = true
	a := answerOf(t, mustRun(t, o, &table{}))
	if !a.Rehearsal {
		t.Error("the answer does not say that it is of a rehearsal")
	}
	root, err := x509.ParseCertificate(a.Root)
	if err != nil || root.Subject.Organization[0] != "rehearsal.acme" {
		t.Fatalf("%v, %v", root.Subject, err)
	}
	asked, err := ceremony.OpenRequests(request.Data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ceremony.CheckGrant(a.Grants[0], asked[0], root, "acme"); err == nil {
		t.Error("a CA of the rehearsal was taken for one of the maker")
	}
	if _, err := wire.VerifyBundle(nil, a.Bundle); err == nil {
		t.Error("a trust bundle of the rehearsal was believed")
	}
	tr, err := wire.OpenTranscript(a.Transcript)
	if err != nil || !tr.Rehearsal {
		t.Fatalf("%v", err)
	}
	o.Rehearsal = false
	if _, err := Run(t.Context(), o, &table{}); err == nil {
		t.Error("the real ceremony went on from a rehearsal")
	}
}

func TestARehearsalTouchesNoRealKey(t *testing.T) {
	o, _ := second(t, nil)
	o.Rehearsal = true
	done := mustRun(t, o, &table{})
	for _, from := range o.From {
		for _, key := range []string{"oem-root", "approver-alice"} {
			data, err := os.ReadFile(filepath.Join(from, "out", key+".pub"))
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(data)
			used := 0
			for _, st := range done.Transcript.Steps {
				if st.Key != key {
					continue
				}
				used++
				if bytes.Equal(block.Bytes, st.SPKI) {
					t.Errorf("%s was used in a rehearsal", key)
				}
			}
			if used == 0 {
				t.Errorf("%s has no stand-in", key)
			}
		}
	}
	if a := answerOf(t, done); a.Bundle == nil || len(a.Grants) != 1 {
		t.Errorf("%d grants", len(a.Grants))
	}
}

// second holds a first ceremony, and plans one for a further product with its keys.
func second(t *testing.T, change func(*ceremony.Script)) (Options, ceremony.Brought) {
	t.Helper()
	o, _ := first(t)
	a := answerOf(t, mustRun(t, o, &table{}))
	b, err := wire.VerifyBundle(nil, a.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	b.Product = "valve"
	env, err := wire.SignCARequest(wire.CARequest{Role: wire.CAProduct, OEM: "acme", Product: "valve", Instance: "i", Purpose: "a second product", Issued: 1}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.EncodeCeremonyRequest(wire.CeremonyRequest{OEM: "acme", Instance: "i", Purpose: "a second product", Issued: 1, CAs: [][]byte{env}, Draft: &b})
	if err != nil {
		t.Fatal(err)
	}
	request, root := ceremony.Brought{Name: "valve.ceremony", Data: data}, ceremony.Brought{Name: "root.der", Data: a.Root}
	s, err := ceremony.PlanRequest("acme-valve", request, root, cast())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&s)
	}
	next := place(t, s, request, root)
	next.From = []string{o.Dir}
	return next, request
}

// The root is used again with the shares that the first ceremony made: any two of three, whoever is away.
func TestTheRootIsThereForAnyTwoOfItsHolders(t *testing.T) {
	o, request := second(t, nil)
	for _, away := range []string{"", "carol"} { // alice and bob sign the bundle themselves
		o.Dir = filepath.Join(t.TempDir(), "held")
		d := &table{}
		if away != "" { // carol has lost her share
			for _, from := range o.From {
				if err := os.Remove(filepath.Join(from, "shares", "oem-root-"+away+".share")); err != nil {
					t.Fatal(err)
				}
			}
		}
		a := answerOf(t, mustRun(t, o, d))
		asked, err := ceremony.OpenRequests(request.Data)
		if err != nil {
			t.Fatal(err)
		}
		root, err := x509.ParseCertificate(a.Root)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ceremony.CheckGrant(a.Grants[0], asked[0], root, "acme"); err != nil {
			t.Error(err)
		}
		if b, err := wire.VerifyBundle(nil, a.Bundle); err != nil || b.Product != "valve" {
			t.Error(err)
		}
	}
	for _, who := range []string{"alice"} { // one share is left
		if err := os.Remove(filepath.Join(o.From[0], "shares", "oem-root-"+who+".share")); err != nil {
			t.Fatal(err)
		}
	}
	o.Dir = filepath.Join(t.TempDir(), "held")
	if _, err := Run(t.Context(), o, &table{}); err == nil || !strings.Contains(err.Error(), "too few shares") {
		t.Errorf("one share of three: %v", err)
	}
}

func TestWhatIsNotHeld(t *testing.T) {
	o, _ := first(t)
	mustRun(t, o, &table{})
	at := func(name string) string { return filepath.Join(o.Dir, name) }
	keep := func(name string) func() {
		data, err := os.ReadFile(at(name))
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(at(name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, file := range map[string]string{
		"a certificate exchanged afterwards": "out/oem-root.der",
		"a step rewritten":                   "journal/03.step",
	} {
		back := keep(file)
		if err := os.WriteFile(at(file), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), o, &table{}); err == nil {
			t.Errorf("%s: it went on", name)
		}
		back()
	}
	other := o
	other.Program = [32]byte{2}
	if _, err := Run(t.Context(), other, &table{}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("another program: %v", err)
	}
	fresh, _ := first(t)
	if err := os.WriteFile(filepath.Join(fresh.Beside, "request.ceremony"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), fresh, &table{}); err == nil || !strings.Contains(err.Error(), "not the file that the script was written for") {
		t.Errorf("another request: %v", err)
	}
	pinned, _ := second(t, func(s *ceremony.Script) {
		for i := range s.Keys {
			if s.Keys[i].Name == "oem-root" {
				s.Keys[i].ID = strings.Repeat("00", 16)
			}
		}
	})
	if _, err := Run(t.Context(), pinned, &table{}); err == nil || !strings.Contains(err.Error(), "the right key is elsewhere") {
		t.Errorf("another root key: %v", err)
	}
}

// An approver is lost: the others make the next trust bundle, with somebody new.
func TestALostApproverIsReplaced(t *testing.T) {
	o, _ := first(t)
	a := answerOf(t, mustRun(t, o, &table{}))
	now, err := wire.VerifyBundle(nil, a.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	current := ceremony.Brought{Name: "pump.bundle", Data: a.Bundle}
	c := ceremony.Cast{Administrator: "adam", Custodians: []string{"alice", "bob", "dora"}, Need: 2}
	lost := ceremony.KeyID(now.Root.Keys[2]) // carol's
	s, err := ceremony.PlanApprover("pump-2", "acme", "carol has lost her key", current, c, []string{"dora"}, []string{lost})
	if err != nil {
		t.Fatal(err)
	}
	next := place(t, s, current)
	next.From = []string{o.Dir}
	done := mustRun(t, next, &table{})
	env, err := os.ReadFile(filepath.Join(next.Dir, "out", "pump.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.VerifyBundle(&now, env)
	if err != nil || b.Version != 2 || len(b.Root.Keys) != 3 {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, k := range b.Root.Keys {
		if ceremony.KeyID(k) == lost {
			t.Error("the lost key is still there")
		}
	}
	if done.Answer != "" {
		t.Error("an answer to nobody")
	}
	if _, err := ceremony.PlanApprover("x", "acme", "two are lost", current, ceremony.Cast{Administrator: "adam", Custodians: []string{"alice", "dora"}, Need: 2}, []string{"dora"}, []string{lost}); err == nil {
		t.Error("planned without enough of the current approvers")
	}
}

// A new root, and a list that the old one signs, with keys that init made in one directory under one passphrase.
func TestOfflineKeysOfTheQuickWayServeToo(t *testing.T) {
	dir := t.TempDir()
	store, err := soft.Create(dir, "of adam", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"oem-root", "approver-alice"} {
		if _, err := store.GenerateP256(n); err != nil {
			t.Fatal(err)
		}
	}
	k, err := store.Signer("oem-root")
	if err != nil {
		t.Fatal(err)
	}
	root, err := pki.NewRoot("acme", k, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	now := uint64(time.Now().Unix())
	req, err := wire.EncodeCRLRequest(wire.CRLRequest{
		Issuer: root.Cert.Raw, Number: 3, From: now, Until: now + 3600, Instance: "i", Purpose: "the operational CA was stolen",
		Revoked: []wire.CARevoked{{Serial: []byte{9}, At: now, Reason: 2, Name: "CN=operational"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	files := []ceremony.Brought{{Name: "root.der", Data: root.Cert.Raw}, {Name: "stolen.crlrequest", Data: req}}
	s := ceremony.Script{
		Version: 1, Ceremony: "stolen", Purpose: "a list", OEM: "acme", Root: "root.der",
		People: []ceremony.Person{{ID: "adam", Part: "administrator", Key: "person-adam"}, {ID: "alice", Part: "custodian", Key: "approver-alice"}},
		Keys:   []ceremony.Key{{Name: "person-adam", Holders: []string{"adam"}}, {Name: "approver-alice", Holders: []string{"adam"}}, {Name: "oem-root", Holders: []string{"adam"}}},
		Steps: []ceremony.Step{
			{Do: ceremony.DoMakeKey, Key: "person-adam"},
			{Do: ceremony.DoList, Key: "oem-root", File: "stolen.crlrequest"},
			{Do: ceremony.DoVerify},
		},
	}
	for _, f := range files {
		d := ceremony.Digest(f.Data)
		s.Files = append(s.Files, ceremony.File{Name: f.Name, SHA256: fmt.Sprintf("%x", d)})
	}
	s.People[1].ID, s.Keys[1].Holders = "alice", []string{"alice"}
	o := place(t, s, files...)
	o.From = []string{dir}
	if _, err := Run(t.Context(), o, &table{}); !errors.Is(err, soft.ErrPassphrase) { // the directory has one passphrase, and alice another
		t.Fatalf("alice's key under another passphrase: %v", err)
	}
	der, err := os.ReadFile(filepath.Join(o.Dir, "out", "stolen.crl"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil || list.CheckSignatureFrom(root.Cert) != nil || len(list.RevokedCertificateEntries) != 1 || list.Number.Int64() != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
}
