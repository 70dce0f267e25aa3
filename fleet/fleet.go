// Package fleet is the read side: what a person looks at.
//
// Over all stages. It never writes. What it shows of the past comes from the ledger, each line with its place there, so that
// a reader can ask for the proof; what it shows of the present comes from the stages' tables, and says when it is from.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// Device is a row of the fleet list.
type Device struct {
	ID         string     `json:"id"`
	Product    string     `json:"product"`
	Group      string     `json:"group,omitempty"` // of the product; empty: in none
	Hardware   string     `json:"hardware"`
	State      string     `json:"state"`
	Legitimacy string     `json:"legitimacy"`
	Assurance  string     `json:"assurance" doc:"what its word is worth: enforces, proves or says"`
	Version    string     `json:"version"` // running; empty when never heard of
	Release    string     `json:"release"` // digest, hex
	Trial      bool       `json:"trial"`
	Health     string     `json:"health"`  // healthy, unhealthy, unknown: also when it is overdue to be heard of
	Verdict    string     `json:"verdict"` // EAR status, or unknown: never a guess, and not what was so once
	VerdictAt  *time.Time `json:"verdict_at,omitempty"`
	LastSeen   *time.Time `json:"last_seen,omitempty"`
	Findings   int        `json:"findings"` // open ones
}

// Detail is the device page's head.
type Detail struct {
	Device
	Order       string      `json:"order"`
	Made        *time.Time  `json:"made,omitempty"`
	ChipUID     string      `json:"chip_uid"`
	KeyOrigin   string      `json:"key_origin"`
	Rekeyed     *time.Time  `json:"rekeyed,omitempty"` // when it got its keys in the field, by a voucher
	Virtual     bool        `json:"virtual"`
	Bundle      uint64      `json:"bundle"`
	BootCount   uint64      `json:"boot_count"`
	Reasons     []string    `json:"verdict_reasons"`
	LastVerdict string      `json:"verdict_last,omitempty" doc:"what its last evidence was, when that is too old to count"`
	HealthText  string      `json:"health_text"`
	Left        []string    `json:"left,omitempty" doc:"releases (digest) that it was sent back from, and refuses"`
	Room        *wire.Room  `json:"room,omitempty" doc:"of its flash, for programs and data; not there: unknown"`
	Carried     *time.Time  `json:"carried,omitempty" doc:"as of when all this is, of a device whose word was carried here; not there: it said it over a line"`
	Zone        string      `json:"zone,omitempty" doc:"where its clock on the wall is, as it says; not there: it does not say"`
	Waits       *wire.Waits `json:"waits,omitempty" doc:"an update that it has, and that waits; not there: none"`
	Knows       []string    `json:"knows,omitempty" doc:"kinds of message that its agent understands beyond those that every agent does"`

	Isolation *wire.Isolation `json:"isolation,omitempty" doc:"what holds its programs, by evidence that counts; not there: unknown"`
	Forgotten *time.Time      `json:"forgotten,omitempty" doc:"since when what was private of it is destroyed"`
	Owned     *time.Time      `json:"owned,omitempty" doc:"since when it belongs to its owner"`

	Suspect string        `json:"suspect,omitempty" doc:"what it said that cannot be true of one device"`
	Sides   []device.Side `json:"sides,omitempty" doc:"what each holder of its identity was seen with, then"`
	Log     DeviceLog     `json:"log"`
}

// Waiting says in words what an update waits for; empty: none does.
func (d Detail) Waiting() string {
	if d.Waits == nil {
		return ""
	}
	return d.Waits.Text()
}

// Flash says in words what room its flash has.
func (d Detail) Flash() string {
	if d.Room == nil {
		return "not known"
	}
	return d.Room.String()
}

// HeldBy says in words what holds the device's programs.
func (d Detail) HeldBy() string {
	switch i := d.Isolation; {
	case i == nil:
		return "unknown"
	case i.Programs == 0:
		return "no program runs"
	case len(i.InForce) == 0:
		return "nothing"
	default:
		words := make([]string, len(i.InForce))
		for n, l := range i.InForce {
			words[n] = string(l)
		}
		return strings.Join(words, ", ")
	}
}

