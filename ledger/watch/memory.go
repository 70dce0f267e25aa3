package watch

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/wire"
)

// Memory is what a judge remembers of the entries it has judged. Its size is bounded: see Policy.Devices and maxOf.
type Memory struct {
	V        int                      `json:"v"`
	Policy   string                   `json:"policy"` // digest of the one it was gathered under
	Judged   map[ledger.Log]uint64    `json:"judged"` // how many entries of each log
	Clock    map[ledger.Log]time.Time `json:"clock"`  // the newest time in it
	Full     bool                     `json:"full,omitempty"`
	FullTold bool                     `json:"full_told,omitempty"`
	Settled  bool                     `json:"settled,omitempty"` // a trust bundle was published: the beginning is over

	Products    map[string]*trusted        `json:"products"`
	Keys        map[string]string          `json:"keys"` // name by key ID
	OrderKeys   custody.OrderKeys          `json:"order_keys,omitempty"`
	Authorities map[string][]byte          `json:"authorities"` // certificate (DER) by subject key identifier (hex)
	OrderCAs    map[string]bool            `json:"order_cas"`   // by SHA-256 of the certificate (hex)
	Admins      map[string]bool            `json:"admins"`
	Releases    map[string]*release        `json:"releases"` // by digest (hex)
	Warrants    map[string]*wire.Warrant   `json:"warrants"`
	Recent      map[wire.Act][]minute      `json:"recent"` // devices commanded within the last hour
	Orders      map[string]*order          `json:"orders"`
	sets        map[string]map[id]struct{} // what was once, by the names below
}

// Sets of things that are remembered by a short hash.
const (
	setDevice  = "device"  // made
	setRetired = "retired" // wiped, or out of service
	setChip    = "chip"
	setKey     = "key"    // of a device
	setTicket  = "ticket" // of an order
)

// id is a short hash: 64 bits chosen by who adds entries would collide on purpose, 128 do not.
type id [16]byte

func idOf(parts ...[]byte) id {
	sum := sha256.Sum256(bytes.Join(parts, []byte{0}))
	return id(sum[:16])
}

func ticketOf(r *wire.Record) id {
	return idOf([]byte(r.Order), binary.BigEndian.AppendUint32(nil, r.Ticket))
}

type trusted struct {
	First wire.Bundle `json:"first"`
	Now   wire.Bundle `json:"now"`
}

type release struct {
	Proposer  string   `json:"proposer"`
	Approvers []string `json:"approvers,omitempty"`
	Published bool     `json:"published,omitempty"`
	Withdrawn bool     `json:"withdrawn,omitempty"`
}

type order struct {
	CA       []byte    `json:"ca"` // DER
	Product  string    `json:"product"`
	Station  []byte    `json:"station"`
	Quota    uint32    `json:"quota"`
	NotAfter uint64    `json:"not_after"`
	Closed   time.Time `json:"closed,omitzero"`
}

// minute counts devices.
type minute struct {
	At int64  `json:"at"` // minutes since 1970
	N  uint64 `json:"n"`
}

const (
	memoryVersion = 2
	maxOf         = 100_000 // of anything but devices
	maxCA         = 4 << 10 // bytes of the certificate of an order's CA, which is remembered
)

// NewMemory is that of a judge who has seen nothing.
func NewMemory() *Memory {
	return &Memory{
		V: memoryVersion, Judged: map[ledger.Log]uint64{}, Clock: map[ledger.Log]time.Time{}, Products: map[string]*trusted{}, Keys: map[string]string{},
		Authorities: map[string][]byte{}, OrderCAs: map[string]bool{}, Admins: map[string]bool{}, Releases: map[string]*release{},
		Warrants: map[string]*wire.Warrant{}, Recent: map[wire.Act][]minute{}, Orders: map[string]*order{},
		sets: map[string]map[id]struct{}{setDevice: {}, setRetired: {}, setChip: {}, setKey: {}, setTicket: {}},
	}
}

// saved is a Memory with its sets, each written as its members one after another.
type saved struct {
	*Memory
	Sets map[string][]byte `json:"sets"`
}

// Encode writes what is remembered, to go on from later.
func (m *Memory) Encode() ([]byte, error) {
	s := saved{Memory: m, Sets: map[string][]byte{}}
	for name, set := range m.sets {
		b := make([]byte, 0, len(set)*len(id{}))
		for k := range set {
			b = append(b, k[:]...)
		}
		s.Sets[name] = b
	}
	return json.Marshal(s)
}

