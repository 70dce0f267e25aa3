package factory

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Question is one list of what does not agree about an order.
type Question string

// The lists. Clones and OverProduction are parts of Alarms, and so is Refused.
const (
	Alarms         Question = "alarm"           // records that are authentic and impossible
	Clones         Question = "clone"           // of them, those with the chip or a key of another piece
	OverProduction Question = "over-production" // of them, those with a ticket or a place that was used, or from after the end
	Refused        Question = "refused"         // of them, those that hold their place among the records; their pieces are no devices
	Missing        Question = "missing"         // records that the station must have and that are not here
	Unseen         Question = "unseen"          // devices that were made and never heard of
	Reworks        Question = "rework"          // records of pieces that failed before, with the record before
	Unregistered   Question = "unregistered"    // who came with a certificate of the order and is on no record

	Made  Question = "made"  // what is on record: no difference, and no list
	Every Question = "every" // the same, with pieces that became no devices
)

// Questions are all lists, in the order in which to read them.
func Questions() []Question {
	return []Question{Clones, OverProduction, Refused, Alarms, Missing, Unregistered, Unseen, Reworks}
}

// Difference is one thing about an order that does not agree.
type Difference struct {
	Key    string    `json:"key"`  // its place in the list
	Kind   Question  `json:"kind"` // of an alarm: clone, over-production, or alarm when it is neither
	Device string    `json:"device,omitempty"`
	Seq    uint32    `json:"seq,omitempty"` // of the record; the first that is missing
	To     uint32    `json:"to,omitempty"`  // the last that is missing
	Reason string    `json:"reason"`
	Remedy string    `json:"remedy"`
	At     time.Time `json:"at,omitzero"` // of the record, or when the device was there last
	Times  int       `json:"times,omitempty" doc:"how often the device was there"`
	Record *Shown    `json:"record,omitempty" doc:"the record it is about"`
	Other  *Shown    `json:"other,omitempty" doc:"the record that it contradicts, or that it is the rework of"`
}

// Shown is a production record as it is told of.
type Shown struct {
	Order    string    `json:"order"`
	Seq      uint32    `json:"seq"`
	Hash     string    `json:"hash"` // of what the station signed, hex
	Device   string    `json:"device"`
	Ticket   uint32    `json:"ticket"`
	State    string    `json:"state,omitempty" doc:"made, scrapped, interrupted or refused; empty: it is none of the order's"`
	Outcome  string    `json:"outcome"` // as the station says
	Reason   string    `json:"reason,omitempty"`
	Chip     string    `json:"chip,omitempty"`     // UID, hex
	Identity string    `json:"identity,omitempty"` // SHA-256 of the identity key, hex
	Attest   string    `json:"attest,omitempty"`   // SHA-256 of the attestation key, hex
	Time     time.Time `json:"time"`
	Line     string    `json:"line,omitempty"`
	Rework   uint32    `json:"rework,omitempty"`
}

// Kept is a record as the store has it.
type Kept struct {
	Order    string
	Seq      uint32
	State    string // of the record in its place; empty: this one has no place
	Reason   string // of its alarm
	Hash     []byte
	Envelope []byte
}

// Marks are what must not come twice.
type Marks struct {
	Order            string
	Seq, Ticket      uint32
	Hash             []byte
	Chip             []byte
	Identity, Attest []byte // SHA-256
}

// Twin is the record that another one contradicts.
type Twin struct {
	Kept
	By Question // Clones or OverProduction
}

// Gap is records that are missing, both ends included.
type Gap struct{ From, To uint32 }

// Stranger is a device that came with a certificate by the order's CA and is on no record.
type Stranger struct {
	Device  string
	Planned bool // its serial is by a ticket of the order, and its record has not come
	Times   int
	Last    time.Time
}