// DeviceLog is what the log that a device keeps of itself amounts to.
type DeviceLog struct {
	Events         uint64     `json:"events" doc:"numbers given out from the first on, lost ones with them"`
	Head           string     `json:"head,omitempty" doc:"of its hash chain, hex"`
	Gaps           uint64     `json:"gaps" doc:"stretches of events that were lost on the device"`
	Lost           uint64     `json:"lost" doc:"events in them"`
	Unexplained    uint64     `json:"unexplained" doc:"gaps that no event behind them tells of"`
	Contradictions int        `json:"contradictions" doc:"times that it said other than before"`
	Bound          bool       `json:"bound" doc:"a hardware counter holds the number of its last event"`
	Heard          *time.Time `json:"heard,omitempty" doc:"last batch or heartbeat"`
}

// Standing says it in a line.
func (l DeviceLog) Standing() string {
	s := ""
	switch {
	case l.Events == 0 && l.Contradictions == 0:
		return "never sent"
	case l.Contradictions > 0:
		s = fmt.Sprintf("contradicted %s, up to %d", Count(l.Contradictions, "time", "times"), l.Events)
	case l.Unexplained > 0:
		s = fmt.Sprintf("not whole: %s unexplained, up to %d", Count(l.Unexplained, "gap", "gaps"), l.Events)
	default:
		s = fmt.Sprintf("whole up to %d", l.Events)
	}
	if n := l.Gaps - l.Unexplained; n > 0 {
		s += fmt.Sprintf(", %s of %s explained", Count(n, "gap", "gaps"), Count(l.Lost, "event", "events"))
	}
	return s
}

// Line is one event of a timeline. Index is nil until the fact has its place, some 50 ms after it happened.
type Line struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"`
	Actor   string    `json:"actor"`
	Log     string    `json:"log"`
	Index   *uint64   `json:"index"`
	Text    string    `json:"text"`
	Subject string    `json:"subject"`

	Cause *ledger.Ref `json:"cause,omitempty"` // the fact that led to it
}

// Query selects devices; empty fields do not select. After is the ID of the last row of the page before.
type Query struct {
	device.Filter
	Product string   `json:"product,omitempty" maxLength:"64"`
	Group   string   `json:"group,omitempty" maxLength:"128"` // of the product, with those below it
	Scope   []string `json:"-"`                               // set by the Service: what the caller may see of that; empty means everything
	After   string   `json:"-"`
	Limit   int      `json:"-"`
}

// FactQuery selects facts of a log that have their place in it, newest first. Empty fields select everything.
type FactQuery struct {
	Log     string
	Subject string
	Kind    string
	Before  uint64 // only entries with a smaller index; 0: from the newest
	Waiting bool   // with a subject or a kind: those too that wait for their place, which come first and have no index
	Limit   int
}

// Summary counts the fleet.
type Summary struct {
	Total    int            `json:"total"`
	States   map[string]int `json:"states"`
	Versions map[string]int `json:"versions"`
	Verdicts map[string]int `json:"verdicts"`
	Findings int            `json:"findings"`
	Severity map[string]int `json:"severities"` // of the open findings
	Seen     []Age          `json:"seen"`       // of those that should report, the longest silence last
	At       time.Time      `json:"at"`
}

// Reader is the store's read side: what there is, and what it adds up to.
type Reader interface {
	Finder
	Surveyor
}

// Finder looks things up. Devices come in order of ID; Timeline oldest first, the newest of them when there are more than
// limit; findings and facts newest first. A device nobody knows is a fault of kind NotFound.
type Finder interface {
	FleetDevices(ctx context.Context, q Query) ([]Device, error)
	FleetDevice(ctx context.Context, id string) (Detail, error)
	FleetTimeline(ctx context.Context, id string, limit int) ([]Line, error)
	FleetFacts(ctx context.Context, q FactQuery) ([]Line, error)
	FleetFindings(ctx context.Context, q FindingQuery) ([]monitor.Finding, error)
	// FleetCertificates gives a device's, newest first, and with an empty device those that end next and were not replaced.
	FleetCertificates(ctx context.Context, q CertQuery) ([]Certificate, error)
	FleetGrants(ctx context.Context, limit int) ([]telemetry.Grant, error)
}

