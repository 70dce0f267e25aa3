package custody

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// made is what the lines so far have established.
type made struct {
	product   string // of the trust bundles
	bundles   []trusted
	orderKeys OrderKeys
	order     *wire.Order
	orderAt   ledger.Ref
	record    *wire.Record
	recordAt  ledger.Ref
	attest    crypto.PublicKey
	cas       map[string]authority // by subject key identifier
	releases  map[[32]byte][]ledger.Ref
	published map[[32]byte]ledger.Ref
	commands  map[[32]byte]command
	warrants  map[string]warrant
	rollouts  map[string]ledger.Ref
	state     string
	logged    uint64   // last event of the device's own log
	head      [32]byte // after it
	anchored  bool
	identity  []byte           // SHA-256 of its identity key; nil: that of the record
	factory   []byte           // the certificate of that key; nil: that of the record
	origin    string           // of it, as the device said; with factory
	vouchers  map[string]*Line // that were issued for it and not used yet
}

func newMade() made {
	return made{
		cas: map[string]authority{}, releases: map[[32]byte][]ledger.Ref{}, published: map[[32]byte]ledger.Ref{},
		commands: map[[32]byte]command{}, warrants: map[string]warrant{}, rollouts: map[string]ledger.Ref{},
	}
}

type trusted struct {
	ledger.Ref
	wire.Bundle
	digest [32]byte // of the envelope
}

type authority struct {
	ledger.Ref
	*x509.Certificate
}

type command struct {
	ledger.Ref
	wire.Command
}

type warrant struct {
	ledger.Ref
	wire.Warrant
}

// check verifies what the format of a fact's data lets one verify, and says what that was. Of the other kinds the word of who wrote them is
// all there is.
func (j *judge) check(l *Line) (string, error) {
	switch l.Kind { //nolint:exhaustive // the others hold no signature and no link that could be checked
	case ledger.KindKeyCreated, ledger.KindKeyRetired, ledger.KindDeskAdded, ledger.KindDeskRemoved:
		j.orderKeys = j.orderKeys.Learn(l.Fact)
	case ledger.KindCACreated:
		return j.ca(l)
	case ledger.KindBundlePublished:
		return j.bundle(l)
	case ledger.KindOrderCreated:
		return j.ordered(l)
	case ledger.KindOrderClosed:
		return j.closed(l)
	case ledger.KindReleaseProposed, ledger.KindReleaseApproved, ledger.KindReleasePublished, ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed:
		return j.release(l)
	case ledger.KindRolloutCreated:
		return "", j.rollout(l)
	case ledger.KindCommandIssued:
		return j.command(l)
	case ledger.KindWarrantIssued:
		return j.warrant(l)
	case ledger.KindDeviceProvisioned:
		return j.provisioned(l)
	case ledger.KindCertIssued:
		return j.certificate(l)
	case ledger.KindVoucherIssued:
		return "", j.vouched(l)
	case ledger.KindDeviceRekeyed:
		return j.rekeyed(l)
	case ledger.KindDeviceAttestKey:
		return j.attestKey(l)
	case ledger.KindDeviceLogAnchored:
		return j.deviceLog(l)
	case ledger.KindDeviceState, ledger.KindDeviceOnboarded, ledger.KindDeviceQuarantined, ledger.KindDeviceReleased:
		return j.moved(l)
	case ledger.KindRetireOrdered:
		if w, ok := j.warrants[l.Subject]; ok {
			j.rests(l, w.Ref)
		}
	case ledger.KindRetireWiped:
		return j.wiped(l)
	case ledger.KindRetireDisposed:
		return j.disposed(l)
	}
	return "", nil
}

// bundleAt gives the trust bundle in force before an entry of the control log.
func (j *judge) bundleAt(index uint64) (trusted, error) {
	for _, b := range slices.Backward(j.bundles) {
		if b.Index < index {
			return b, nil
		}
	}
	return trusted{}, errors.New("no trust bundle was published before it")
}