// Books is what the lists are read from. Each gives at most limit rows from behind a place on, in the order of their places.
type Books interface {
	// AlarmsOf gives the alarms of an order by sequence number and hash; of refused, only records that hold their place.
	AlarmsOf(ctx context.Context, order string, refused bool, seq uint32, hash []byte, limit int) ([]Kept, error)
	// TwinOf gives the record that one with these marks contradicts; nil: none is here.
	TwinOf(ctx context.Context, m Marks) (*Twin, error)
	// PlacesOf counts the records behind a place, and gives the last one's; 0: there is none.
	PlacesOf(ctx context.Context, order string, after uint32) (n, last uint32, err error)
	// GapsOf gives the gaps before the last record that is here.
	GapsOf(ctx context.Context, order string, after uint32, limit int) ([]Gap, error)
	// UnseenOf gives the records of devices that were accepted and never heard of, by device.
	UnseenOf(ctx context.Context, order, after string, limit int) ([]Kept, error)
	// RecordsOf gives records by their places: of devices that were accepted (Made), of pieces that failed before (Reworks), or of all pieces (Every).
	RecordsOf(ctx context.Context, order string, of Question, after uint32, limit int) ([]Kept, error)
	// RecordOf gives the record at a place; nil: none is here.
	RecordOf(ctx context.Context, order string, seq uint32) (*Kept, error)
	// RecordAs gives the record that a device was accepted by; nil: none is here.
	RecordAs(ctx context.Context, device string) (*Kept, error)
	// StrangersOf gives those that came with a certificate by the CA with this subject key ID (hex), by device.
	StrangersOf(ctx context.Context, ca, after string, limit int) ([]Stranger, error)
}

// lookedAt is how many alarms are looked at for one page: what an alarm contradicts is looked for when it is read, and a page has to come soon.
const lookedAt = 100

// Differences gives one list of an order from behind the place after on, at most limit of it, and where to go on; empty: that was all. A page of the clones
// or the over-production may be short, and not the last: of many alarms so many are looked at.
func (s *Service) Differences(ctx context.Context, caller access.Caller, id string, q Question, after string, limit int) (out []Difference, next string, err error) {
	o, err := s.open(ctx, caller, id)
	if err != nil {
		return nil, "", err
	}
	switch q {
	case Clones, OverProduction:
		return s.alarmsOf(ctx, o, q, after, limit)
	case Alarms, Refused:
		out, err = s.alarms(ctx, o, q, after, limit+1)
	case Unregistered:
		out, err = s.strangers(ctx, o, after, limit+1)
	case Missing:
		out, err = s.missing(ctx, o, after, limit+1)
	case Unseen:
		out, err = s.unseen(ctx, o, after, limit+1)
	case Reworks:
		out, err = s.reworks(ctx, o, after, limit+1)
	case Made: // is no difference
		fallthrough
	default:
		return nil, "", fault.New(fault.Invalid, "order.question", fmt.Sprintf("there is no list %.40q of an order", q), "ask for one of: "+fmt.Sprint(Questions()))
	}
	if err == nil && len(out) > limit {
		out = out[:limit]
		next = out[limit-1].Key
	}
	return out, next, err
}

// place reads the key of a row.
func place(after string) (uint32, error) {
	if after == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(after, 10, 32)
	if err != nil {
		return 0, fault.New(fault.Invalid, "page.invalid", fmt.Sprintf("%.40q is no place in this list", after), "give what the page before ended with, or nothing")
	}
	return uint32(n), nil
}

