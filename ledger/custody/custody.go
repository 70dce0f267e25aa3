// Package custody tells a device's chain of custody, factory to now, so that nobody has to be believed for it.
//
// Over all stages. It gathers what the logs hold of a device, with everything that rests on: the order it was made under, what caused each
// event, the releases, rollouts, commands and warrants that reached it, and who approved them. The set is closed: a verifier who has the
// keys of the logs and witnesses needs nothing else. Verify is that verifier; it shares the formats with Gather and nothing more.
//
// What it cannot show is that nothing is missing: proofs of inclusion say what is in a log, not what is not. Bound against omission are the
// device's own log (numbered and chained by the device), its states (each begins where the one before ended), trust bundles (numbered), and
// whatever is the cause of something shown.
package custody

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Origin is what the store knows of a device beside its facts.
type Origin struct {
	Product, Group, Order string
	Station               []byte // record key (SPKI) of the station of its order; empty when the order is not known
	Signer                string // subject of the facts about the key that signed its order: the key's name, or the desk's
	Facts, Unplaced       uint64 // about the device: those that have their place, and those that have none yet
}

// Placed is a fact as it stands in its log.
type Placed struct {
	ledger.Ref
	Entry []byte
}

// Store finds facts. Only those that have their place are told.
type Store interface {
	// CustodyOf says where a device belongs; a fault of kind NotFound when nobody knows it.
	CustodyOf(ctx context.Context, device string) (Origin, error)
	// FactsOf gives the newest facts about a subject, at most limit; of one kind, unless kind is empty.
	FactsOf(ctx context.Context, subject string, kind ledger.Kind, limit int) ([]Placed, error)
	// NamedIn gives the subjects of the commands and warrants that a device was named in.
	NamedIn(ctx context.Context, device string) ([]string, error)
	// DevicesOf gives the devices of the command or warrant whose fact has that UID.
	DevicesOf(ctx context.Context, uid [16]byte) ([]string, error)
	// ReleaseID gives the ID of a release; empty when there is none.
	ReleaseID(ctx context.Context, digest [32]byte) (string, error)
}

// Config is what a Service needs.
type Config struct {
	Store   Store
	Ledger  *ledger.Reader
	Guard   *access.Guard
	Origins map[string]ledger.Log // by origin: devices name logs so
}

// Service gathers.
type Service struct{ cfg Config }

// NewService makes the service.
func NewService(cfg Config) *Service { return &Service{cfg} }

// maxAbout bounds the facts about one subject; of a device with more, the lasting ones are there and the newest of the others.
const maxAbout = 3000

// lasting are the kinds of facts about a device that are there however old they are.
var lasting = []ledger.Kind{
	ledger.KindDeviceProvisioned, ledger.KindDeviceEnrolled, ledger.KindDeviceOnboarded, ledger.KindDeviceState, ledger.KindDeviceQuarantined,
	ledger.KindDeviceReleased, ledger.KindDeviceReprovisioned, ledger.KindDeviceRekeyed, ledger.KindDeviceAttestKey, ledger.KindVoucherIssued, ledger.KindDeviceReplaced, ledger.KindDeviceLogForked, ledger.KindDeviceUpdated,
	ledger.KindDeviceClaimed, ledger.KindDeviceTransferred, ledger.KindTransferGivenUp, ledger.KindTransferDone,
	ledger.KindCertIssued, ledger.KindCertRevoked, ledger.KindRemedyDecided, ledger.KindRetireWiped, ledger.KindRetireWrittenOff, ledger.KindRetireDisposed,
}

// maxBytes bounds the entries of a chain of custody; proofs and checkpoints have the rest of wire.MaxCustody.
const maxBytes = wire.MaxCustody - 8<<20

// Gather gives a device's chain of custody. It is for who may read the whole ledger of the device's product: orders, rollouts and warrants
// name other devices of it, so a group of the product is not enough.
func (s *Service) Gather(ctx context.Context, caller access.Caller, device string) (wire.Custody, error) {
	o, err := s.cfg.Store.CustodyOf(ctx, device)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return wire.Custody{}, err
	}
	denied := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", ID: device, Product: o.Product, Group: o.Group})
	if denied == nil {
		denied = s.cfg.Guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: device, Product: o.Product})
	}
	if denied != nil || err != nil { // whether it is there is for who might see it
		return wire.Custody{}, cmp.Or(denied, err)
	}
	g := gathering{Service: s, ctx: ctx, device: device, asked: map[string]bool{}, logs: map[ledger.Log]*part{}}
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		cp, err := s.cfg.Ledger.Latest(ctx, log)
		if err != nil {
			return wire.Custody{}, pending(device, err)
		}
		g.logs[log] = &part{cp: cp, entries: map[uint64][]byte{}}
	}
	if err := g.gather(o); err != nil {
		return wire.Custody{}, pending(device, err)
	}
	return g.custody(o)
}