// Surveyor counts. It reads much, so the Service remembers what it says for a while.
type Surveyor interface {
	// FleetSummary counts what is in the scope, all with none.
	FleetSummary(ctx context.Context, scope []string) (Summary, error)
	FleetExpiry(ctx context.Context, now time.Time) (Expiry, error)
	// FleetRuns counts the devices in the scope that run a release, by state.
	FleetRuns(ctx context.Context, release []byte, scope []string) (map[string]int, error)
	// FleetGroups lists groups by path.
	FleetGroups(ctx context.Context, q GroupQuery) ([]Group, error)
	FleetStreams(ctx context.Context) ([]Stream, error)
	FleetBacklog(ctx context.Context) (Backlog, error)
}

// Service authorises reading.
type Service struct {
	reader Reader
	saved  SavedStore
	guard  *access.Guard

	summaries memory[Summary]
	expiries  memory[Expiry]
	streams   memory[[]Stream]
	runs      memory[map[string]int]
	backlogs  memory[Backlog]
}

// NewService makes the read side.
func NewService(reader Reader, saved SavedStore, guard *access.Guard) *Service {
	return &Service{reader: reader, saved: saved, guard: guard}
}

// MaxPage bounds a page of the list; MaxTimeline a timeline.
const (
	MaxPage     = 200
	MaxTimeline = 1000
)

// Summary counts the fleet.
func (s *Service) Summary(ctx context.Context, caller access.Caller) (Summary, error) {
	scope, err := s.guard.Within(ctx, caller, access.DeviceRead, "fleet", "", "")
	if err != nil {
		return Summary{}, err
	}
	return s.summaries.get(ctx, scopeKey(scope), s.summary(scope))
}

// SummaryAt is Summary for who would rather see the last count, which says when it is from, than wait for a new one. Before the first one
// is done, ok is false: nothing is known, and that is not zero.
func (s *Service) SummaryAt(ctx context.Context, caller access.Caller) (sum Summary, ok bool, err error) {
	scope, err := s.guard.Within(ctx, caller, access.DeviceRead, "fleet", "", "")
	if err != nil {
		return Summary{}, false, err
	}
	return s.summaries.glance(ctx, scopeKey(scope), s.summary(scope))
}

func (s *Service) summary(scope []string) func(context.Context) (Summary, error) {
	return func(ctx context.Context) (Summary, error) { return s.reader.FleetSummary(ctx, scope) }
}

func scopeKey(scope []string) string { return strings.Join(scope, "\x00") }

// Warm counts what everybody looks at first, so that the first one to look does not wait for it.
func (s *Service) Warm(ctx context.Context) error {
	_, err := s.summaries.get(ctx, "", s.summary(nil))
	_, err2 := s.expiries.get(ctx, "", s.expiry)
	_, err3 := s.streams.get(ctx, "", s.reader.FleetStreams)
	return errors.Join(err, err2, err3)
}

// Devices gives a page, and the key of the next one when there is more.
func (s *Service) Devices(ctx context.Context, caller access.Caller, q Query) (page []Device, next string, err error) {
	if q.Scope, err = s.guard.Within(ctx, caller, access.DeviceRead, "fleet", q.Product, q.Group); err != nil {
		return nil, "", err
	}
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	limit := q.Limit
	q.Limit++
	page, err = s.reader.FleetDevices(ctx, q)
	if err != nil {
		return nil, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID
	}
	return page, next, nil
}

// Device gives one device and its timeline.
func (s *Service) Device(ctx context.Context, caller access.Caller, id string) (Detail, []Line, error) {
	d, err := s.reader.FleetDevice(ctx, id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return Detail{}, nil, err
	}
	denied := s.guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", ID: id, Product: d.Product, Group: d.Group})
	if denied != nil || err != nil { // whether it is there is for who might see it
		return Detail{}, nil, cmp.Or(denied, err)
	}
	lines, err := s.reader.FleetTimeline(ctx, id, MaxTimeline)
	if caller.Owner != "" { // what was before is of others
		lines = slices.DeleteFunc(lines, func(l Line) bool { return d.Owned == nil || l.At.Before(*d.Owned) })
	}
	return d, lines, err
}

// Facts searches a log. more says that there are older ones than the last of the page.
func (s *Service) Facts(ctx context.Context, caller access.Caller, q FactQuery) (page []Line, more bool, err error) {
	if err := s.guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: q.Log}); err != nil {
		return nil, false, err
	}
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	limit := q.Limit
	q.Limit++
	page, err = s.reader.FleetFacts(ctx, q)
	if len(page) > limit {
		return page[:limit], true, err
	}
	return page, false, err
}
