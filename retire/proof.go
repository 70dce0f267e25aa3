package retire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Proof is the proof of disposal: the entries of the ledger that tell of a device's end, each with proof that it is there.
type Proof struct {
	V       int              `json:"v"` // 1
	Device  string           `json:"device"`
	Product string           `json:"product"`
	Wiped   bool             `json:"wiped"`            // by its own signed receipt; false: written off, nobody saw it wiped
	Member  *wire.Membership `json:"member,omitempty"` // the device's place in the warrant's set
	Station []byte           `json:"station"`          // record key (SPKI) of the station that made it, of which its order has the digest
	Entries []Entry          `json:"entries"`
}

// Entry is a fact with its proof.
type Entry struct {
	Kind   ledger.Kind `json:"kind"`
	Logged []byte      `json:"logged"` // wire.Logged
}

// MaxProof bounds the document, and maxEntries what it holds: a device has a handful of certificates at a time.
const (
	MaxProof   = 8 << 20
	maxEntries = 256
)

// factsOf gives the facts a proof rests on, but its own, and the key of the station that made the device.
func (s *Service) factsOf(ctx context.Context, r Retirement) ([]LifeFact, []byte, error) {
	life, err := s.cfg.Store.Life(ctx, r.Device)
	if err != nil {
		return nil, nil, err
	}
	out := []LifeFact{{ledger.KindRetireOrdered, r.OrderUID}, {ledger.KindWarrantIssued, r.WarrantUID}}
	cmd, err := s.cfg.Store.WipeCommand(ctx, r.WarrantUID)
	if err == nil {
		out = append(out, LifeFact{ledger.KindCommandIssued, cmd.UID})
	} else if !errors.Is(err, ErrNotFound) {
		return nil, nil, err
	}
	return append(life.Facts, out...), life.Station, nil
}

// Proof assembles the proof of disposal of a disposed device. It is Unavailable until the last fact is witnessed.
func (s *Service) Proof(ctx context.Context, caller access.Caller, id string) (Proof, error) {
	r, err := s.checked(ctx, caller, access.DeviceRead, id)
	if err != nil {
		return Proof{}, err
	}
	if r.Phase != Disposed {
		return Proof{}, fault.New(fault.Conflict, "retire.phase", fmt.Sprintf("device %s is %s, not disposed", id, r.Phase), "dispose of it first")
	}
	facts, station, err := s.factsOf(ctx, r)
	if err != nil {
		return Proof{}, err
	}
	p := Proof{V: 1, Device: id, Product: r.Product, Wiped: len(r.Receipt) > 0, Station: station}
	for _, f := range facts {
		l, err := s.cfg.Ledger.Logged(ctx, f.UID)
		if errors.Is(err, ledger.ErrNotYetWitnessed) {
			return Proof{}, fault.Newf(fault.Unavailable, "retire.not-witnessed", "fact %s of device %s: %w", f.Kind, id, err).
				With("ask again when the witnesses have seen it")
		}
		if err != nil {
			return Proof{}, err
		}
		b, err := wire.EncodeLogged(l)
		if err != nil {
			return Proof{}, err
		}
		p.Entries = append(p.Entries, Entry{Kind: f.Kind, Logged: b})
	}
	ids, err := s.cfg.Warrants.WarrantDevices(ctx, r.WarrantUID)
	if err != nil {
		return Proof{}, err
	}
	m, err := wire.MembershipOf(ids, id)
	if err != nil {
		return Proof{}, fmt.Errorf("warrant %s: %w", r.Warrant, err)
	}
	p.Member = &m
	return p, nil
}

// DecodeProof reads a document.
func DecodeProof(data []byte) (Proof, error) {
	if len(data) > MaxProof {
		return Proof{}, fmt.Errorf("proof of disposal: %d bytes, at most %d", len(data), MaxProof)
	}
	var p Proof
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Proof{}, fmt.Errorf("proof of disposal: %w", err)
	}
	if dec.More() {
		return Proof{}, errors.New("proof of disposal: something follows it")
	}
	if p.V != 1 || p.Device == "" || p.Product == "" || len(p.Entries) == 0 || len(p.Entries) > maxEntries {
		return Proof{}, errors.New("proof of disposal: version, device, product or entries out of bounds")
	}
	return p, nil
}

