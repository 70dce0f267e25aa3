package station

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Programmer is one piece on the line. Calls come in this order; after an error only Close is called. A call that cannot be done
// again says so by its error: the piece is scrap.
type Programmer interface {
	Identify(ctx context.Context) (wire.ChipHello, error)
	GenerateKeys(ctx context.Context, q wire.KeyRequest) (wire.KeyReply, error)
	// Install lays down everything; payload yields the components' bytes in order. A chunk's data is there until put returns.
	Install(ctx context.Context, i wire.Install, payload func(put func(wire.Chunk) error) error) error
	ReadBack(ctx context.Context) (wire.ReadBack, error)
	Fuse(ctx context.Context, f wire.FuseRequest) (wire.FuseState, error)
	// Close ends the work on the piece; made says whether it is good.
	Close(made bool) error
}

// Source brings pieces to the line. Next blocks until there is one.
type Source interface {
	Next(ctx context.Context) (Programmer, error)
}

// RunSpec says what to make.
type RunSpec struct {
	Order    string
	Devices  int              // pieces to make; each uses a ticket, whether it turns out well or not
	Parallel int              // pieces on the line at once; 0: one
	Rework   bool             // take pieces again whose making failed before their fuses were burnt
	First    bool             // make the first article: one piece, to be inspected before others
	Operator string           // in the records
	Line     string           // in the records
	Now      func() time.Time // nil: time.Now
	Progress func(wire.Record)
	// Gang goes on with the other pieces when one is refused before a ticket is spent on it, and finishes those that are being made when the
	// run is stopped by too many that went wrong.
	Gang bool
}

// Report is what a run made.
type Report struct {
	Order    string   `json:"order"`
	Made     int      `json:"made"`
	Scrapped int      `json:"scrapped"`
	Left     uint32   `json:"left"`
	Devices  []string `json:"devices,omitempty"` // IDs of the pieces made, at most reportDevices

	Refused int                `json:"refused,omitempty"` // pieces that no ticket was spent on (Gang)
	Pieces  []Refusal          `json:"pieces,omitempty"`  // the first of them
	Places  map[string]*Counts `json:"places,omitempty"`  // where pieces lay in a gang
}

// Refusal is a piece that was not begun.
type Refusal struct {
	Place  string `json:"place,omitempty"`
	Reason string `json:"reason"`
}

// Counts are what became of the pieces of one place.
type Counts struct {
	Made     int `json:"made"`
	Scrapped int `json:"scrapped"`
	Refused  int `json:"refused"`
}

// placed is a Programmer at one of several places.
type placed interface{ Place() string }

// stationKeys is a Programmer for chips that cannot make their keys.
type stationKeys interface{ StationKeys() bool }

const (
	reportDevices = 1000
	maxGangLine   = 39 // bytes: the place stands behind the line's name in a record
	// scrapsInARow stops a run: so many bad pieces one after another is the line's fault, and tickets are not for guessing.
	scrapsInARow = 3
)

// run is one Run under way.
type run struct {
	s    *Station
	o    *opened
	j    *job
	spec RunSpec

	mu     sync.Mutex // guards what follows and the caller's Progress
	report Report
	row    int
	missed int             // refused in a row
	onLine map[string]bool // chips that are being made
}

// Run makes devices. It refuses before the first piece when the order is closed, not valid now, out of tickets, or when its
// records have not gone to the OEM for too long.
func (s *Station) Run(ctx context.Context, spec RunSpec, src Source) (rep Report, err error) {
	if spec.Now == nil {
		spec.Now = time.Now
	}
	if spec.Devices < 1 || len(spec.Operator) > 64 || len(spec.Line) > 64 || spec.Gang && len(spec.Line) > maxGangLine {
		return rep, fault.New(fault.Invalid, "run.invalid", fmt.Sprintf("%d devices by operator %q on line %q", spec.Devices, spec.Operator, spec.Line), "ask for at least one device; names have at most 64 bytes, a line's with a fixture 39")
	}
	o, err := s.load(spec.Order, spec.Now(), true)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if err := o.checkKept(); err != nil {
		return rep, err
	}
	j, err := s.openJob(spec.Order, wire.RecordHash(o.envelope))
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if err := j.ready(o.order.Header, spec.Now()); err != nil {
		return rep, err
	}
	if err := j.settle(s, o, spec.Now()); err != nil {
		return rep, err
	}
	if err := j.mayGoOn(o.order.Header, spec); err != nil {
		return rep, err
	}
	if left := o.order.Header.Quota - j.used; uint64(spec.Devices) > uint64(left) {
		return rep, quotaFault(spec.Order, o.order.Header.Quota, left, spec.Devices)
	}
	r := &run{s: s, o: o, j: j, spec: spec, report: Report{Order: spec.Order}, onLine: map[string]bool{}}
	err = r.all(ctx, src)
	r.report.Left = o.order.Header.Quota - j.used
	return r.report, err
}