// DecodeMemory reads what Encode wrote. What was gathered by another version, or under another policy, is not used: the logs hold it all.
func DecodeMemory(data []byte, p Policy) (*Memory, error) {
	s := saved{Memory: NewMemory()}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.Memory == nil || s.V != memoryVersion || s.Policy != p.Digest() {
		return nil, errors.New("it is of another version or policy")
	}
	for name, b := range s.Sets {
		set, known := s.sets[name]
		if !known || len(b)%len(id{}) != 0 {
			return nil, fmt.Errorf("set %q is damaged", name)
		}
		for k := range slices.Chunk(b, len(id{})) {
			set[id(k)] = struct{}{}
		}
	}
	return s.Memory, nil
}

func (m *Memory) seen(set string, k id) bool { _, ok := m.sets[set][k]; return ok }

// keep remembers k, unless there is no room: then the memory is full, which is told.
func (m *Memory) keep(p Policy, set string, k id) {
	if len(m.sets[set]) >= p.devices() && !m.seen(set, k) {
		m.Full = true
		return
	}
	m.sets[set][k] = struct{}{}
}

func put[K comparable, V any](m *Memory, to map[K]V, k K, v V) {
	if _, there := to[k]; !there && len(to) >= maxOf {
		m.Full = true
		return
	}
	to[k] = v
}

// inForce gives the trust bundle of a product, as of now.
func (m *Memory) inForce(product string) *wire.Bundle {
	t := m.Products[product]
	if t == nil {
		return nil
	}
	return &t.Now
}

// within counts the devices that commands of an act were for in the hour up to t.
func (m *Memory) within(act wire.Act, t time.Time) (n uint64) {
	for _, r := range m.Recent[act] {
		if r.At > t.Unix()/60-60 {
			n += min(r.N, 1<<40)
		}
	}
	return n
}

// learn takes in an entry; wrong are the rules it broke. What must not be believed is not learnt.
func (m *Memory) learn(p Policy, l *line, wrong map[string]bool) {
	m.Judged[l.Log] = l.Index + 1
	m.FullTold = m.FullTold || wrong[ruleFull]
	if l.at.After(m.Clock[l.Log]) && !wrong[ruleAhead] {
		m.Clock[l.Log] = l.at
	}
	if l.err != nil {
		return
	}
	if !slices.Contains(l.kind.Logs(), l.Log) {
		return
	}
	if l.Log == ledger.Control {
		m.learnDecision(l, wrong)
		return
	}
	m.learnEvent(p, l)
}

func (m *Memory) learnDecision(l *line, wrong map[string]bool) {
	switch l.kind { //nolint:exhaustive // nothing rests on the others
	case ledger.KindKeyCreated:
		m.learnKey(l, wrong[ruleKey])
	case ledger.KindDeskAdded:
		if !wrong[ruleDesk] {
			put(m, m.Keys, l.key.id, "desk "+l.fact.Subject)
			m.OrderKeys = m.OrderKeys.Learn(l.fact)
		}
	case ledger.KindKeyRetired, ledger.KindDeskRemoved:
		m.OrderKeys = m.OrderKeys.Learn(l.fact)
	case ledger.KindCACreated:
		m.learnCA(l.cert, wrong[ruleCA])
	case ledger.KindAccessChanged:
		if slices.Contains(l.grant.Roles, roleAdmin) && !wrong[ruleAdministrator] {
			put(m, m.Admins, l.grant.who(), true)
		}
	case ledger.KindBundlePublished:
		if wrong[ruleBundle] {
			return
		}
		m.Settled = true
		t := m.Products[l.bundle.Product]
		if t == nil {
			t = &trusted{First: *l.bundle}
		}
		t.Now = *l.bundle
		put(m, m.Products, l.bundle.Product, t)
	case ledger.KindReleaseProposed, ledger.KindReleaseApproved, ledger.KindReleasePublished, ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed:
		m.learnRelease(l, wrong)
	case ledger.KindWarrantIssued:
		if !wrong[ruleWarrant] {
			put(m, m.Warrants, l.warrant.ID, l.warrant)
		}
	case ledger.KindCommandIssued:
		m.count(l.command, m.Clock[l.Log])
	case ledger.KindOrderCreated:
		if !wrong[ruleOrder] {
			h := l.order
			put(m, m.Orders, h.ID, &order{CA: h.Chain[0], Product: h.Product, Station: h.Station, Quota: h.Quota, NotAfter: h.NotAfter})
		}
	case ledger.KindOrderClosed, ledger.KindOrderCancelled, ledger.KindOrderAbandoned:
		if o := m.Orders[l.fact.Subject]; o != nil && o.Closed.IsZero() {
			o.Closed = l.at
		}
	}
}

func (m *Memory) learnKey(l *line, wrong bool) {
	if wrong {
		return
	}
	put(m, m.Keys, l.key.id, l.key.Name)
	m.OrderKeys = m.OrderKeys.Learn(l.fact)
}