// Verified is what a proof shows.
type Verified struct {
	Device   string    `json:"device"`
	Product  string    `json:"product"`
	Wiped    bool      `json:"wiped"`
	Erased   []string  `json:"erased,omitempty"`
	Remains  []string  `json:"remains,omitempty"` // what it said that it would erase only after its receipt, or could not
	Keys     []string  `json:"keys_destroyed,omitempty"`
	Order    string    `json:"order,omitempty"`   // that it was made under, if wiped
	Station  string    `json:"station,omitempty"` // that made it: SHA-256 of its record key, hex
	Warrant  string    `json:"warrant"`
	Revoked  int       `json:"certificates_revoked"`
	By       string    `json:"written_off_by,omitempty"` // who decided that nobody would see it wiped
	How      string    `json:"how"`
	Disposed time.Time `json:"disposed"`
}

// VerifyProof checks a proof against a product's trust bundle (the one in force when it was wiped), and nothing else: each entry
// is in its witnessed log; the warrant has its threshold and names the device; the command is the warrant's act; the receipt
// is signed by the key the production record gives the device, for just that warrant and command; the disposal rests on just
// these facts. The record is the device's only one, signed by the station its order names; the order is signed by the order key of
// the control log; the device's certificate leads by the order's CA to an anchor of the bundle; and the device proved that the
// receipt's key is its own. A revocation counts when it is the device's. A proof without a receipt shows a device that was written
// off, and by whom.
//
// What is trusted then: that the OEM signs orders, and certifies order CAs, for stations it chose. The trust bundle has the anchor of
// the certificates and the order keys (in bundles of before, which key that is, is what the control log says); that an order was given to
// just this station is what the control log says. Who holds the OEM's order key and product CA could order a device that exists on paper only, and would have
// to say so in that log, under the witnesses' eyes, before the device's record: a second order, or a second record of a device,
// is there for who reads the logs (`hallmark log verify`), and cannot be seen in one proof. Compare Verified.Station with the
// fingerprint of a station you know.
func VerifyProof(b wire.Bundle, p Proof) (Verified, error) {
	if p.Product != b.Product {
		return Verified{}, fmt.Errorf("proof is for product %q, the trust bundle for %q", p.Product, b.Product)
	}
	facts, uids, err := openEntries(b, p)
	if err != nil {
		return Verified{}, err
	}
	for _, k := range []ledger.Kind{ledger.KindCertRevoked, ledger.KindDeviceProvisioned, ledger.KindRetireWiped, ledger.KindRetireWrittenOff} {
		for _, f := range facts[k] {
			if f.Subject != p.Device {
				return Verified{}, fmt.Errorf("a fact %s is about %q", k, f.Subject)
			}
		}
	}
	v := Verified{Device: p.Device, Product: p.Product, Revoked: len(facts[ledger.KindCertRevoked])}
	one := func(k ledger.Kind) (wire.Fact, error) {
		if len(facts[k]) != 1 {
			return wire.Fact{}, fmt.Errorf("%d entries of kind %s, want one", len(facts[k]), k)
		}
		return facts[k][0], nil
	}
	disposed, err := one(ledger.KindRetireDisposed)
	if err != nil {
		return Verified{}, err
	}
	d, err := checkDisposal(p, disposed, uids)
	if err != nil {
		return Verified{}, err
	}
	v.How, v.Disposed, v.Warrant = d.How, time.UnixMilli(disposed.At).UTC(), d.Warrant
	warrant, err := one(ledger.KindWarrantIssued)
	if err != nil {
		return Verified{}, err
	}
	if err := checkWarrant(b, p, warrant, d.Warrant); err != nil {
		return Verified{}, err
	}
	if !p.Wiped {
		if len(facts[ledger.KindRetireWiped]) != 0 || d.Wiped {
			return Verified{}, errors.New("the proof says written off, its entries say wiped")
		}
		off, err := one(ledger.KindRetireWrittenOff)
		if err != nil {
			return Verified{}, err
		}
		v.By = off.Actor
		return v, nil
	}
	if err := checkWipe(b, p, d, one, facts[ledger.KindDeviceAttestKey], &v); err != nil {
		return Verified{}, err
	}
	return v, nil
}

