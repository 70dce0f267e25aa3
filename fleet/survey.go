package fleet

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/telemetry"
)

// Age counts the devices that were last seen less than Under ago, and not less than the Age before it. Under 0 is all the
// rest, those never seen included.
type Age struct {
	Under   time.Duration `json:"under"`
	Devices int           `json:"devices"`
}

// FindingQuery selects findings of one severity, newest first; other empty fields do not select.
type FindingQuery struct {
	Severity monitor.Severity
	Scope    []string // set by the Service
	Subject  string   // with it, every severity, and closed ones too
	Before   time.Time
	Limit    int
}

// CertQuery selects certificates.
type CertQuery struct {
	Device string
	After  time.Time // with no Device: those that end from here on
	Limit  int
}

// Certificate is one that was issued to a device.
type Certificate struct {
	Device    string    `json:"device"`
	Role      string    `json:"role"` // idevid, ldevid
	Serial    string    `json:"serial"`
	Issuer    string    `json:"issuer"` // subject key ID of the CA, hex
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Ended     time.Time `json:"ended,omitzero"` // void before its time from then on: revoked, or replaced
}

// Authority is a CA of the instance.
type Authority struct {
	Role     string    `json:"role"`
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// Expiry counts the certificates that end, by day, those that were replaced left out.
type Expiry struct {
	Days        []ExpiryDay `json:"days"` // 31 from today
	Overdue     int         `json:"overdue"`
	Later       int         `json:"later"` // those without an end left out
	Authorities []Authority `json:"authorities"`
	At          time.Time   `json:"at"`
}

// ExpiryDay is one day (UTC) of an Expiry.
type ExpiryDay struct {
	Day   time.Time `json:"day"`
	Count int       `json:"count"`
}

// Stream is a kind of data devices send.
type Stream struct {
	Name    string `json:"name"`
	Devices int    `json:"devices"`
}

// Backlog says what is waiting in the instance.
type Backlog struct {
	Unplaced  map[string]int    `json:"unplaced"`  // facts without a place, by log
	Sequenced map[string]uint64 `json:"sequenced"` // size of each log; what is published may be behind
	Orders    int               `json:"orders"`    // commands not yet answered, one for each device
	Followers map[string]uint64 `json:"followers"` // the next entry of the events log each has to look at
}

// Findings gives the open findings of a severity, or with a subject all of its own. more says that there are others.
func (s *Service) Findings(ctx context.Context, caller access.Caller, q FindingQuery) (page []monitor.Finding, more bool, err error) {
	if q.Scope, err = s.guard.Within(ctx, caller, access.FindingRead, "finding", "", ""); err != nil {
		return nil, false, err
	}
	if q.Limit <= 0 || q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	limit := q.Limit
	q.Limit++
	page, err = s.reader.FleetFindings(ctx, q)
	if len(page) > limit {
		return page[:limit], true, err
	}
	return page, false, err
}

// Certificates gives those of a device, newest first.
func (s *Service) Certificates(ctx context.Context, caller access.Caller, device Device) ([]Certificate, error) {
	if err := s.guard.Check(ctx, caller, access.CertRead, access.Resource{Type: "device", ID: device.ID, Product: device.Product, Group: device.Group}); err != nil {
		return nil, err
	}
	return s.reader.FleetCertificates(ctx, CertQuery{Device: device.ID, Limit: MaxPage})
}

// Expiry gives the calendar of certificates, as SummaryAt counts, and those that end next: overdue ones first.
func (s *Service) Expiry(ctx context.Context, caller access.Caller, after time.Time, limit int) (e Expiry, next []Certificate, ok bool, err error) {
	if err := s.guard.Check(ctx, caller, access.CertRead, access.Resource{Type: "instance"}); err != nil {
		return Expiry{}, nil, false, err
	}
	if e, ok, err = s.expiries.glance(ctx, "", s.expiry); err != nil || limit == 0 {
		return e, nil, ok, err
	}
	next, err = s.reader.FleetCertificates(ctx, CertQuery{After: after, Limit: min(limit, MaxPage)})
	return e, next, ok, err
}

func (s *Service) expiry(ctx context.Context) (Expiry, error) {
	return s.reader.FleetExpiry(ctx, time.Now().UTC())
}

// Runs counts the devices that run a release of a product, by state, as SummaryAt does.
func (s *Service) Runs(ctx context.Context, caller access.Caller, product string, release []byte) (runs map[string]int, ok bool, err error) {
	scope, err := s.guard.Within(ctx, caller, access.DeviceRead, "fleet", product, "")
	if err != nil {
		return nil, false, err
	}
	return s.runs.glance(ctx, string(release)+"\x00"+scopeKey(scope), func(ctx context.Context) (map[string]int, error) {
		return s.reader.FleetRuns(ctx, release, scope)
	})
}

// Streams gives the streams there are, as SummaryAt counts, and who may read them.
func (s *Service) Streams(ctx context.Context, caller access.Caller) (streams []Stream, grants []telemetry.Grant, ok bool, err error) {
	if err := s.guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "stream"}); err != nil {
		return nil, nil, false, err
	}
	if streams, ok, err = s.streams.glance(ctx, "", s.reader.FleetStreams); err != nil {
		return nil, nil, false, err
	}
	grants, err = s.reader.FleetGrants(ctx, MaxPage)
	return streams, grants, ok, err
}

// Backlog says what is waiting, as SummaryAt counts.
func (s *Service) Backlog(ctx context.Context, caller access.Caller) (b Backlog, ok bool, err error) {
	if err := s.guard.Check(ctx, caller, access.InstanceRead, access.Resource{Type: "instance"}); err != nil {
		return Backlog{}, false, err
	}
	return s.backlogs.glance(ctx, "", s.reader.FleetBacklog)
}