// pending says what can be done about a fact that is not witnessed yet.
func pending(device string, err error) error {
	if errors.Is(err, ledger.ErrNotYetWitnessed) || errors.Is(err, ledger.ErrNotFound) {
		return fault.Newf(fault.Unavailable, "custody.not-witnessed", "chain of custody of device %s: %w", device, err).With("ask again when the log is witnessed")
	}
	return err
}

// part is what is gathered of one log.
type part struct {
	cp      ledger.Published
	entries map[uint64][]byte
}

// gathering is one Gather under way.
type gathering struct {
	*Service
	ctx    context.Context
	device string

	logs    map[ledger.Log]*part
	asked   map[string]bool // subjects
	named   []string        // subjects of commands and warrants that name the device
	members []wire.CustodyMember
	todo    []Placed
	bytes   int // of all entries
	left    uint64
	pending uint64
}

func (g *gathering) gather(o Origin) error {
	if err := g.life(o); err != nil {
		return err
	}
	var err error
	if g.named, err = g.cfg.Store.NamedIn(g.ctx, g.device); err != nil {
		return err
	}
	for _, about := range []struct {
		subject string
		kinds   []ledger.Kind
	}{
		{o.Product, []ledger.Kind{ledger.KindProductCreated, ledger.KindBundlePublished}},
		{o.Order, []ledger.Kind{ledger.KindOrderCreated, ledger.KindOrderClosed, ledger.KindOrderAbandoned}},
		{o.Signer, []ledger.Kind{ledger.KindKeyCreated, ledger.KindKeyRetired, ledger.KindDeskAdded, ledger.KindDeskRemoved}},
	} {
		if err := g.about(about.subject, about.kinds...); err != nil {
			return err
		}
	}
	for _, subject := range g.named {
		if err := g.about(subject, ledger.KindCommandIssued, ledger.KindCommandCancelled, ledger.KindWarrantIssued, ledger.KindRetireOrdered); err != nil {
			return err
		}
	}
	for len(g.todo) > 0 {
		if err := g.bounded(); err != nil { // a device may name as the cause of its events what it likes
			return err
		}
		p := g.todo[0]
		g.todo = g.todo[1:]
		if err := g.follow(p); err != nil {
			return fmt.Errorf("%s entry %d: %w", p.Log, p.Index, err)
		}
	}
	return nil
}

// bounded stops a gathering that no chain of custody could hold.
func (g *gathering) bounded() error {
	for log, part := range g.logs {
		if len(part.entries) > wire.MaxCustodyEntries || g.bytes > maxBytes {
			return fault.New(fault.Unavailable, "custody.too-large", fmt.Sprintf("the chain of custody of device %s has more than %d entries of the %s log, or more than %d bytes",
				g.device, wire.MaxCustodyEntries, log, maxBytes), "read them with hallmark fact list")
		}
	}
	return nil
}

// life takes the facts about the device itself.
func (g *gathering) life(o Origin) error {
	facts, err := g.cfg.Store.FactsOf(g.ctx, g.device, "", maxAbout)
	if err != nil {
		return err
	}
	g.add(facts...)
	g.pending = o.Unplaced + uint64(len(facts)-len(g.todo))
	if o.Facts <= maxAbout {
		return nil
	}
	for _, k := range lasting {
		facts, err := g.cfg.Store.FactsOf(g.ctx, g.device, k, maxAbout)
		if err != nil {
			return err
		}
		g.add(facts...)
	}
	g.left = o.Facts - min(o.Facts, g.pending-o.Unplaced+uint64(len(g.todo)))
	return nil
}

