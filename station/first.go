package station

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"time"

	"rsc.io/qr"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// article is a first article that was made.
type article struct {
	device    string
	record    [32]byte // hash of its record
	inspected bool
	passed    bool
}

func (j *job) replayInspection(envelope []byte) error {
	p, err := wire.Parse1(wire.TypeInspection, envelope)
	if err != nil {
		return err
	}
	i, err := wire.DecodeInspection(p.Payload)
	if err != nil {
		return err
	}
	j.seen = append(j.seen, envelope)
	j.lastTime = max(j.lastTime, i.Time) // what is made from now on is made after it
	if j.first != nil && bytes.Equal(i.Record, j.first.record[:]) {
		j.first.inspected, j.first.passed = true, i.Passed
	}
	return nil
}

// mayGoOn holds a run to the first article: one at a time, and the others only when somebody has said that it is good.
func (j *job) mayGoOn(h wire.OrderHeader, spec RunSpec) error {
	waiting := j.first != nil && !j.first.inspected
	switch {
	case spec.First && (spec.Devices != 1 || spec.Parallel > 1):
		return fault.New(fault.Invalid, "run.invalid", fmt.Sprintf("a first article is one piece, not %d", spec.Devices), "run with -n 1")
	case waiting && (spec.First || h.FirstArticle):
		return fault.New(fault.Conflict, "order.inspection", fmt.Sprintf("order %s: first article %s was made and waits to be inspected", j.order, j.first.device),
			"look at it, then say what you saw with `hallmark-station inspect`")
	case !spec.First && h.FirstArticle && (j.first == nil || !j.first.passed):
		return fault.New(fault.Denied, "order.first-article", fmt.Sprintf("order %s demands a first article that passes its inspection before others are made", j.order),
			"run with --first-article, then `hallmark-station inspect`")
	}
	return nil
}

// FirstArticle gives the record of the first article that was made last.
func (s *Station) FirstArticle(id string) (r wire.Record, err error) {
	_, envelope, err := s.kept(id)
	if err != nil {
		return r, err
	}
	j, err := s.openJob(id, wire.RecordHash(envelope))
	if err != nil {
		return r, err
	}
	defer j.close() //nolint:errcheck // nothing was appended
	if j.first == nil {
		return r, fault.New(fault.Conflict, "inspection.nothing", fmt.Sprintf("order %s has no first article", id), "make one with `hallmark-station run --first-article`")
	}
	err = j.each(func(x wire.Record) {
		if x.Device == j.first.device && x.Outcome == wire.Made {
			r = x
		}
	})
	return r, err
}

// InspectSpec is what somebody says of a first article.
type InspectSpec struct {
	Order  string
	Passed bool
	By     string // who looked
	Notes  string // what was seen; not empty when it failed
}

// Inspect records what was seen of the first article that was made last. It goes back with the records.
func (s *Station) Inspect(spec InspectSpec, now time.Time) (wire.Inspection, error) {
	_, envelope, err := s.kept(spec.Order)
	if err != nil {
		return wire.Inspection{}, err
	}
	j, err := s.openJob(spec.Order, wire.RecordHash(envelope))
	if err != nil {
		return wire.Inspection{}, err
	}
	defer j.close() //nolint:errcheck // what was appended is durable
	if j.end != nil {
		return wire.Inspection{}, refused("closed", fmt.Errorf("order %q was closed here", spec.Order))
	}
	if j.first == nil || j.first.inspected {
		return wire.Inspection{}, fault.New(fault.Conflict, "inspection.nothing", fmt.Sprintf("order %s: no first article waits to be inspected", spec.Order), "make one with `hallmark-station run --first-article`")
	}
	if len(j.seen) >= wire.MaxInspections {
		return wire.Inspection{}, fault.New(fault.Exhausted, "inspection.many", fmt.Sprintf("order %s has had %d inspections", spec.Order, len(j.seen)), "close the order, and ask the OEM what is wrong")
	}
	if err := j.clock(func() time.Time { return now }); err != nil {
		return wire.Inspection{}, err
	}
	i := wire.Inspection{
		Order: spec.Order, Station: s.id[:], Device: j.first.device, Record: bytes.Clone(j.first.record[:]), Passed: spec.Passed,
		By: spec.By, Notes: spec.Notes, Time: uint64(now.Unix()), Seq: uint32(len(j.seen)) + 1,
	}
	payload, err := wire.EncodeInspection(i)
	if err != nil {
		return i, fault.Newf(fault.Invalid, "inspection.invalid", "%w", err).With("correct it, and report again")
	}
	signed, err := wire.Sign1(wire.TypeInspection, payload, s.record)
	if err != nil {
		return i, err
	}
	return i, j.book.Append(signed)
}

