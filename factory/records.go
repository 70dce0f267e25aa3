package factory

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// ImportReport is what an import did.
type ImportReport struct {
	Order    string     `json:"order"`
	Accepted int        `json:"accepted"`
	NotMade  int        `json:"not_made"`
	Known    int        `json:"known"`
	Alarms   []Standing `json:"alarms,omitempty"`
	Waiting  int        `json:"waiting"`         // records of chips that are in no manifest yet: import it, and then these records again
	Waits    []Standing `json:"waits,omitempty"` // the first of them
	JobEnd   bool       `json:"job_end"`         // the file held the job-end certificate
}

// verifier reads what the station of an order has signed.
type verifier struct {
	row    Order
	order  wire.Order
	record crypto.PublicKey // the station's; nil: the order came back from the log, which does not have it
}

// importer is one import under way: it opens what was sealed to us.
type importer struct {
	verifier
	s      *Service
	caller access.Caller
	secret secret
	ret    *ecdh.PrivateKey
	ca     *x509.Certificate
}

func (s *Service) get(ctx context.Context, id string) (Order, error) {
	o, err := s.c.Store.Order(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return Order{}, fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("no order %q", id), "see `hallmark order list`")
	}
	return o, err
}

// MayImport says whether caller may import records of an order: to be asked before a large file is read. ImportRecords asks again.
func (s *Service) MayImport(ctx context.Context, caller access.Caller, id string) error {
	row, lookup := s.get(ctx, id)
	if err := s.c.Guard.Check(ctx, caller, access.RecordsImport, resource(id, row.Product)); err != nil {
		return err
	}
	if fault.KindOf(lookup) == fault.NotFound {
		return unregistered(id)
	}
	return lookup
}

// ImportRecords takes in a station's record file. What was taken in before changes nothing. A file with one record that is not the
// station's is refused from that batch on; records that are authentic and impossible are alarms, and the rest is taken.
func (s *Service) ImportRecords(ctx context.Context, caller access.Caller, id string, file []byte) (ImportReport, error) {
	rep := ImportReport{Order: id}
	row, lookup := s.get(ctx, id)
	if err := s.c.Guard.Check(ctx, caller, access.RecordsImport, resource(id, row.Product)); err != nil {
		return rep, err
	}
	if fault.KindOf(lookup) == fault.NotFound {
		return rep, unregistered(id)
	}
	if lookup != nil {
		return rep, lookup
	}
	f, err := wire.DecodeRecordFile(file)
	if err != nil {
		return rep, fault.Newf(fault.Invalid, "records.invalid", "records: %w", err).With("take the file as the station wrote it")
	}
	if f.Order != id {
		return rep, fault.New(fault.Invalid, "records.order", fmt.Sprintf("the records are of order %q, not %q", f.Order, id), "import it under the order that it names")
	}
	im, err := s.importer(ctx, caller, row)
	if err != nil {
		return rep, err
	}
	// The end first, so that it holds for what comes with it. Another end than the one that is here does not hide the records.
	another, err := im.ends(ctx, f.Batches, &rep)
	if err != nil {
		return rep, err
	}
	if err := im.all(ctx, f.Batches, &rep); err != nil {
		return rep, err
	}
	return rep, another
}

func unregistered(id string) error {
	return fault.New(fault.NotFound, "order.unregistered", fmt.Sprintf("no order %q is here", id),
		"if a desk wrapped it, register it first: `hallmark order register FILE`; those that are here says `hallmark order list`")
}

// unseal opens the batch at place i of a file.
func (im *importer) unseal(i int, sealed []byte) (wire.RecordBatch, error) {
	b, err := wire.OpenBatch(im.row.ID, sealed, im.ret)
	if err != nil {
		return b, fault.Newf(fault.Invalid, "records.invalid", "records: batch %d: %w", i, err).With("take the file as the station wrote it")
	}
	return b, nil
}

// ends keeps the job end of a file, and sees that every batch of it can be read before any is taken. There is one end for an order:
// another is a fault of its own.
func (im *importer) ends(ctx context.Context, sealed [][]byte, rep *ImportReport) (another, err error) {
	var found [][]byte
	for i := range sealed {
		b, err := im.unseal(i, sealed[i])
		if err != nil {
			return nil, err
		}
		if len(b.JobEnd) > 0 {
			found = append(found, b.JobEnd)
		}
	}
	for _, end := range found {
		if _, err := im.jobEnd(end); err != nil {
			return nil, fault.Newf(fault.Denied, "records.forged", "job end of order %s: %w", im.row.ID, err).With("take the file as the station wrote it; when it was, look into the station")
		}
		err := im.s.c.Store.PutJobEnd(ctx, im.row.ID, end, im.denied)
		if errors.Is(err, ErrChanged) {
			another = fault.New(fault.Conflict, "order.ended", fmt.Sprintf("order %s has another job-end certificate already", im.row.ID), "the station's state was rolled back: investigate")
			continue
		}
		if err != nil {
			return nil, err
		}
		rep.JobEnd = true
	}
	return another, nil
}