func (j *judge) bundle(l *Line) (string, error) {
	var before *wire.Bundle
	if n := len(j.bundles); n > 0 {
		before = &j.bundles[n-1].Bundle
	}
	b, err := wire.VerifyBundle(before, l.Fact.Data)
	if err != nil {
		return "", err
	}
	if b.Product != l.Subject || before == nil && b.Version != 1 {
		return "", fmt.Errorf("trust bundle %d of %s does not begin those of %s", b.Version, b.Product, l.Subject)
	}
	j.product = b.Product
	if before != nil {
		j.rests(l, j.bundles[len(j.bundles)-1].Ref)
	}
	j.bundles = append(j.bundles, trusted{l.Ref, b, sha256.Sum256(l.Fact.Data)})
	return fmt.Sprintf("%d root keys of bundle %d signed", b.Root.Threshold, max(b.Version, 2)-1), nil
}

func (j *judge) ca(l *Line) (string, error) {
	c, err := x509.ParseCertificate(l.Fact.Data)
	if err != nil {
		return "", err
	}
	j.cas[string(c.SubjectKeyId)] = authority{l.Ref, c}
	return "", nil
}

func (j *judge) ordered(l *Line) (string, error) {
	o, by, err := j.orderKeys.Order(l.Fact, j.product)
	if err != nil {
		return "", err
	}
	j.order, j.orderAt = &o, l.Ref
	i := slices.IndexFunc(j.bundles, func(b trusted) bool { return bytes.Equal(o.Header.Bundle, b.digest[:]) })
	if i < 0 {
		return "", fmt.Errorf("the trust bundle that it puts on devices, %x, was not published before it", o.Header.Bundle)
	}
	j.rests(l, j.bundles[i].Ref)
	if at, ok := j.published[digestOf(o.Header.Release)]; ok {
		j.rests(l, at)
	} else {
		return "", fmt.Errorf("release %x was not published before it", o.Header.Release)
	}
	return fmt.Sprintf("signed by %s, for station %.8x", by.Signer(), o.Header.Station), nil
}

func digestOf(b []byte) (d [32]byte) { copy(d[:], b); return d }