// quiet is the white border that the standard asks for, modules (ISO/IEC 18004 §9.1).
const quiet = 4

// square is one dark module of a code.
type square struct{ X, Y int }

// ReportFirst writes what there is to inspect of a first article, as one page to print: everything its record says in public, and its
// identity as a QR code: `hallmark:` device ID `:` SHA-256 of its identity key.
func (s *Station) ReportFirst(w io.Writer, r wire.Record) error {
	if r.Keys == nil || r.Chip == nil || r.ReadBack == nil || r.Fuses == nil {
		return fmt.Errorf("report: piece %s was not made", r.Device)
	}
	key := wire.RecordHash(r.Keys.IDevID)
	text := "hallmark:" + r.Device + ":" + hex.EncodeToString(key[:])
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return fmt.Errorf("report: QR code: %w", err)
	}
	var dark []square
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				dark = append(dark, square{x + quiet, y + quiet})
			}
		}
	}
	return firstPage.Execute(w, map[string]any{
		"Station": s.cfg.Name, "Module": s.mod.Info().Name, "Record": r, "Time": unix(r.Time), "Identity": text,
		"Chip": hex.EncodeToString(r.Chip.ChipUID), "Certificate": fingerprint(r.Certificate), "Root": hex.EncodeToString(r.Fuses.Root),
		"Side": code.Size + 2*quiet, "Dark": dark,
	})
}

func fingerprint(b []byte) string {
	sum := wire.RecordHash(b)
	return hex.EncodeToString(sum[:])
}

var firstPage = template.Must(template.New("first").Funcs(template.FuncMap{"hex": hex.EncodeToString}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>First article {{.Record.Device}}</title>
<style>body{font:11pt sans-serif;max-width:50em;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}td{font-family:monospace;word-break:break-all}svg{width:5cm;height:5cm}.sign td{height:2.5em;border-bottom:1px solid}</style>
</head><body><h1>First article of order {{.Record.Order}}</h1>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Side}} {{.Side}}" shape-rendering="crispEdges" role="img" aria-label="{{.Identity}}"><path fill="#fff" d="M0 0h{{.Side}}v{{.Side}}H0z"/>
{{range .Dark}}<rect x="{{.X}}" y="{{.Y}}" width="1" height="1"/>{{end}}</svg>
<table>
<tr><th>Device</th><td>{{.Record.Device}}</td></tr>
<tr><th>Public identity</th><td>{{.Identity}}</td></tr>
<tr><th>Certificate, SHA-256</th><td>{{.Certificate}}</td></tr>
<tr><th>Record, ticket</th><td>{{.Record.Seq}}, {{.Record.Ticket}}{{if .Record.Rework}}; rework of record {{.Record.Rework}}{{end}}</td></tr>
<tr><th>Made</th><td>{{.Time}} at {{.Station}} ({{.Module}}){{with .Record.Line}}, line {{.}}{{end}}{{with .Record.Operator}}, by {{.}}{{end}}</td></tr>
<tr><th>Chip UID, hardware</th><td>{{.Chip}}, {{.Record.Chip.Hardware}}{{if .Record.Chip.Virtual}} — virtual: no real device{{end}}</td></tr>
<tr><th>Keys made in</th><td>{{.Record.Keys.Origin}}</td></tr>
{{range .Record.ReadBack.Components}}<tr><th>Read back: {{.Name}}</th><td>{{hex .Digest}}</td></tr>
{{end}}<tr><th>Fuses</th><td>root {{.Root}}, counter {{.Record.Fuses.Counter}}, life cycle {{printf "%#x" .Record.Fuses.Lifecycle}}, debug {{if .Record.Fuses.DebugLocked}}locked{{else}}OPEN{{end}}</td></tr>
</table>
<h2>Inspection</h2>
<p>Look at the piece, scan the code, compare. Then say what you saw: <code>hallmark-station inspect {{.Record.Order}} --passed</code>, or <code>--failed --notes …</code>.</p>
<table class="sign"><tr><th>Passed / failed</th><td></td></tr><tr><th>Seen</th><td></td></tr><tr><th>Name, date</th><td></td></tr></table>
</body></html>
`))