func (m *Memory) learnCA(c *x509.Certificate, wrong bool) {
	switch {
	case wrong:
	case m.ofOrder(c):
		put(m, m.OrderCAs, fingerprint(c.Raw), true)
	default:
		put(m, m.Authorities, hex.EncodeToString(c.SubjectKeyId), c.Raw)
	}
}

func (m *Memory) learnRelease(l *line, wrong map[string]bool) {
	k := hex.EncodeToString(l.digest[:])
	r := m.Releases[k]
	switch {
	case r == nil && l.kind == ledger.KindReleaseProposed:
		put(m, m.Releases, k, &release{Proposer: l.fact.Actor})
	case r == nil || wrong[ruleRelease]:
	case l.kind == ledger.KindReleaseApproved:
		if len(r.Approvers) < 64 && !slices.Contains(r.Approvers, l.fact.Actor) {
			r.Approvers = append(r.Approvers, l.fact.Actor)
		}
	case l.kind == ledger.KindReleasePublished:
		r.Published = true
	case l.kind == ledger.KindReleaseWithdrawn || l.kind == ledger.KindReleaseClosed:
		r.Withdrawn = true
	}
}

// count remembers for how many devices a command was, by the minute.
func (m *Memory) count(c *wire.Command, now time.Time) {
	if !slices.Contains(acts(), c.Act) {
		return
	}
	at := now.Unix() / 60
	recent := slices.DeleteFunc(m.Recent[c.Act], func(r minute) bool { return r.At <= at-60 })
	if n := len(recent); n > 0 && recent[n-1].At == at {
		recent[n-1].N += min(c.Devices.Count, 1<<40)
	} else {
		recent = append(recent, minute{at, min(c.Devices.Count, 1<<40)})
	}
	m.Recent[c.Act] = recent
}

func (m *Memory) learnEvent(p Policy, l *line) {
	switch l.kind { //nolint:exhaustive // nothing rests on the others
	case ledger.KindDeviceProvisioned:
		r := l.record
		if r.Outcome != wire.Made || r.Keys == nil || r.Chip == nil {
			return
		}
		m.keep(p, setDevice, idOf([]byte(l.fact.Subject)))
		m.keep(p, setChip, idOf(r.Chip.ChipUID))
		m.keep(p, setKey, idOf(r.Keys.IDevID))
		m.keep(p, setTicket, ticketOf(r))
	case ledger.KindRetireWiped, ledger.KindRetireWrittenOff, ledger.KindRetireDisposed:
		m.keep(p, setRetired, idOf([]byte(l.fact.Subject)))
	case ledger.KindDeviceState:
		if l.said.To == "decommissioned" || l.said.To == "disposed" || l.said.To == "moved" {
			m.keep(p, setRetired, idOf([]byte(l.fact.Subject)))
		}
	}
}

// Propose writes a policy that expects what there is: to be read by a person before it is used.
func (m *Memory) Propose() Policy {
	p := Policy{Products: map[string]Product{}, Authorities: map[string]string{}, Keys: map[string]string{}, WarrantDevices: defaultWarrant, DevicesPerHour: map[wire.Act]uint64{}}
	name := func(to map[string]string, want, value string) {
		n := want
		for i := 2; to[n] != ""; i++ {
			n = fmt.Sprintf("%s %d", want, i)
		}
		to[n] = value
	}
	for _, k := range slices.Sorted(maps.Keys(m.Keys)) {
		name(p.Keys, m.Keys[k], k)
	}
	for _, ski := range slices.Sorted(maps.Keys(m.Authorities)) {
		if c, err := x509.ParseCertificate(m.Authorities[ski]); err == nil {
			name(p.Authorities, c.Subject.CommonName, fingerprint(c.Raw))
		}
	}
	p.Administrators = slices.Sorted(maps.Keys(m.Admins))
	for _, act := range acts() {
		if n, ok := p.perHour(act); ok {
			p.DevicesPerHour[act] = n
		}
	}
	for product, t := range m.Products {
		role := func(s wire.KeySet) *Signers {
			out := &Signers{Keys: map[string]string{}, Threshold: s.Threshold}
			for i, k := range s.Keys {
				want := m.Keys[keyID(k)]
				if want == "" {
					want = fmt.Sprintf("key %d", i+1)
				}
				name(out.Keys, want, keyID(k))
			}
			return out
		}
		b := t.First
		q := Product{Root: role(b.Root), Release: role(b.Release), Warrant: role(b.Warrant), Directive: role(b.Directive), Quorum: b.Quorum, Witnesses: map[string]string{}}
		for _, w := range b.Witnesses {
			q.Witnesses[w.Name] = hex.EncodeToString(w.Key)
		}
		p.Products[product] = q
	}
	return p
}