// portion is how many batches are kept in one transaction. The more, the fewer pages are written twice; the fewer, the shorter others wait.
const portion = 5

// read is a portion whose signatures were verified.
type read struct {
	list        []Candidate
	inspections [][]byte
	err         error
}

// all takes the batches in, in their order, and verifies those of the next portion while the database has the last one.
func (im *importer) all(ctx context.Context, sealed [][]byte, rep *ImportReport) error {
	ctx, stop := context.WithCancel(ctx)
	ahead := make(chan read)
	go func() {
		defer close(ahead)
		for at := 0; at < len(sealed) && ctx.Err() == nil; at += portion {
			r := im.read(at, sealed[at:min(at+portion, len(sealed))])
			select {
			case ahead <- r:
			case <-ctx.Done():
			}
			if r.err != nil {
				return
			}
		}
	}()
	defer func() {
		stop()
		for range ahead { // until it has ended
		}
	}()
	for r := range ahead {
		if r.err != nil {
			return r.err
		}
		if err := im.take(ctx, r, rep); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// read opens and verifies batches, which begin at place at of their file.
func (im *importer) read(at int, sealed [][]byte) (r read) {
	var envelopes [][]byte
	for i := range sealed {
		b, err := im.unseal(at+i, sealed[i])
		if err != nil {
			return read{err: err}
		}
		envelopes, r.inspections = append(envelopes, b.Records...), append(r.inspections, b.Inspections...)
	}
	r.list = make([]Candidate, len(envelopes))
	g := errgroup.Group{}
	g.SetLimit(runtime.GOMAXPROCS(0)) // signatures: four of each device
	for i, e := range envelopes {
		g.Go(func() (err error) {
			r.list[i], err = im.candidate(e)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return read{err: fault.Newf(fault.Denied, "records.forged", "records of order %s: %w", im.row.ID, err).With("take the file as the station wrote it; when it was, look into the station")}
	}
	return r
}

func (im *importer) take(ctx context.Context, r read, rep *ImportReport) error {
	if len(r.list) > 0 {
		st, err := im.s.c.Store.AddRecords(ctx, im.row.ID, r.list)
		if err != nil {
			return fmt.Errorf("order %s: records: %w", im.row.ID, err)
		}
		for _, x := range st {
			rep.add(x)
		}
	}
	return im.inspections(ctx, r.inspections)
}

func (s *Service) verifier(ctx context.Context, row Order) (v verifier, err error) {
	v.row = row
	if len(row.RecordKey) > 0 {
		if v.record, err = x509.ParsePKIXPublicKey(row.RecordKey); err != nil {
			return v, fmt.Errorf("order %s: record key: %w", row.ID, err)
		}
	}
	if v.order, err = s.signed(ctx, row); err != nil {
		return v, fmt.Errorf("order %s: %w", row.ID, err)
	}
	return v, nil
}

// said gives the payload of what the station has signed. Without its key it is what is kept with the order, which was verified before it was stored; an
// importer has the key.
func (v verifier) said(t wire.Type, envelope []byte) ([]byte, error) {
	if v.record != nil {
		return wire.Verify1(t, envelope, v.record)
	}
	e, err := wire.Parse1(t, envelope)
	if err != nil {
		return nil, err
	}
	return e.Payload, nil
}

func (s *Service) importer(ctx context.Context, caller access.Caller, row Order) (*importer, error) {
	im := &importer{s: s, caller: caller}
	var err error
	if im.secret, err = s.secret(row); err != nil {
		return nil, err
	}
	if im.ret, err = ecdh.P256().NewPrivateKey(im.secret.Return); err != nil {
		return nil, fmt.Errorf("order %s: return key: %w", row.ID, err)
	}
	if im.verifier, err = s.verifier(ctx, row); err != nil {
		return nil, err
	}
	if im.record == nil {
		return nil, lost(row)
	}
	if im.ca, err = x509.ParseCertificate(im.order.Header.Chain[0]); err != nil {
		return nil, fmt.Errorf("order %s: order CA: %w", row.ID, err)
	}
	return im, nil
}

// lost is for an order that came back from the log alone. No record of it can be opened.
func lost(row Order) error {
	remedy := "its records cannot be opened any more: restore the database from a newer backup, if there is one"
	if row.Desk != "" {
		remedy = "the desk's registration has them: `hallmark order register FILE`"
	}
	return fault.New(fault.Conflict, "order.secrets-lost", fmt.Sprintf("the secrets of order %s were lost with a database: it came back from the log, which does not have them", row.ID), remedy)
}

// signed reads an order that the order key signed, one of those before it, or that of the desk that wrapped it.
func (s *Service) signed(ctx context.Context, row Order) (o wire.Order, err error) {
	keys := []crypto.PublicKey{s.c.OrderKey.Public()}
	if s.c.Former != nil {
		keys = append(keys, s.c.Former()...)
	}
	if row.Desk != "" {
		d, err := s.deskOf(ctx, row.Desk)
		if err != nil {
			return o, err
		}
		key, err := wire.ParseKey(d.OrderKey)
		if err != nil {
			return o, fmt.Errorf("desk %s: %w", d.Name, err)
		}
		keys = []crypto.PublicKey{key}
	}
	for _, k := range keys {
		if o, err = wire.VerifyOrder(row.Envelope, k); err == nil {
			return o, nil
		}
	}
	return o, fault.Newf(fault.Conflict, "order.unsigned", "no order key that is or was in use here has signed order %s as it is kept: %w", row.ID, err).
		With("see `hallmark key list`, and whether the database is whole")
}

// shownWaits bounds how many of the waiting are told of.
const shownWaits = 20

func (r *ImportReport) add(s Standing) {
	switch s.State {
	case Accepted:
		r.Accepted++
	case NotMade:
		r.NotMade++
	case Known:
		r.Known++
	case Waiting:
		if r.Waiting++; len(r.Waits) < shownWaits {
			r.Waits = append(r.Waits, s)
		}
	default:
		r.Alarms = append(r.Alarms, s)
	}
}

// Join adds what the import of another part of the same order did.
func (r *ImportReport) Join(o ImportReport) {
	r.Accepted, r.NotMade, r.Known, r.Waiting = r.Accepted+o.Accepted, r.NotMade+o.NotMade, r.Known+o.Known, r.Waiting+o.Waiting
	r.Alarms, r.JobEnd = append(r.Alarms, o.Alarms...), r.JobEnd || o.JobEnd
	r.Waits = append(r.Waits, o.Waits[:min(len(o.Waits), shownWaits-len(r.Waits))]...)
}

func (v verifier) jobEnd(envelope []byte) (wire.JobEnd, error) {
	payload, err := v.said(wire.TypeJobEnd, envelope)
	if err != nil {
		return wire.JobEnd{}, err
	}
	j, err := wire.DecodeJobEnd(payload)
	if err == nil && (j.Order != v.row.ID || !bytes.Equal(j.Station, v.order.Header.Station)) {
		err = errors.New("it is of another order or station")
	}
	return j, err
}

// candidate authenticates one envelope. An error means that it is not the station's word; anything else wrong with it is in Bad.
func (im *importer) candidate(envelope []byte) (Candidate, error) {
	payload, err := wire.Verify1(wire.TypeRecord, envelope, im.record)
	if err != nil {
		return Candidate{}, err
	}
	r, err := wire.DecodeRecord(payload)
	if err != nil {
		return Candidate{}, err
	}
	if r.Order != im.row.ID || !bytes.Equal(r.Station, im.order.Header.Station) {
		return Candidate{}, fmt.Errorf("record %d is of another order or station", r.Seq)
	}
	c := Candidate{
		Seq: r.Seq, Hash: wire.RecordHash(envelope), Prev: [32]byte(r.Prev), Ticket: r.Ticket, Serial: r.Device, Outcome: r.Outcome, Rework: r.Rework,
		Envelope: envelope, IDevID: r.Certificate, Chips: im.order.Header.Chips,
	}
	if r.Chip != nil {
		c.ChipUID = r.Chip.ChipUID
	}
	if r.Keys != nil {
		id, at := sha256.Sum256(r.Keys.IDevID), sha256.Sum256(r.Keys.Attest)
		c.Identity, c.Attest = id[:], at[:]
	}
	if bad := im.examine(r); bad != nil {
		c.Bad = bad.Error()
	}
	if c.Outcome == wire.Made {
		c.Device = device.Device{
			ID: r.Device, Product: im.row.Product, Hardware: im.row.Hardware, State: device.Provisioned, Legitimacy: device.Genuine,
			Order: im.row.ID, Station: im.row.Station, Made: time.Unix(int64(r.Time), 0).UTC(), AttestKey: r.Keys.Attest,
			KeyOrigin: r.Keys.Origin, Virtual: r.Chip.Virtual, Since: time.Unix(int64(r.Time), 0).UTC(),
			Twin: device.Twin{Release: im.order.Header.Release, Version: im.row.Version, Bundle: im.row.Bundle},
		}
	}
	now := im.s.c.Now()
	c.Accept = ledger.New(ledger.KindDeviceProvisioned, now, im.caller.ID, r.Device, nil, envelope)
	c.Alarm = func(reason string) ledger.Fact { return im.alarm(r, c.Hash, reason, now) }
	return c, nil
}

// denied is the alarm about a record that was taken before the end that denies it was here.
func (im *importer) denied(record []byte, reason string) (ledger.Fact, error) {
	c, err := im.candidate(record)
	if err != nil {
		return ledger.Fact{}, err
	}
	return c.Alarm(reason), nil
}

// Alarm is the data of the order.record.refused fact of a record that cannot be true.
type Alarm struct {
	Code    string `json:"code"` // factory.record
	Order   string `json:"order"`
	Station string `json:"station"`
	Seq     uint32 `json:"seq"`
	Ticket  uint32 `json:"ticket"`
	Device  string `json:"device"`
	Chip    string `json:"chip,omitempty"`
	Record  string `json:"record"` // hash of the envelope
	Reason  string `json:"reason"`
}

func (im *importer) alarm(r wire.Record, hash [32]byte, reason string, now time.Time) ledger.Fact {
	a := Alarm{
		Code: "factory.record", Order: r.Order, Station: im.row.Station, Seq: r.Seq, Ticket: r.Ticket, Device: r.Device,
		Record: hex.EncodeToString(hash[:]), Reason: reason,
	}
	if r.Chip != nil {
		a.Chip = hex.EncodeToString(r.Chip.ChipUID)
	}
	data, _ := json.Marshal(a) // strings and numbers only
	return ledger.New(ledger.KindRecordRefused, now, im.caller.ID, r.Device, nil, data)
}

// ClockSkew is how far behind an order's end a piece may say it was made: stations' clocks err, and a piece that was begun in time
// is finished. When records arrive is nobody's concern.
const ClockSkew = 10 * time.Minute

func stamp(t uint64) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC3339) }

// examine says why an authentic record cannot be of this order.
func (im *importer) examine(r wire.Record) error {
	h := im.order.Header
	if r.Ticket >= h.Quota || r.Seq > h.Quota {
		return fmt.Errorf("over-production: ticket %d, record %d, quota %d", r.Ticket, r.Seq, h.Quota)
	}
	if want := wire.DeviceID(im.secret.Seed, r.Ticket); r.Device != want {
		return fmt.Errorf("serial %s does not come from ticket %d", r.Device, r.Ticket)
	}
	if r.Outcome != wire.Made {
		return nil
	}
	if r.Time > h.NotAfter && r.Time-h.NotAfter > uint64(ClockSkew/time.Second) {
		return fmt.Errorf("made at %s, after the order's end at %s", stamp(r.Time), stamp(h.NotAfter))
	}
	if err := r.Verify(); err != nil {
		return err
	}
	if r.Keys.Origin == wire.OriginStation && h.Keys != wire.OriginStation {
		return errors.New("its keys were made by the station, and the order does not allow it")
	}
	if err := im.certificate(r); err != nil {
		return err
	}
	if r.Chip.Hardware != h.Hardware {
		return fmt.Errorf("hardware %q, ordered %q", r.Chip.Hardware, h.Hardware)
	}
	b, sum := r.ReadBack, sha256.Sum256(r.Certificate)
	if !bytes.Equal(b.Bundle, h.Bundle) || !bytes.Equal(b.Release, im.row.ReleaseSum) || !bytes.Equal(b.Params, im.row.ParamsSum) ||
		!bytes.Equal(b.Certificate, sum[:]) || len(b.Components) != len(im.row.Components) {
		return errors.New("what was read back is not what was ordered")
	}
	for i, c := range im.row.Components {
		if b.Components[i].Name != c.Name || !bytes.Equal(b.Components[i].Digest, c.Digest) {
			return fmt.Errorf("component %q read back is not what was ordered", c.Name)
		}
	}
	if f := r.Fuses; !bytes.Equal(f.Root, h.Root) || f.Counter != h.Counter || f.Lifecycle != wire.LifecycleSecured || !f.DebugLocked {
		return errors.New("the fuses do not close the device")
	}
	return nil
}

func (im *importer) certificate(r wire.Record) error {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := cert.CheckSignatureFrom(im.ca); err != nil {
		return fmt.Errorf("certificate: not by the order CA: %w", err)
	}
	id, err := idevid.Parse(cert)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	want := idevid.Identity{Kind: idevid.IDevID, DeviceID: r.Device, OEM: im.row.OEM, Product: im.row.Product, HWRev: im.row.Hardware}
	if id != want {
		return fmt.Errorf("certificate: it names %+v, want %+v", id, want)
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, r.Keys.IDevID) {
		return errors.New("certificate: not for the key the device proved")
	}
	return nil
}