// ready checks what may stop a run although the order is good.
func (j *job) ready(h wire.OrderHeader, now time.Time) error {
	if j.used > h.Quota {
		return fault.New(fault.Conflict, "order.journal", fmt.Sprintf("order %s: the journal holds more tickets than the quota", j.order), "call the OEM: this station's disk was changed")
	}
	if j.end != nil {
		return refused("closed", fmt.Errorf("order %q was closed here", j.order))
	}
	if err := j.clock(func() time.Time { return now }); err != nil {
		return err
	}
	since := j.state.Imported
	if j.state.Exported.After(since) {
		since = j.state.Exported
	}
	if limit := time.Duration(h.MaxOffline) * 24 * time.Hour; limit > 0 && now.Sub(since) > limit {
		return fault.New(fault.Denied, "order.offline", fmt.Sprintf("order %s: no records exported since %s; the OEM allows %d days", j.order, since.Format(time.RFC3339), h.MaxOffline), "export the records and send them to the OEM")
	}
	return nil
}

// clock refuses a time before what is recorded already: dates of records are looked at when something went wrong.
func (j *job) clock(clock func() time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := clock() // not before: a record may have been written meanwhile
	if now.Unix() >= int64(j.lastTime) {
		return nil
	}
	return fault.New(fault.Conflict, "station.clock", fmt.Sprintf("the clock says %s, the last record of order %s %s", now.UTC().Format(time.RFC3339), j.order, unix(j.lastTime)),
		"set the station's clock; if it was the record that had the wrong time, close the order and ask the OEM for another")
}

// errEnough ends a run that goes wrong again and again.
var errEnough = errors.New("too many pieces scrapped in a row")

func (r *run) all(ctx context.Context, src Source) error {
	line := ctx
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(r.spec.Parallel, 1))
	for range r.spec.Devices {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return r.piece(ctx, line, src) })
	}
	err := g.Wait()
	if errors.Is(err, errEnough) {
		return fault.New(fault.Conflict, "run.scrap", fmt.Sprintf("order %s: %d pieces scrapped one after another", r.spec.Order, r.scraps()), "see the reasons in the records, mend the line, run again")
	}
	return err
}

// piece makes the next piece. In a gang it is the next that is fit; what is begun is finished although another piece ends the run: line is the
// context of the whole run.
func (r *run) piece(ctx, line context.Context, src Source) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, err := src.Next(ctx)
		if err != nil {
			return err
		}
		if !r.spec.Gang {
			return r.one(ctx, p)
		}
		var no *notBegun
		if err = r.one(line, p); !errors.As(err, &no) {
			return err
		}
		if err := r.refuse(p, no); err != nil {
			return err
		}
	}
}

// notBegun is why no ticket was spent on a piece, where the reason is the piece's own.
type notBegun struct{ error }

func (n *notBegun) Unwrap() error { return n.error }

// refuse counts a piece that was not begun.
func (r *run) refuse(p Programmer, why error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Refused++
	f := Refusal{Reason: reason(why)}
	if at := r.place(p); at != nil {
		at.Refused++
		f.Place = p.(placed).Place() //nolint:forcetypeassert // place has looked
	}
	if len(r.report.Pieces) < reportDevices {
		r.report.Pieces = append(r.report.Pieces, f)
	}
	if r.missed++; r.missed >= missesInARow*max(r.spec.Parallel, 1) {
		return fault.New(fault.Conflict, "run.refused", fmt.Sprintf("order %s: %d pieces refused one after another, the last: %s", r.spec.Order, r.missed, f.Reason), "see to the fixture and its pieces, run again")
	}
	return nil
}

// place gives the counts of the place where a piece lies; nil when it has none. The caller holds mu.
func (r *run) place(p Programmer) *Counts {
	at, ok := p.(placed)
	if !ok {
		return nil
	}
	if r.report.Places == nil {
		r.report.Places = map[string]*Counts{}
	}
	c := r.report.Places[at.Place()]
	if c == nil {
		c = &Counts{}
		r.report.Places[at.Place()] = c
	}
	return c
}

