package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// How much is looked at of what grows without end.
const (
	newestReleases = 20
	newestCommands = 10
	newestTold     = 500  // devices of each of them
	newestFacts    = 2000 // of a kind, of every product
	newestEpochs   = 100
	newestOrders   = 200
	newestDenials  = 10_000
)

// measuring fills a snapshot, part by part.
type measuring struct {
	*Comply
	out *comply.Snapshot

	role wire.KeySet // who may sign releases
}

func (m *measuring) row(ctx context.Context, query string, args ...any) *sql.Row {
	return m.db.Read().QueryRowContext(ctx, query, args...)
}

func (m *measuring) ago(d time.Duration) int64 { return Millis(m.out.At.Add(-d)) }

func (m *measuring) placeOf(ctx context.Context, uid []byte) (*ledger.Ref, error) {
	var log sql.NullString
	var index sql.NullInt64
	err := m.row(ctx, `SELECT log, idx FROM entry WHERE uid = $1`, uid).Scan(&log, &index)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // no fact, no place
	}
	return refOf(log, index), err
}

func (m *measuring) bundle(ctx context.Context) error {
	b, err := m.db.Devices().Bundle(ctx, m.out.Product.ID, 0)
	if errors.Is(err, device.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m.role = b.Wire.Release
	m.out.Bundle = comply.Bundle{Version: b.Wire.Version, Threshold: m.role.Threshold, Signers: len(m.role.Keys), Suites: b.Wire.Suites}
	m.out.Bundle.Ref, err = m.placeOf(ctx, b.UID[:])
	return err
}

// suiteOfRole names the one suite that every key of the role is of; empty when there is none.
func suiteOfRole(role wire.KeySet) string {
	var id suite.ID
	for _, der := range role.Keys {
		key, err := wire.ParseKey(der)
		if err != nil {
			return ""
		}
		s, err := suite.Of(key)
		if err != nil || id != "" && s.ID != id {
			return ""
		}
		id = s.ID
	}
	return string(id)
}

// releases verifies the newest anew: what was true when they were published need not be any more.
func (m *measuring) releases(ctx context.Context) error {
	list, err := collect(ctx, m.db, scanRelease, releaseColumns+` WHERE product = $1 AND status = $2 ORDER BY published DESC, created DESC LIMIT $3`,
		m.out.Product.ID, string(release.Published), newestReleases)
	if err != nil {
		return err
	}
	named := suiteOfRole(m.role)
	for _, r := range list {
		payload, err := wire.VerifyThreshold(wire.TypeRelease, r.Envelope, m.role)
		out := comply.Release{
			Digest: hex.EncodeToString(r.Digest[:]), Version: r.Manifest.Version, Hardware: r.Manifest.Hardware, Published: r.Published,
			Verified: err == nil && string(payload) == string(r.Payload), Suite: named,
			SBOM: len(r.Manifest.SBOM) > 0, Provenance: len(r.Manifest.Provenance) > 0,
		}
		var people []string
		for _, a := range r.Approvals {
			if a.Caller != r.Creator && !slices.Contains(people, a.Caller) {
				people = append(people, a.Caller)
			}
		}
		out.Approvers = len(people)
		if out.Found, err = foundOf(r); err != nil {
			return err
		}
		if out.Ref, err = m.placeOf(ctx, r.UID[:]); err != nil {
			return err
		}
		m.out.Releases = append(m.out.Releases, out)
	}
	return nil
}

// foundOf is what the supply gate found of a release: the decision that is signed, and the summary that was made when it was published.
func foundOf(r release.Release) (*comply.Found, error) {
	sum := sha256.Sum256(r.Decision)
	if len(r.Summary) == 0 || !bytes.Equal(sum[:], r.Manifest.Decision) {
		return nil, nil //nolint:nilnil // it had no gate
	}
	d, err := wire.DecodeGateDecision(r.Decision)
	if err != nil {
		return nil, fmt.Errorf("stored decision on release %x: %w", r.Digest, err)
	}
	s, err := statement.ReadSummary(r.Summary)
	if err != nil {
		return nil, fmt.Errorf("stored summary of release %x: %w", r.Digest, err)
	}
	return &comply.Found{Passed: d.OK && s.Passed, Components: int(d.Components), Unknown: int(d.Unknown), Excused: int(d.Excused)}, nil
}

// devices is the one pass over the product's devices.
func (m *measuring) devices(ctx context.Context) (err error) {
	m.out.Devices, err = collect(ctx, m.db, func(row scanner) (d comply.Devices, err error) {
		var running []byte
		var heardFrom, heardTo, provenFrom, provenTo int64
		err = row.Scan(&d.State, &d.Hardware, &running, &d.Virtual, &d.Origin, &d.N, &d.Heard, &heardFrom, &heardTo, &d.Good, &d.Warned, &d.Bad, &d.Stale,
			&provenFrom, &provenTo, &d.Certified, &d.Current, &d.Logged, &d.Identified)
		d.Release = hex.EncodeToString(running)
		d.HeardFrom, d.HeardTo, d.ProvenFrom, d.ProvenTo = timeOrZero(heardFrom), timeOrZero(heardTo), timeOrZero(provenFrom), timeOrZero(provenTo)
		return d, err
	}, `SELECT state, hardware, release, is_virtual, key_origin, count(*),
			count(*) FILTER (WHERE last_seen > $2), coalesce(min(CASE WHEN last_seen > 0 THEN last_seen END), 0), max(last_seen),
			count(*) FILTER (WHERE at > $3 AND status = $6), count(*) FILTER (WHERE at > $3 AND status = $7),
			count(*) FILTER (WHERE at > $3 AND status >= $8), count(*) FILTER (WHERE at <= $3),
			coalesce(min(CASE WHEN at > $3 THEN at END), 0), coalesce(max(at), 0),
			count(*) FILTER (WHERE certified), count(*) FILTER (WHERE bundle = $4), count(logged), count(identity)
		FROM (SELECT d.state, d.hardware, d.release, d.is_virtual, d.key_origin, d.last_seen, d.bundle, d.identity, v.at, v.status, l.device AS logged,
				EXISTS (SELECT 1 FROM cert c WHERE c.device = d.id AND c.role = 'ldevid' AND c.not_after > $5 AND (c.ended = 0 OR c.ended > $5)) AS certified
			FROM device d LEFT JOIN verdict_current v ON v.device_id = d.id LEFT JOIN device_log l ON l.device = d.id
			WHERE d.product = $1) t
		GROUP BY state, hardware, release, is_virtual, key_origin`,
		m.out.Product.ID, m.ago(comply.FreshContact), m.ago(comply.FreshProof), int64(m.out.Bundle.Version), Millis(m.out.At),
		int(attest.Affirming), int(attest.Warning), int(attest.Contraindicated))
	return err
}

func timeOrZero(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return Time(ms)
}

func (m *measuring) shared(ctx context.Context) error {
	return m.row(ctx, `SELECT count(*) FROM (SELECT identity FROM device WHERE identity IS NOT NULL GROUP BY identity
		HAVING count(*) > 1 AND count(*) FILTER (WHERE product = $1) > 0) t`, m.out.Product.ID).Scan(&m.out.Shared)
}

// commands looks at some devices of the newest commands.
func (m *measuring) commands(ctx context.Context) error {
	type command struct {
		id  string
		uid []byte
	}
	for _, act := range []wire.Act{wire.ActInstall, wire.ActConfigure} {
		list, err := collect(ctx, m.db, func(row scanner) (c command, err error) { return c, row.Scan(&c.id, &c.uid) },
			`SELECT id, uid FROM command WHERE product = $1 AND act = $2 AND issued > $3 ORDER BY issued DESC LIMIT $4`,
			m.out.Product.ID, string(act), m.ago(comply.FreshDrill), newestCommands)
		if err != nil {
			return err
		}
		t := comply.Told{Hardware: map[string]int{}, Commands: len(list)}
		for i, c := range list {
			if i == 0 {
				if t.Ref, err = m.placeOf(ctx, c.uid); err != nil {
					return err
				}
			}
			if err := m.told(ctx, &t, c.id); err != nil {
				return err
			}
		}
		m.out.Commands[string(act)] = t
	}
	return nil
}

// told counts what became of a command. That a device did it which only says so is not known.
func (m *measuring) told(ctx context.Context, t *comply.Told, command string) error {
	type group struct {
		hardware, state string
		n               int
		newest          int64
	}
	groups, err := collect(ctx, m.db, func(row scanner) (g group, err error) { return g, row.Scan(&g.hardware, &g.state, &g.n, &g.newest) },
		`SELECT d.hardware, CASE WHEN c.state = 'done' AND d.assurance = 'says' THEN 'delivered' ELSE c.state END, count(*), max(c.at) FROM (SELECT device_id, state, at FROM command_device WHERE command_id = $1 ORDER BY device_id LIMIT $2) c
			JOIN device d ON d.id = c.device_id GROUP BY 1, 2`, command, newestTold)
	if err != nil {
		return err
	}
	for _, g := range groups {
		t.Devices += g.n
		switch device.Standing(g.state) {
		case device.Done:
			t.Done += g.n
			t.Hardware[g.hardware] += g.n
			if at := Time(g.newest); at.After(t.Newest) {
				t.Newest = at
			}
		case device.Refused:
			t.Refused += g.n
		case device.Failed:
			t.Failed += g.n
		case device.Pending, device.Delivered, device.Cancelled, device.Expired:
			t.Open += g.n
		}
	}
	return nil
}

func (m *measuring) findings(ctx context.Context) (err error) {
	m.out.Findings, err = collect(ctx, m.db, func(row scanner) (f comply.Findings, err error) {
		var oldest, newest int64
		err = row.Scan(&f.Kind, &f.Severity, &f.N, &f.Open, &oldest, &newest)
		f.OldestOpen, f.Newest = timeOrZero(oldest), timeOrZero(newest)
		return f, err
	}, `SELECT kind, severity, count(*), count(*) FILTER (WHERE closed = 0), coalesce(min(CASE WHEN closed = 0 THEN raised END), 0), max(raised)
		FROM (SELECT kind, severity, closed, raised FROM finding WHERE product = $1 AND raised > $2
			UNION ALL SELECT kind, severity, closed, raised FROM finding WHERE closed = 0 AND product = $1 AND raised <= $2) t
		GROUP BY 1, 2 ORDER BY 1, 2`, m.out.Product.ID, m.ago(comply.Handling))
	return err
}

func (m *measuring) cases(ctx context.Context) error {
	var newest int64
	c := &m.out.Cases
	if err := m.row(ctx, `SELECT count(*), count(DISTINCT device_id), count(*) FILTER (WHERE open = 1), count(*) FILTER (WHERE open = 1 AND held = 1), coalesce(max(opened), 0)
		FROM remedy_case WHERE product = $1 AND opened > $2`, m.out.Product.ID, m.ago(comply.FreshDrill)).Scan(&c.N, &c.Devices, &c.Open, &c.Held, &newest); err != nil {
		return err
	}
	c.Newest = timeOrZero(newest)
	var log string
	var index int64
	err := m.row(ctx, `SELECT cause_log, cause_idx FROM remedy_case WHERE product = $1 ORDER BY opened DESC LIMIT 1`, m.out.Product.ID).Scan(&log, &index)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	c.Ref = refOf(sql.NullString{String: log, Valid: true}, sql.NullInt64{Int64: index, Valid: true})
	return err
}

// mark is a fact about a device of the product.
type mark struct {
	subject string
	at      int64
	data    []byte
	ref     *ledger.Ref
}

// marks gives those of a kind among the newest, newest first: what is about other products' devices is passed over, but counted, so
// that the walk has an end.
func (m *measuring) marks(ctx context.Context, kind ledger.Kind) ([]mark, error) {
	return collect(ctx, m.db, func(row scanner) (k mark, err error) {
		var log sql.NullString
		var index sql.NullInt64
		err = row.Scan(&k.subject, &k.at, &k.data, &log, &index)
		k.ref = refOf(log, index)
		return k, err
	}, `SELECT e.subject, e.at, e.data, e.log, e.idx FROM (SELECT id, subject, at, data, log, idx FROM entry WHERE kind = $1 ORDER BY id DESC LIMIT $2) e
		JOIN device d ON d.id = e.subject WHERE d.product = $3 AND e.at > $4 ORDER BY e.id DESC`,
		string(kind), newestFacts, m.out.Product.ID, m.ago(comply.FreshDrill))
}

func marksOf(list []mark) comply.Marks {
	out := comply.Marks{N: len(list)}
	if len(list) > 0 {
		out.Newest, out.Ref = Time(list[0].at), list[0].ref
	}
	return out
}

func (m *measuring) facts(ctx context.Context) error {
	for _, kind := range []ledger.Kind{ledger.KindDeviceRefused, ledger.KindDeviceQuarantined, ledger.KindRetireWiped, ledger.KindTelemetryKeysDestroyed} {
		list, err := m.marks(ctx, kind)
		if err != nil {
			return err
		}
		m.out.Facts[kind] = marksOf(list)
		if kind != ledger.KindDeviceRefused {
			continue
		}
		for _, k := range list {
			var d struct{ Code string }
			if f, err := wire.DecodeFact(k.data); err == nil && json.Unmarshal(f.Data, &d) == nil {
				m.out.Refusals[d.Code]++
			}
		}
	}
	return nil
}

// epochs looks at how the newest data keys are sealed.
func (m *measuring) epochs(ctx context.Context) error {
	list, err := m.marks(ctx, ledger.KindTelemetryEpochOpened)
	if err != nil {
		return err
	}
	marks := marksOf(list)
	e := &m.out.Epochs
	e.Newest, e.Ref = marks.Newest, marks.Ref
	for _, k := range list[:min(len(list), newestEpochs)] {
		var d struct {
			Stream string
			Epoch  uint64
		}
		f, err := wire.DecodeFact(k.data)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(f.Data, &d); err != nil {
			return err
		}
		var payload []byte
		err = m.row(ctx, `SELECT payload FROM stream_epoch WHERE device = $1 AND stream = $2 AND epoch = $3`, k.subject, d.Stream, int64(d.Epoch)).Scan(&payload)
		if errors.Is(err, sql.ErrNoRows) {
			continue // destroyed since
		}
		if err != nil {
			return err
		}
		opened, err := wire.DecodeEpoch(payload)
		if err != nil {
			return err
		}
		e.N++
		if approvedKEM(opened.KEM) {
			e.Approved++
		}
		if !slices.Contains(e.Streams, d.Stream) {
			e.Streams = append(e.Streams, d.Stream)
		}
	}
	slices.Sort(e.Streams)
	return nil
}

func approvedKEM(kem uint16) bool {
	return slices.ContainsFunc(suite.IDs(), func(id suite.ID) bool {
		s, err := suite.Get(id)
		return err == nil && s.KEM == kem
	})
}

// retired counts by phase; who was disposed of without a receipt stays written off.
func (m *measuring) retired(ctx context.Context) error {
	type group struct {
		phase string
		r     comply.Retired
	}
	groups, err := collect(ctx, m.db, func(row scanner) (g group, err error) { return g, row.Scan(&g.phase, &g.r.N, &g.r.Unfinished) },
		`SELECT CASE WHEN r.phase = $4 AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.subject = d.id AND e.kind = $5) THEN $6 ELSE r.phase END,
			count(*), count(*) FILTER (WHERE r.open = 1) FROM device d JOIN retirement r ON r.device_id = d.id
		WHERE d.product = $1 AND d.state IN ($2, $3) GROUP BY 1`, m.out.Product.ID, string(device.Decommissioned), string(device.Disposed),
		string(retire.Disposed), string(ledger.KindRetireWiped), string(retire.WrittenOff))
	for _, g := range groups {
		m.out.Retired[g.phase] = g.r
	}
	return err
}

func (m *measuring) orders(ctx context.Context) error {
	list, err := collect(ctx, m.db, func(row scanner) (factory.Order, error) { return scanOrder(row) }, orderColumns+` WHERE product = $1 ORDER BY created DESC LIMIT $2`, m.out.Product.ID, newestOrders)
	if err != nil {
		return err
	}
	for _, o := range list {
		out := comply.Order{ID: o.ID, Quota: int(o.Quota)}
		if err := m.row(ctx, `SELECT (SELECT count(*) FROM device WHERE order_id = $1), (SELECT count(*) FROM production_alarm WHERE order_id = $1)`,
			o.ID).Scan(&out.Devices, &out.Alarms); err != nil {
			return err
		}
		if out.Ref, err = m.placeOf(ctx, o.UID[:]); err != nil {
			return err
		}
		m.out.Orders = append(m.out.Orders, out)
	}
	return nil
}

// rest counts what is of the instance.
func (m *measuring) rest(ctx context.Context) error {
	var newest int64
	if err := m.row(ctx, `SELECT count(*), coalesce(max(at), 0) FROM (SELECT at, product, allowed FROM audit ORDER BY id DESC LIMIT $2) t
		WHERE product = $1 AND at > $3 AND allowed = 0`,
		m.out.Product.ID, newestDenials, m.ago(comply.FreshDrill)).Scan(&m.out.Denials.N, &newest); err != nil {
		return err
	}
	m.out.Denials.Newest = timeOrZero(newest)
	var size, next int64
	for _, q := range []struct {
		query string
		into  *int64
	}{
		{`SELECT size FROM tlog_state WHERE log = 'events'`, &size},
		{`SELECT next FROM follower WHERE name = 'reactions'`, &next},
	} {
		if err := m.row(ctx, q.query).Scan(q.into); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	m.out.Behind = int(max(0, size-next))
	return nil
}