func checkWipe(b wire.Bundle, p Proof, d Disposal, one func(ledger.Kind) (wire.Fact, error), changes []wire.Fact, v *Verified) error {
	born, err := checkBirth(b, p, one)
	if err != nil {
		return err
	}
	if born, err = born.grown(p.Device, changes); err != nil {
		return err
	}
	command, err := one(ledger.KindCommandIssued)
	if err != nil {
		return err
	}
	digest, err := wipeDigest(command.Data, p.Product)
	if err != nil {
		return err
	}
	wiped, err := one(ledger.KindRetireWiped)
	if err != nil {
		return err
	}
	rec, err := openReceipt(wiped.Data, born.attest)
	if err != nil {
		return err
	}
	if !d.Wiped || rec.Device != p.Device || rec.Warrant != d.Warrant || !bytes.Equal(rec.Command, digest[:]) {
		return errors.New("the receipt is of another device, warrant or command")
	}
	v.Wiped, v.Erased, v.Remains, v.Keys, v.Order, v.Station = true, rec.Erased, rec.Remains, rec.Keys, born.order, born.station
	return nil
}

// openEntries verifies each entry's place in its log, and sorts the facts by kind.
func openEntries(b wire.Bundle, p Proof) (map[ledger.Kind][]wire.Fact, map[string]bool, error) {
	facts, uids := map[ledger.Kind][]wire.Fact{}, map[string]bool{}
	for i, e := range p.Entries {
		l, err := wire.DecodeLogged(e.Logged)
		if err != nil {
			return nil, nil, fmt.Errorf("entry %d: %w", i, err)
		}
		log := b.Events
		if controlKind(e.Kind) {
			log = b.Control
		}
		if _, err := l.Proof.Verify(b.Policy(log), l.Entry); err != nil {
			return nil, nil, fmt.Errorf("entry %d, %s: %w", i, e.Kind, err)
		}
		f, err := wire.DecodeFact(l.Entry)
		if err != nil {
			return nil, nil, fmt.Errorf("entry %d: %w", i, err)
		}
		uid := fmt.Sprintf("%x", f.UID)
		if f.Kind != string(e.Kind) || uids[uid] {
			return nil, nil, fmt.Errorf("entry %d is a %s, and is said to be a %s, or is there twice", i, f.Kind, e.Kind)
		}
		uids[uid] = true
		facts[e.Kind] = append(facts[e.Kind], f)
	}
	return facts, uids, nil
}

// controlKind reports whether facts of kind k are in the control log.
func controlKind(k ledger.Kind) bool {
	return slices.Contains([]ledger.Kind{
		ledger.KindRetireOrdered, ledger.KindWarrantIssued, ledger.KindCommandIssued, ledger.KindOrderCreated, ledger.KindKeyCreated, ledger.KindDeskAdded,
	}, k)
}

func checkDisposal(p Proof, f wire.Fact, uids map[string]bool) (Disposal, error) {
	var d Disposal
	if err := json.Unmarshal(f.Data, &d); err != nil {
		return d, fmt.Errorf("disposal: %w", err)
	}
	if d.Device != p.Device || f.Subject != p.Device || d.Product != p.Product {
		return d, fmt.Errorf("the disposal is of device %s", d.Device)
	}
	for _, uid := range d.Facts {
		if !uids[uid] {
			return d, fmt.Errorf("the disposal rests on fact %s, which is left out", uid)
		}
	}
	return d, nil
}

func checkWarrant(b wire.Bundle, p Proof, f wire.Fact, id string) error {
	payload, err := wire.VerifyThreshold(wire.TypeWarrant, f.Data, b.Warrant)
	if err != nil {
		return err
	}
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return err
	}
	if w.ID != id || w.Act != wire.ActWipe || w.Product != p.Product {
		return fmt.Errorf("warrant %s is for %s of %s", w.ID, w.Act, w.Product)
	}
	if p.Member == nil {
		return errors.New("nothing shows that the warrant names the device")
	}
	return p.Member.Verify(w.Devices, p.Device)
}

func wipeDigest(envelope []byte, product string) ([32]byte, error) {
	o, err := wire.Parse1(wire.TypeCommand, envelope) // who signed it is the device's to judge, and the receipt names it
	if err != nil {
		return [32]byte{}, err
	}
	c, err := wire.DecodeCommand(o.Payload)
	if err != nil {
		return [32]byte{}, err
	}
	if c.Act != wire.ActWipe || c.Product != product {
		return [32]byte{}, fmt.Errorf("command %s is for %s of %s", c.ID, c.Act, c.Product)
	}
	return sha256.Sum256(o.Payload), nil
}

// openReceipt verifies a wipe receipt by an attestation key (SPKI).
func openReceipt(envelope, spki []byte) (wire.Receipt, error) {
	pub, err := wire.ParseKey(spki)
	if err != nil {
		return wire.Receipt{}, fmt.Errorf("attestation key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeReceipt, envelope, pub)
	if err != nil {
		return wire.Receipt{}, err
	}
	return wire.DecodeReceipt(payload)
}