// one makes one piece. A piece that is not fit is refused before a ticket is spent on it; from then on every end has a record.
func (r *run) one(ctx context.Context, p Programmer) (err error) {
	made := false
	defer func() { err = errors.Join(err, p.Close(made)) }()
	if err := r.inTime(); err != nil {
		return err
	}
	if k, ok := p.(stationKeys); ok && k.StationKeys() && r.o.order.Header.Keys != wire.OriginStation {
		return fault.New(fault.Denied, "order.keys", fmt.Sprintf("order %s does not allow that the station makes a device's keys, and these chips cannot", r.spec.Order),
			"ask the OEM for an order with `hallmark order create --keys station`, or use a fixture whose devices make their own")
	}
	chip, err := p.Identify(ctx)
	if err != nil {
		return &notBegun{fmt.Errorf("identify the piece: %w", err)}
	}
	if !r.claim(chip.ChipUID) {
		return &notBegun{r.unfit(chip, "a piece with this chip UID is on the line already")}
	}
	defer r.release(chip.ChipUID)
	rework, err := r.fit(chip)
	if err != nil {
		return &notBegun{err}
	}
	ticket, err := r.j.consume(r.o.order.Header.Quota, chip)
	if err != nil {
		return err
	}
	rec := wire.Record{
		Ticket: ticket, Device: wire.DeviceID(r.o.content.TicketSeed, ticket), Outcome: wire.Made, Chip: &chip,
		Operator: r.spec.Operator, Line: r.spec.Line, Rework: rework, First: r.spec.First,
	}
	if at, ok := p.(placed); ok {
		rec.Line = strings.TrimPrefix(r.spec.Line+"/"+at.Place(), "/")
	}
	if bad := r.make(ctx, p, &rec); bad != nil {
		rec.Outcome, rec.Reason = wire.Scrapped, reason(bad)
	}
	rec, err = r.j.write(r.s, rec, r.o.order.Header.Quota, r.spec.Now)
	if err != nil {
		return err
	}
	made = rec.Outcome == wire.Made
	if err := ctx.Err(); err != nil && !made {
		return err
	}
	return r.count(p, rec)
}

// inTime asks the clock again before each piece: a run may last longer than its order, and clocks are set.
func (r *run) inTime() error {
	if err := valid(r.o.order.Header, r.spec.Now()); err != nil {
		return err
	}
	return r.j.clock(r.spec.Now)
}

func reason(err error) string {
	s := []byte(err.Error())
	return string(bytes.ToValidUTF8(s[:min(len(s), 500)], nil))
}

func (r *run) count(p Programmer, rec wire.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = 0
	if at := r.place(p); at != nil && rec.Outcome == wire.Made {
		at.Made++
	} else if at != nil {
		at.Scrapped++
	}
	if r.spec.Progress != nil {
		r.spec.Progress(rec)
	}
	if rec.Outcome != wire.Made {
		r.report.Scrapped++
		if r.row++; r.row >= r.scraps() {
			return errEnough
		}
		return nil
	}
	r.row = 0
	r.report.Made++
	if len(r.report.Devices) < reportDevices {
		r.report.Devices = append(r.report.Devices, rec.Device)
	}
	return nil
}

// scraps is how many pieces scrapped in a row stop the run. In a gang each place is given up by itself, and one that fails fast is not to stop the
// others.
func (r *run) scraps() int {
	if r.spec.Gang {
		return scrapsInARow * max(r.spec.Parallel, 1)
	}
	return scrapsInARow
}

// claim keeps a chip from being made twice at once; release lets it go, when its record is there.
func (r *run) claim(uid []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onLine[string(uid)] {
		return false
	}
	r.onLine[string(uid)] = true
	return true
}

func (r *run) release(uid []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.onLine, string(uid))
}

func (r *run) unfit(c wire.ChipHello, format string, args ...any) error {
	return fault.New(fault.Conflict, "piece.unfit", fmt.Sprintf("chip %x: ", c.ChipUID)+fmt.Sprintf(format, args...), "put another piece on the line")
}

// fit says what is wrong with a piece before a ticket is spent on it, and of which record it is the rework.
func (r *run) fit(c wire.ChipHello) (rework uint32, err error) {
	h, f := r.o.order.Header, r.o.content.Params.Flash
	bad := func(format string, args ...any) error { return r.unfit(c, format, args...) }
	switch {
	case c.Hardware != h.Hardware:
		return 0, bad("hardware revision %q, the order is for %q", c.Hardware, h.Hardware)
	case c.Lifecycle != wire.LifecycleAssembly:
		return 0, bad("its life cycle is %#x: it is not blank", c.Lifecycle)
	case c.Flash.Size < f.Size || c.Flash.Erase != f.Erase:
		return 0, bad("flash of %d bytes with blocks of %d, the order wants %d and %d", c.Flash.Size, c.Flash.Erase, f.Size, f.Erase)
	}
	p, err := r.j.of(c.ChipUID)
	switch {
	case err != nil:
		return 0, err
	case p.secured:
		return 0, bad("a device with this chip UID was made already: a clone, or the same piece again")
	case p.failed != 0 && !r.spec.Rework:
		return 0, fault.New(fault.Conflict, "piece.rework", fmt.Sprintf("chip %x: its making failed before, see record %d", c.ChipUID, p.failed),
			"put another piece on the line, or run with --rework to make it anew, which takes another ticket")
	}
	return p.failed, nil
}