func (j *judge) closed(l *Line) (string, error) {
	var closed struct {
		Certificate []byte `json:"job_end_certificate"`
	}
	if err := json.Unmarshal(l.Fact.Data, &closed); err != nil {
		return "", err
	}
	key, err := wire.ParseKey(j.c.Station)
	if err != nil {
		return "", fmt.Errorf("station key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeJobEnd, closed.Certificate, key)
	if err != nil {
		return "", err
	}
	end, err := wire.DecodeJobEnd(payload)
	if err != nil {
		return "", err
	}
	if j.order == nil || end.Order != j.order.Header.ID || end.Order != l.Subject || !bytes.Equal(end.Station, j.order.Header.Station) {
		return "", fmt.Errorf("the job-end certificate is of order %s", end.Order)
	}
	j.rests(l, j.orderAt)
	return fmt.Sprintf("the station signed for %d records", end.Records), nil
}

func (j *judge) release(l *Line) (string, error) {
	d := releaseOf(l.Fact)
	for _, at := range j.releases[d] {
		j.rests(l, at)
	}
	j.releases[d] = append(j.releases[d], l.Ref)
	switch l.Kind { //nolint:exhaustive // those of releases
	case ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed:
		return "", nil
	case ledger.KindReleaseProposed:
		_, err := wire.DecodeRelease(l.Fact.Data)
		return "", err
	}
	b, err := j.bundleAt(l.Index)
	if err != nil {
		return "", err
	}
	if l.Kind == ledger.KindReleaseApproved {
		any1 := wire.KeySet{Keys: b.Release.Keys, Threshold: 1}
		if _, err := wire.VerifyThreshold(wire.TypeRelease, l.Fact.Data, any1); err != nil {
			return "", err
		}
		_, signers, err := wire.ThresholdPayload(wire.TypeRelease, l.Fact.Data)
		signers = slices.DeleteFunc(signers, func(k wire.KeyID) bool { return !b.Release.Has(k) })
		return fmt.Sprintf("release keys that signed so far: %d of the %d that bundle %d wants", len(signers), b.Release.Threshold, b.Version), err
	}
	if _, _, err := wire.VerifyRelease(b.Bundle, l.Fact.Data); err != nil {
		return "", err
	}
	j.published[d] = l.Ref
	return fmt.Sprintf("signed by the %d release keys that bundle %d wants", b.Release.Threshold, b.Version), nil
}

// named checks that the device is in the set of the command or warrant at l, when its membership is given.
func (j *judge) named(l *Line, set wire.DeviceSet) (string, error) {
	for _, m := range j.c.Members {
		if m.Index != l.Index {
			continue
		}
		if j.used == nil {
			j.used = map[uint64]bool{}
		}
		j.used[m.Index] = true
		if err := m.Member.Verify(set, j.c.Device); err != nil {
			return "", err
		}
		return fmt.Sprintf("; names this device, one of %d", set.Count), nil
	}
	return "; not shown to name this device", nil
}

func (j *judge) rollout(l *Line) error {
	var spec struct {
		Release []byte `json:"release"`
	}
	if err := json.Unmarshal(l.Fact.Data, &spec); err != nil {
		return err
	}
	j.rollouts[l.Subject] = l.Ref
	if at, ok := j.published[digestOf(spec.Release)]; ok {
		j.rests(l, at)
	}
	return nil
}

func (j *judge) command(l *Line) (string, error) {
	b, err := j.bundleAt(l.Index)
	if err != nil {
		return "", err
	}
	payload, err := b.Directive.Verify1(wire.TypeCommand, l.Fact.Data)
	if err != nil {
		return "", err
	}
	c, err := wire.DecodeCommand(payload)
	if err != nil {
		return "", err
	}
	if c.ID != l.Subject || c.Product != j.product {
		return "", fmt.Errorf("command %s for product %s is recorded as one about %q of %s", c.ID, c.Product, l.Subject, j.product)
	}
	j.commands[sha256.Sum256(payload)] = command{l.Ref, c}
	if at, ok := j.rollouts[c.Rollout]; ok {
		j.rests(l, at)
	}
	if len(c.Release) > 0 {
		at, ok := j.published[digestOf(c.Release)]
		if !ok {
			return "", fmt.Errorf("release %x was not published before it", c.Release)
		}
		j.rests(l, at)
	}
	if wire.NeedsWarrant(c.Act) && !j.allowed(l, c.Act) {
		return "", fmt.Errorf("no warrant to %s was given before it", c.Act)
	}
	names, err := j.named(l, c.Devices)
	return fmt.Sprintf("directive key of bundle %d signed%s", b.Version, names), err
}

// allowed finds a warrant for an act.
func (j *judge) allowed(l *Line, act wire.Act) bool {
	for _, w := range j.warrants {
		if w.Act == act {
			j.rests(l, w.Ref)
			return true
		}
	}
	return false
}

func (j *judge) warrant(l *Line) (string, error) {
	b, err := j.bundleAt(l.Index)
	if err != nil {
		return "", err
	}
	signed := fmt.Sprintf("signed by the %d warrant keys that bundle %d wants", b.Warrant.Threshold, b.Version)
	payload, err := wire.VerifyThreshold(wire.TypeWarrant, l.Fact.Data, b.Warrant)
	if err != nil {
		claim, _, err2 := wire.ThresholdPayload(wire.TypeWarrant, l.Fact.Data)
		if w, err3 := wire.DecodeWarrant(claim); err2 != nil || err3 != nil || !wire.ChangesOwner(w.Act) || len(w.Owner) == 0 {
			return "", err
		}
		payload, signed = claim, "signed by the key of the device's owner, as the device has it, which is not public"
	}
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return "", err
	}
	if w.ID != l.Subject || w.Product != j.product {
		return "", fmt.Errorf("warrant %s for product %s is recorded as one about %q of %s", w.ID, w.Product, l.Subject, j.product)
	}
	j.warrants[w.ID] = warrant{l.Ref, w}
	names, err := j.named(l, w.Devices)
	return signed + names, err
}

func (j *judge) provisioned(l *Line) (string, error) {
	if j.order == nil || len(j.bundles) == 0 {
		return "", fmt.Errorf("the order it was made under is not here, or does not hold: %w", errBirth)
	}
	if l.Subject != j.c.Device || j.record != nil {
		return "", errors.New("a production record of another device, or a second one")
	}
	i := len(j.bundles) - 1
	for i > 0 && !bytes.Equal(j.bundles[i].digest[:], j.order.Header.Bundle) {
		i--
	}
	r, err := Made(j.bundles[i].Anchors, j.order.Header, j.c.Station, l.Fact)
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(j.at[j.orderAt].Fact.Data); r.Seq == 1 && !bytes.Equal(r.Prev, sum[:]) {
		return "", errors.New("the first production record does not follow the order")
	}
	if j.attest, err = wire.ParseKey(r.Keys.Attest); err != nil {
		return "", err
	}
	j.record, j.recordAt, j.head, j.state = &r, l.Ref, wire.LogOrigin(j.c.Device, r.Keys.Attest), "provisioned"
	j.rests(l, j.orderAt)
	return fmt.Sprintf("record %d of station %.8x, which order %s names; certificate leads to the maker's root; the device proved its keys", r.Seq, r.Station, r.Order), nil
}

// issuers names the CA of a certificate as ca.created facts may name it.
func issuers(der []byte) []string {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return []string{c.Issuer.CommonName, hex.EncodeToString(c.AuthorityKeyId)}
}

func (j *judge) certificate(l *Line) (string, error) {
	c, err := x509.ParseCertificate(l.Fact.Data)
	if err != nil {
		return "", err
	}
	ca, ok := j.cas[string(c.AuthorityKeyId)]
	if !ok {
		return "", fmt.Errorf("the CA that signed it, %s, is not here", c.Issuer.CommonName)
	}
	if err := c.CheckSignatureFrom(ca.Certificate); err != nil {
		return "", err
	}
	j.rests(l, ca.Ref)
	if len(j.bundles) == 0 {
		return "", errors.New("there is no trust bundle to anchor it")
	}
	roots, err := pool(j.bundles[len(j.bundles)-1].Anchors)
	if err != nil {
		return "", err
	}
	at := c.NotBefore
	if ca.NotBefore.After(at) { // both are set back a little, so that clocks may differ
		at = ca.NotBefore
	}
	if _, err := ca.Verify(x509.VerifyOptions{Roots: roots, Intermediates: j.between(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return "", fmt.Errorf("its CA does not lead to the trust bundle's anchors: %w", err)
	}
	id, err := idevid.Parse(c)
	if err != nil {
		return "", err
	}
	if id.DeviceID != j.c.Device || l.Subject != j.c.Device {
		return "", fmt.Errorf("the certificate is of device %s", id.DeviceID)
	}
	return "signed by " + ca.Subject.CommonName + ", which the maker's root signed", nil
}

// EventAccepted is the event of a device's own log that tells of a command it follows, with the command's digest.
const EventAccepted = "directive.accepted"

// accepted says whether what a device tells of a command is of the one in that place.
func (j *judge) accepted(at ledger.Ref, text string) bool {
	for digest, c := range j.commands {
		if c.Ref == at {
			return strings.Contains(text, hex.EncodeToString(digest[:]))
		}
	}
	return false
}

// byDevice gives what the device's own key signed.
func (j *judge) byDevice(typ wire.Type, l *Line) ([]byte, error) {
	if j.attest == nil {
		return nil, errors.New("the key it is signed with is not known: no production record")
	}
	return wire.Verify1(typ, l.Fact.Data, j.attest)
}

func (j *judge) deviceLog(l *Line) (string, error) {
	payload, err := j.byDevice(wire.TypeDeviceLog, l)
	if err != nil {
		return "", err
	}
	b, err := wire.DecodeLogBatch(payload)
	if err != nil {
		return "", err
	}
	if b.Device != j.c.Device || l.Subject != j.c.Device {
		return "", fmt.Errorf("the log is of device %s", b.Device)
	}
	began := j.anchored || j.c.Left == 0 // otherwise the anchors before are among what was left out
	if began && (b.First != j.logged+1 || !bytes.Equal(b.Prev, j.head[:])) {
		err = fmt.Errorf("the device's log goes on at %d, and was at %d: events are missing, or it forked", b.First, j.logged)
	}
	j.anchored, j.logged, j.head = true, b.Last, [32]byte(b.Head)
	for _, e := range b.Events {
		ev := Event{Seq: e.Seq, At: time.Unix(int64(min(e.At, 1<<40)), 0).UTC(), Kind: e.Kind, Text: string(e.Data)}
		if e.Cause != nil {
			at := ledger.Ref{Log: j.origins[e.Cause.Origin], Index: e.Cause.Index}
			ev.Cause = &at
			switch to := j.at[at]; {
			case err != nil:
			case to == nil:
				err = fmt.Errorf("the cause of event %d, entry %d of %s, is not here", e.Seq, e.Cause.Index, e.Cause.Origin)
			case to.Kind != ledger.KindCommandIssued || e.Kind == EventAccepted && !j.accepted(at, ev.Text):
				err = fmt.Errorf("event %d, %s %q, says that it follows from %s, which is %s %s: the device was shown another log", e.Seq, e.Kind, ev.Text, place(at), to.Kind, to.Subject)
			}
		}
		l.Events = append(l.Events, ev)
	}
	text := "the device's own key signed; follows what it logged before"
	if b.Gap != nil {
		text += fmt.Sprintf(", but for %d to %d, which the device says it lost", b.Gap.First, b.Gap.Last)
	}
	return text, err
}

func (j *judge) moved(l *Line) (string, error) {
	var c struct {
		From, To string
	}
	if err := json.Unmarshal(l.Fact.Data, &c); err != nil {
		return "", err
	}
	if c.To == "" || l.Subject != j.c.Device {
		return "", nil // of its legitimacy, or of another device
	}
	before := j.state
	j.state = c.To
	if before != "" && c.From != before {
		return "", fmt.Errorf("it left state %s, and was %s", c.From, before)
	}
	return "follows the state before", nil
}

func (j *judge) wiped(l *Line) (string, error) {
	payload, err := j.byDevice(wire.TypeReceipt, l)
	if err != nil {
		return "", err
	}
	r, err := wire.DecodeReceipt(payload)
	if err != nil {
		return "", err
	}
	c, ok := j.commands[digestOf(r.Command)]
	w, leave := j.warrants[r.Warrant]
	if !ok || !leave || c.Act != wire.ActWipe || r.Device != j.c.Device || l.Subject != j.c.Device {
		return "", fmt.Errorf("the receipt is of device %s for warrant %s, and its command or warrant is not here", r.Device, r.Warrant)
	}
	j.rests(l, c.Ref)
	j.rests(l, w.Ref)
	if j.anchored && r.LogSeq < j.logged {
		return "", fmt.Errorf("the receipt says the device's log ended at %d, and it went on to %d", r.LogSeq, j.logged)
	}
	return "the device's own key signed, for this warrant and command", nil
}

// disposed looks for the facts that the disposal says it rests on.
func (j *judge) disposed(l *Line) (string, error) {
	var d struct {
		Device string   `json:"device"`
		Facts  []string `json:"facts"`
	}
	if err := json.Unmarshal(l.Fact.Data, &d); err != nil {
		return "", err
	}
	if d.Device != j.c.Device || l.Subject != j.c.Device {
		return "", fmt.Errorf("the disposal is of device %s", d.Device)
	}
	for _, uid := range d.Facts {
		i := slices.IndexFunc(j.lines, func(o *Line) bool { return hex.EncodeToString(o.Fact.UID) == uid })
		if i < 0 {
			return "", fmt.Errorf("the disposal rests on fact %s, which is not here", uid)
		}
		j.rests(l, j.lines[i].Ref)
	}
	return fmt.Sprintf("all %d facts that it rests on are here", len(d.Facts)), nil
}