// alarms gives them by sequence number and hash.
func (s *Service) alarms(ctx context.Context, o Order, q Question, after string, limit int) (out []Difference, err error) {
	at, rest, _ := strings.Cut(after, ".")
	seq, err := place(at)
	if err != nil {
		return nil, err
	}
	hash, err := hex.DecodeString(rest)
	if err != nil {
		return nil, fault.New(fault.Invalid, "page.invalid", fmt.Sprintf("%.40q is no place in this list", after), "give what the page before ended with, or nothing")
	}
	list, err := s.c.Books.AlarmsOf(ctx, o.ID, q == Refused, seq, hash, limit)
	if err != nil {
		return nil, err
	}
	for _, k := range list {
		d, err := s.alarmed(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// alarmsOf gives those of one kind among the next alarms.
func (s *Service) alarmsOf(ctx context.Context, o Order, q Question, after string, limit int) (out []Difference, next string, err error) {
	all, err := s.alarms(ctx, o, Alarms, after, lookedAt)
	if err != nil {
		return nil, "", err
	}
	if len(all) == lookedAt {
		next = all[lookedAt-1].Key
	}
	for i, d := range all {
		if d.Kind != q {
			continue
		}
		out = append(out, d)
		if len(out) == limit && i+1 < len(all) {
			return out, d.Key, nil
		}
	}
	return out, next, nil
}

// alarmed tells of one alarm: what the record is, what it contradicts, and what to do.
func (s *Service) alarmed(ctx context.Context, k Kept) (Difference, error) {
	shown, marks, err := show(k)
	if err != nil {
		return Difference{}, err
	}
	d := Difference{
		Key: fmt.Sprintf("%d.%x", k.Seq, k.Hash), Kind: Alarms, Device: shown.Device, Seq: k.Seq, Reason: k.Reason, At: shown.Time, Record: &shown,
		Remedy: "its piece is no device: ask the centre what it made there",
	}
	twin, err := s.c.Books.TwinOf(ctx, marks)
	if err != nil {
		return d, err
	}
	if twin != nil {
		other, _, err := show(twin.Kept)
		if err != nil {
			return d, err
		}
		d.Kind, d.Other = twin.By, &other
	} else if strings.Contains(k.Reason, "over-production") || strings.Contains(k.Reason, "the station ended the order with") {
		d.Kind = OverProduction
	}
	if d.Kind == Clones {
		d.Remedy = "two pieces say they are one: the one on record stays a device; find both, and until you know which is which keep it in quarantine (`hallmark command create quarantine`)"
	}
	if d.Kind == OverProduction {
		d.Remedy = "its piece never becomes a device; the station's state was copied or rolled back: ask the centre, and let it make nothing more until that is explained"
	}
	return d, nil
}

func (s *Service) missing(ctx context.Context, o Order, key string, limit int) (out []Difference, err error) {
	after, err := place(key)
	if err != nil {
		return nil, err
	}
	n, last, err := s.c.Books.PlacesOf(ctx, o.ID, after)
	if err != nil {
		return nil, err
	}
	last = max(last, after)
	var gaps []Gap
	if n < last-after { // else there is none to look for
		if gaps, err = s.c.Books.GapsOf(ctx, o.ID, after, limit); err != nil {
			return nil, err
		}
	}
	if len(gaps) < limit {
		end, err := o.End()
		if err != nil {
			return nil, err
		}
		if end.Records > last {
			gaps = append(gaps, Gap{last + 1, end.Records})
		}
	}
	for _, g := range gaps {
		what := fmt.Sprintf("records %d to %d are not here", g.From, g.To)
		if g.From == g.To {
			what = fmt.Sprintf("record %d is not here", g.From)
		}
		out = append(out, Difference{
			Key: fmt.Sprint(g.To), Kind: Missing, Seq: g.From, To: g.To, Reason: what,
			Remedy: fmt.Sprintf("have the centre export them: `hallmark-station export %s --after %d`", o.ID, g.From-1),
		})
	}
	return out, nil
}

func (s *Service) unseen(ctx context.Context, o Order, after string, limit int) ([]Difference, error) {
	list, err := s.c.Books.UnseenOf(ctx, o.ID, after, limit)
	if err != nil {
		return nil, err
	}
	return told(list, func(d *Difference) error {
		d.Key, d.Kind, d.Reason, d.Remedy = d.Device, Unseen, "it was made, and never heard of", "nothing, while it may lie in a box; else see whether it reaches the server"
		return nil
	})
}

func (s *Service) reworks(ctx context.Context, o Order, after string, limit int) ([]Difference, error) {
	seq, err := place(after)
	if err != nil {
		return nil, err
	}
	list, err := s.c.Books.RecordsOf(ctx, o.ID, Reworks, seq, limit)
	if err != nil {
		return nil, err
	}
	return told(list, func(d *Difference) error {
		d.Kind, d.Remedy = Reworks, "nothing, while they are few; many are a line that fails"
		d.Reason = fmt.Sprintf("it is the rework of record %d", d.Record.Rework)
		before, err := s.c.Books.RecordOf(ctx, o.ID, d.Record.Rework)
		if err != nil || before == nil {
			return err
		}
		other, _, err := show(*before)
		d.Other = &other
		if other.Reason != "" {
			d.Reason += ", which failed: " + other.Reason
		}
		return err
	})
}

// told makes a list of records.
func told(list []Kept, tell func(*Difference) error) ([]Difference, error) {
	out := make([]Difference, 0, len(list))
	for _, k := range list {
		shown, _, err := show(k)
		if err != nil {
			return nil, err
		}
		d := Difference{Key: fmt.Sprint(k.Seq), Device: shown.Device, Seq: k.Seq, At: shown.Time, Record: &shown}
		if err := tell(&d); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (s *Service) strangers(ctx context.Context, o Order, after string, limit int) ([]Difference, error) {
	order, err := s.signed(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("order %s: %w", o.ID, err)
	}
	ca, err := x509.ParseCertificate(order.Header.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("order %s: its CA: %w", o.ID, err)
	}
	list, err := s.c.Books.StrangersOf(ctx, hex.EncodeToString(ca.SubjectKeyId), after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Difference, 0, len(list))
	for _, x := range list {
		d := Difference{
			Key: x.Device, Kind: Unregistered, Device: x.Device, At: x.Last, Times: x.Times,
			Reason: "it has a certificate by the order's CA, and no ticket of the order is its: it is refused",
			Remedy: fmt.Sprintf("the CA's key may be in wrong hands: ask the centre, and revoke what the CA signed (`hallmark certificate revoke-issuer %x`)", ca.SubjectKeyId),
		}
		if x.Planned {
			d.Reason = "its serial is by a ticket of the order, and its record is not here: it waits, with no certificate"
			d.Remedy = fmt.Sprintf("import what the centre exports (`hallmark order import %s FILE`); then it is let in by itself", o.ID)
		}
		out = append(out, d)
	}
	return out, nil
}

// show reads a kept record.
func show(k Kept) (Shown, Marks, error) {
	r, err := recordIn(k.Envelope)
	if err != nil {
		return Shown{}, Marks{}, fmt.Errorf("order %s: stored record %d: %w", k.Order, k.Seq, err)
	}
	m := Marks{Order: k.Order, Seq: k.Seq, Hash: k.Hash, Ticket: r.Ticket}
	out := Shown{
		Order: k.Order, Seq: k.Seq, Hash: hex.EncodeToString(k.Hash), Device: r.Device, Ticket: r.Ticket, State: k.State, Outcome: string(r.Outcome), Reason: r.Reason,
		Time: time.Unix(int64(r.Time), 0).UTC(), Line: r.Line, Rework: r.Rework,
	}
	if r.Chip != nil {
		m.Chip = r.Chip.ChipUID
		out.Chip = hex.EncodeToString(m.Chip)
	}
	if r.Keys != nil {
		id, at := sha256.Sum256(r.Keys.IDevID), sha256.Sum256(r.Keys.Attest)
		m.Identity, m.Attest = id[:], at[:]
		out.Identity, out.Attest = hex.EncodeToString(id[:]), hex.EncodeToString(at[:])
	}
	return out, m, nil
}

// recordIn reads a record whose signature was checked when it came.
func recordIn(envelope []byte) (wire.Record, error) {
	e, err := wire.Parse1(wire.TypeRecord, envelope)
	if err != nil {
		return wire.Record{}, err
	}
	return wire.DecodeRecord(e.Payload)
}