func (g *gathering) about(subject string, kinds ...ledger.Kind) error {
	if subject == "" {
		return nil
	}
	for _, k := range kinds {
		if key := string(k) + " " + subject; g.asked[key] {
			continue
		} else {
			g.asked[key] = true
		}
		facts, err := g.cfg.Store.FactsOf(g.ctx, subject, k, maxAbout)
		if err != nil {
			return err
		}
		g.add(facts...)
	}
	return nil
}

// add takes what is under the checkpoint; the rest is too new, and is there the next time.
func (g *gathering) add(facts ...Placed) {
	for _, p := range facts {
		part := g.logs[p.Log]
		if part == nil || p.Index >= part.cp.Size || part.entries[p.Index] != nil {
			continue
		}
		part.entries[p.Index] = p.Entry
		g.bytes += len(p.Entry)
		g.todo = append(g.todo, p)
	}
}

// cite takes an entry that another one rests on: it must be there.
func (g *gathering) cite(log ledger.Log, index uint64) error {
	part := g.logs[log]
	if part == nil {
		return fmt.Errorf("cause in a log %q: %w", log, ledger.ErrNotFound)
	}
	if part.entries[index] != nil {
		return nil
	}
	if index >= part.cp.Size {
		return fmt.Errorf("%s entry %d: %w", log, index, ledger.ErrNotYetWitnessed)
	}
	ref := ledger.Ref{Log: log, Index: index}
	entry, err := g.cfg.Ledger.Entry(g.ctx, ref)
	if err != nil {
		return err
	}
	g.add(Placed{ref, entry})
	return nil
}

// follow takes what a fact rests on. What cannot be read is left to the verifier to say.
func (g *gathering) follow(p Placed) error {
	f, err := wire.DecodeFact(p.Entry)
	if err != nil {
		return nil //nolint:nilerr // the verifier says so
	}
	if f.Cause != nil {
		if err := g.cite(ledger.Log(f.Cause.Log), f.Cause.Index); err != nil {
			return err
		}
	}
	switch ledger.Kind(f.Kind) { //nolint:exhaustive // the others rest on nothing but their cause
	case ledger.KindCommandIssued:
		return g.command(p, f)
	case ledger.KindWarrantIssued:
		if payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, f.Data); err == nil {
			if w, err := wire.DecodeWarrant(payload); err == nil {
				return g.member(p, f, w.Devices)
			}
		}
	case ledger.KindOrderCreated:
		if o, err := wire.Parse1(wire.TypeOrder, f.Data); err == nil {
			if d, err := wire.DecodeOrder(o.Payload); err == nil {
				return g.release(d.Header.Release)
			}
		}
	case ledger.KindDeviceLogAnchored:
		return g.events(f)
	case ledger.KindCertIssued:
		return g.issuers(f.Data)
	case ledger.KindDeviceRekeyed:
		var d rekeying
		if json.Unmarshal(f.Data, &d) == nil { // otherwise the verifier says so
			return g.issuers(d.Certificate)
		}
	}
	return nil
}