// make does all that happens on the piece after the ticket; rec gets what is known, step by step.
func (r *run) make(ctx context.Context, p Programmer, rec *wire.Record) error {
	h := r.o.order.Header
	q := wire.KeyRequest{Order: h.ID, Seq: rec.Ticket, Nonce: make([]byte, 32), Device: rec.Device}
	_, _ = rand.Read(q.Nonce)
	rec.Nonce = q.Nonce
	keys, err := p.GenerateKeys(ctx, q)
	if err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	if err := wire.VerifyPossession(q, rec.Chip.ChipUID, keys); err != nil {
		return err
	}
	rec.Keys = &keys
	if rec.Certificate, err = r.issue(rec.Device, keys.IDevID); err != nil {
		return fmt.Errorf("issue the certificate: %w", err)
	}
	in := wire.Install{
		Certificate: rec.Certificate, Chain: h.Chain, Bundle: r.o.content.Bundle, Release: r.o.content.Release,
		Params: r.o.content.Params, Product: h.Product, Hardware: h.Hardware, Device: rec.Device,
	}
	if err := p.Install(ctx, in, r.payload); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	back, err := p.ReadBack(ctx)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	rec.ReadBack = &back
	if err := r.compare(in, back); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	fuses, err := p.Fuse(ctx, wire.FuseRequest{Root: h.Root, Counter: h.Counter})
	if err != nil && fuses.Lifecycle == wire.LifecycleSecured {
		rec.Fuses = &fuses // it has its keys for good: it is not taken for a piece that can come again
	}
	if err != nil {
		return fmt.Errorf("burn the fuses: %w", err)
	}
	rec.Fuses = &fuses
	if !bytes.Equal(fuses.Root, h.Root) || fuses.Counter != h.Counter || fuses.Lifecycle != wire.LifecycleSecured || !fuses.DebugLocked {
		return errors.New("the fuses do not read as they were burnt")
	}
	return nil
}

func (r *run) payload(put func(wire.Chunk) error) error {
	p := pieces{put: put, buf: make([]byte, 0, wire.PortChunkSize)}
	defer clear(p.buf[:cap(p.buf)])
	return r.o.chunks(r.o.fromKept(), nil, p.add)
}

// pieces cuts components anew: a chunk of an order's file ends where it ends, in the middle of a component, and a device writes whole pages. So each piece of a
// component is a whole chunk, but for its last.
type pieces struct {
	put func(wire.Chunk) error
	buf []byte
}

func (p *pieces) add(c wire.Component, offset uint64, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), cap(p.buf)-len(p.buf))
		p.buf, data, offset = append(p.buf, data[:n]...), data[n:], offset+uint64(n)
		if len(p.buf) < cap(p.buf) && offset < c.Size {
			continue
		}
		if err := p.put(wire.Chunk{Component: c.Name, Offset: offset - uint64(len(p.buf)), Data: p.buf}); err != nil {
			return err
		}
		p.buf = p.buf[:0]
	}
	return nil
}

// issue signs the device's IDevID with the order key in the module.
func (r *run) issue(device string, spki []byte) ([]byte, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	if err := idevid.KeyAllowed(pub); err != nil {
		return nil, err
	}
	serial, err := idevid.RandomSerial()
	if err != nil {
		return nil, err
	}
	h := r.o.order.Header
	id := idevid.Identity{Kind: idevid.IDevID, DeviceID: device, OEM: h.OEM, Product: h.Product, HWRev: h.Hardware}
	t, err := idevid.Template(id, serial, r.spec.Now(), idevid.NoExpiry())
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, t, r.o.ca, pub, r.o.key)
}

// compare holds what is on the device against what was meant to be there.
func (r *run) compare(in wire.Install, back wire.ReadBack) error {
	params, err := wire.Marshal(in.Params)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name      string
		want, got []byte
	}{{"trust bundle", in.Bundle, back.Bundle}, {"release", in.Release, back.Release}, {"certificate", in.Certificate, back.Certificate}, {"parameters", params, back.Params}} {
		if sum := sha256.Sum256(c.want); !bytes.Equal(sum[:], c.got) {
			return fmt.Errorf("the %s on the device differs", c.name)
		}
	}
	want := r.o.release.Components
	if len(back.Components) != len(want) {
		return fmt.Errorf("%d components on the device, want %d", len(back.Components), len(want))
	}
	for i, c := range want {
		if b := back.Components[i]; b.Name != c.Name || !bytes.Equal(b.Digest, c.Digest) {
			return fmt.Errorf("component %q on the device differs", c.Name)
		}
	}
	return nil
}