// issuers takes the CAs that may have signed a certificate.
func (g *gathering) issuers(der []byte) error {
	for _, ca := range issuers(der) {
		if err := g.about(ca, ledger.KindCACreated); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) command(p Placed, f wire.Fact) error {
	o, err := wire.Parse1(wire.TypeCommand, f.Data)
	if err != nil {
		return nil //nolint:nilerr // the verifier says so
	}
	c, err := wire.DecodeCommand(o.Payload)
	if err != nil {
		return nil //nolint:nilerr // the verifier says so
	}
	return cmp.Or(g.member(p, f, c.Devices), g.release(c.Release), g.about(c.Rollout,
		ledger.KindRolloutCreated, ledger.KindRolloutStarted, ledger.KindWaveStarted, ledger.KindTrancheIssued, ledger.KindWaveSucceeded, ledger.KindRolloutHalted,
		ledger.KindRolloutJoined, ledger.KindRolloutShut, ledger.KindRolloutPaced, ledger.KindRolloutPaused, ledger.KindRolloutResumed, ledger.KindRolloutAborted, ledger.KindRolloutRolledBack, ledger.KindRolloutCompleted))
}

// member shows that the device is one of those that a command or warrant names. Where the store cannot tell any more whom it named, nothing
// is shown, and the verifier says so.
func (g *gathering) member(p Placed, f wire.Fact, set wire.DeviceSet) error {
	if !slices.Contains(g.named, f.Subject) {
		return nil
	}
	ids, err := g.cfg.Store.DevicesOf(g.ctx, [16]byte(f.UID))
	if err != nil {
		return err
	}
	m, err := wire.MembershipOf(ids, g.device)
	if err != nil || m.Verify(set, g.device) != nil {
		return nil //nolint:nilerr // see above
	}
	if m.Path == nil { // of a set of one
		m.Path = [][]byte{}
	}
	g.members = append(g.members, wire.CustodyMember{Index: p.Index, Member: m})
	return nil
}

// release takes what the log says of a release: of just that one, since another product's may have the same ID.
func (g *gathering) release(digest []byte) error {
	if len(digest) != 32 {
		return nil
	}
	id, err := g.cfg.Store.ReleaseID(g.ctx, [32]byte(digest))
	if err != nil || id == "" || g.asked["release "+string(digest)] {
		return err
	}
	g.asked["release "+string(digest)] = true
	for _, k := range []ledger.Kind{ledger.KindReleaseProposed, ledger.KindReleaseApproved, ledger.KindReleasePublished, ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed} {
		facts, err := g.cfg.Store.FactsOf(g.ctx, id, k, maxAbout)
		if err != nil {
			return err
		}
		g.add(slices.DeleteFunc(facts, func(p Placed) bool {
			f, err := wire.DecodeFact(p.Entry)
			return err != nil || releaseOf(f) != [32]byte(digest)
		})...)
	}
	return nil
}

// releaseOf gives the digest of the release that a fact is about; zeros when it cannot be read.
func releaseOf(f wire.Fact) (digest [32]byte) {
	switch ledger.Kind(f.Kind) { //nolint:exhaustive // those of releases
	case ledger.KindReleaseProposed:
		return wire.ReleaseDigest(f.Data)
	case ledger.KindReleaseApproved, ledger.KindReleasePublished:
		if payload, _, err := wire.ThresholdPayload(wire.TypeRelease, f.Data); err == nil {
			return wire.ReleaseDigest(payload)
		}
	case ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed:
		var w struct {
			Release string `json:"release"`
		}
		if json.Unmarshal(f.Data, &w) == nil {
			if raw, err := hex.DecodeString(w.Release); err == nil && len(raw) == 32 {
				return [32]byte(raw)
			}
		}
	}
	return digest
}

// events takes the causes of the events of a device's own log.
func (g *gathering) events(f wire.Fact) error {
	o, err := wire.Parse1(wire.TypeDeviceLog, f.Data)
	if err != nil {
		return nil //nolint:nilerr // the verifier says so
	}
	b, err := wire.DecodeLogBatch(o.Payload)
	if err != nil {
		return nil //nolint:nilerr // the verifier says so
	}
	for _, e := range b.Events {
		if e.Cause == nil {
			continue
		}
		log, known := g.cfg.Origins[e.Cause.Origin]
		if !known || e.Cause.Index >= g.logs[log].cp.Size {
			continue // the verifier says so: the device may name what it likes
		}
		if err := g.cite(log, e.Cause.Index); err != nil {
			return err
		}
	}
	return nil
}

// custody proves what was gathered.
func (g *gathering) custody(o Origin) (wire.Custody, error) {
	c := wire.Custody{V: 1, Device: g.device, Station: o.Station, Members: g.members, Left: g.left, Pending: g.pending}
	slices.SortFunc(c.Members, func(a, b wire.CustodyMember) int { return cmp.Compare(a.Index, b.Index) })
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		part := g.logs[log]
		entries := make([]wire.CustodyEntry, 0, len(part.entries))
		for i, e := range part.entries {
			entries = append(entries, wire.CustodyEntry{Index: i, Entry: e})
		}
		if len(entries) == 0 {
			continue
		}
		slices.SortFunc(entries, func(a, b wire.CustodyEntry) int { return cmp.Compare(a.Index, b.Index) })
		l, err := g.cfg.Ledger.ProveAll(g.ctx, log, part.cp, entries)
		if err != nil {
			return c, err
		}
		c.Logs = append(c.Logs, l)
	}
	if len(c.Logs) == 0 {
		return c, fault.New(fault.Unavailable, "custody.not-witnessed", "nothing about device "+g.device+" is witnessed yet", "ask again in a second")
	}
	return c, nil
}
