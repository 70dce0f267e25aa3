// Package telemetry keeps sealed data of devices and decides who may read it.
//
// Stage 3, field. The store sees sequence numbers and ciphertext, never a key; the key-access half sees sealed keys, never
// ciphertext. A read is a decision first: it is in the ledger, allowed or denied, before a key is opened, and a decision that
// cannot be recorded is a denial. What one operator of both halves could do is in the threat model.
package telemetry

import (
	"context"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Grant lets one reader read one stream of a product's devices for a purpose, until a day.
type Grant struct {
	ID      string    `json:"id"`
	Reader  string    `json:"reader"` // a caller's ID
	Product string    `json:"product"`
	Stream  string    `json:"stream"`
	Purpose string    `json:"purpose"`
	Until   time.Time `json:"until"`
}

// Range is what is stored of one epoch.
type Range struct {
	Epoch   wire.Epoch    `json:"epoch"`
	Records []wire.Sealed `json:"-"`
	Holes   []uint64      `json:"holes"`            // sequence numbers that never came, first 100
	Proven  uint64        `json:"proven"`           // up to here the device has signed the chain
	Closed  bool          `json:"closed"`           // and said it is all
	Payload []byte        `json:"-"`                // the epoch's signed payload: where the chain begins
	Heads   [][]byte      `json:"heads,omitempty"`  // COSE_Sign1(Series), newest last
	Opened  []byte        `json:"opened,omitempty"` // COSE_Sign1(Epoch)
}

// Store keeps streams and grants. Each write is durable when it returns nil.
type Store interface {
	// PutUpload stores an upload whole or not at all, with the facts of the epochs that are new. A record that is there already must be the same
	// bytes, and so must the head after so many records, and none comes after a last one: otherwise it is ErrForked. What is of an epoch that was never
	// opened is ErrUnopened; more than EpochsPerDay new epochs of a device in a day are ErrMany. Of a device whose keys were destroyed nothing is stored: ErrDestroyed.
	PutUpload(ctx context.Context, device string, in Incoming) error
	// Epochs gives the stored epochs of a stream from a number on, oldest first, records included: at most limit.Epochs of them, and none more once there
	// are limit.Records records. more says that there are later ones.
	Epochs(ctx context.Context, device, stream string, from uint64, limit Limit) (page []Range, more bool, err error)
	// PutGrant stores a grant.
	PutGrant(ctx context.Context, g Grant, facts ...ledger.Fact) error
	// Grants lists the grants a query selects, by ID.
	Grants(ctx context.Context, q GrantQuery) ([]Grant, error)
	// RevokeGrant removes a grant of the product; ErrNoGrant.
	RevokeGrant(ctx context.Context, product, id string, facts ...ledger.Fact) error
	// Decide appends the fact of a read decision.
	Decide(ctx context.Context, f ledger.Fact) error
	// DestroyKeys forgets the sealed keys of every epoch of a device, for good; the ciphertext that is left opens for nobody. The
	// fact is stored the first time only.
	DestroyKeys(ctx context.Context, device string, fact ledger.Fact) error
	// Origin says whose the data of a device is.
	Origin(ctx context.Context, device string) (Origin, error)
}

// Origin is whose a device's data is.
type Origin struct {
	Key   crypto.PublicKey // by which the device signs it; nil: none is known, and nothing is taken from it
	Place string           // product and group: access.Join
	Owned time.Time        // since when the device belongs to its owner; zero: to nobody
}

// ownedIn reports whether an epoch is of the present owner's time, by the device's own word: what it measured before is not theirs, whenever it came.
func (o Origin) ownedIn(e wire.Epoch) bool {
	return !o.Owned.IsZero() && e.Period == wire.PeriodOf(o.Owned)
}

// Limit bounds a read.
type Limit struct{ Epochs, Records int }

// EpochsPerDay is how many epochs a device may open within a day, over all its streams: each is a row and a fact for good. One opens an epoch of
// each stream at a start and when a bucket changes, so that a device that starts again and again meets it, and a thief of one.
const EpochsPerDay = 128

// Incoming is a verified upload.
type Incoming struct {
	Epochs  []SignedEpoch
	Records []wire.Sealed
	Series  []SignedSeries
}

// SignedEpoch and SignedSeries keep the envelope beside what it says.
type SignedEpoch struct {
	Epoch             wire.Epoch
	Payload, Envelope []byte
	Fact              ledger.Fact // that it was opened: told once
}

// SignedSeries is a head and its envelope.
type SignedSeries struct {
	Series   wire.Series
	Envelope []byte
}

// ErrForked says that a device sent two different records under one sequence number.
var ErrForked = errors.New("two records under one sequence number")

// ErrUnopened says that an upload is of an epoch whose key the store never had: nobody could ever read it.
var ErrUnopened = errors.New("of an epoch that was not opened here")

// ErrMany says that a device opened as many epochs as it may in a day: it keeps what it has sealed, and tells it later.
var ErrMany = errors.New("as many epochs as a device may open in a day")

// ErrDestroyed says that the keys of a device's data were destroyed: what it sends now, old or new, is not kept.
var ErrDestroyed = errors.New("the keys of the device's data were destroyed")

// KeyAccess opens epoch keys: the only holder of bucket keys. Reseal never receives ciphertext of a record.
type KeyAccess struct {
	buckets map[string]hpke.PrivateKey
}

// NewKeyAccess holds the private keys of the retention buckets, by name.
func NewKeyAccess(buckets map[string]hpke.PrivateKey) *KeyAccess { return &KeyAccess{buckets: buckets} }

// Holds reports whether the key of a retention bucket is there: without it its epochs are gone for good.
func (k *KeyAccess) Holds(bucket string) bool { return k.buckets[bucket] != nil }

// Reseal opens the epoch's key and seals it to the reader, bound to the decision that allowed it.
func (k *KeyAccess) Reseal(e wire.Epoch, reader hpke.PublicKey, decision []byte) ([]byte, error) {
	key, ok := k.buckets[e.Bucket]
	if !ok {
		return nil, fault.New(fault.NotFound, "stream.bucket-destroyed",
			fmt.Sprintf("the key of retention bucket %q is not there", e.Bucket), "its retention has ended; the data is gone for good")
	}
	dataKey, err := wire.OpenEpochKey(key, e, nil, e.Sealed)
	if err != nil {
		return nil, err
	}
	return wire.ResealEpochKey(reader, e, decision, dataKey)
}

// Config is what a Service needs.
type Config struct {
	Store Store
	Keys  *KeyAccess
	Guard *access.Guard
	Now   func() time.Time
}

// Service is the telemetry stage.
type Service struct {
	cfg     Config
	refused refused
}

// NewService makes the stage.
func NewService(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}
}

// Ingest stores what device sent: nothing is acknowledged before it is durable. Epochs and heads are the device's by its signature, which is
// looked at here; a record is the device's by its series, whose next signed head holds it.
func (s *Service) Ingest(ctx context.Context, caller access.Caller, device string, body []byte) error {
	if err := s.cfg.Guard.Check(ctx, caller, access.StreamWrite, access.Resource{Type: "device", ID: device}); err != nil {
		return err
	}
	up, err := wire.DecodeUpload(body)
	if err != nil {
		return fault.Newf(fault.Invalid, "stream.malformed", "upload of device %s: %w", device, err).With("see which version of the agent the device runs")
	}
	from, err := s.cfg.Store.Origin(ctx, device)
	if err != nil {
		return err
	}
	key := from.Key
	if key == nil {
		return fault.New(fault.Conflict, "stream.keyless", fmt.Sprintf("no key is known by which device %s signs what it sends", device), "have it enrol, with its attestation key; a client of another system sends no sealed data")
	}
	in := Incoming{Records: up.Records}
	for _, env := range up.Epochs {
		e, err := verifyEpoch(env, device, key)
		if err != nil {
			return fault.Newf(fault.Invalid, "stream.epoch", "upload of device %s: %w", device, err).With("the device opens an epoch first")
		}
		if e.Fact, err = s.opened(caller, e); err != nil {
			return err
		}
		in.Epochs = append(in.Epochs, e)
	}
	for _, env := range up.Series {
		payload, err := wire.Verify1(wire.TypeSeries, env, key)
		if err != nil {
			return fault.Newf(fault.Invalid, "stream.series", "upload of device %s: %w", device, err).With("the device sends from where the stream stands")
		}
		se, err := wire.DecodeSeries(payload)
		if err != nil || se.Device != device {
			return fault.Newf(fault.Invalid, "stream.series", "upload of device %s: head of %q: %w", device, se.Device, err).With("the device sends from where the stream stands")
		}
		in.Series = append(in.Series, SignedSeries{Series: se, Envelope: env})
	}
	err = s.cfg.Store.PutUpload(ctx, device, in)
	switch { // to ask again would change nothing, and kinds that pass by themselves would make devices do it
	case errors.Is(err, ErrForked):
		return fault.Newf(fault.Invalid, "stream.forked", "upload of device %s: %w", device, err).With("look at whether there are two devices with its keys")
	case errors.Is(err, ErrUnopened):
		return fault.Newf(fault.Invalid, "stream.unopened", "upload of device %s: %w", device, err).With("the device opens the epoch first")
	case errors.Is(err, ErrMany):
		return fault.New(fault.Exhausted, "stream.epochs", fmt.Sprintf("device %s has opened %d epochs within a day", device, EpochsPerDay), "it tells the rest later: look at why it starts so often")
	case errors.Is(err, ErrDestroyed):
		return fault.Newf(fault.Denied, "stream.destroyed", "upload of device %s: %w", device, err).With("the device opens another epoch")
	}
	return err
}

// Opened is the Data of telemetry.epoch.opened. The sealed key itself stays out of the ledger, so that it can be destroyed.
type Opened struct {
	Stream string `json:"stream"`
	Epoch  uint64 `json:"epoch"`
	Bucket string `json:"bucket"`
	SHA256 []byte `json:"sha256"` // of the epoch's envelope
}

func (s *Service) opened(caller access.Caller, e SignedEpoch) (ledger.Fact, error) {
	sum := sha256.Sum256(e.Envelope)
	data, err := json.Marshal(Opened{Stream: e.Epoch.Stream, Epoch: e.Epoch.Epoch, Bucket: e.Epoch.Bucket, SHA256: sum[:]})
	return ledger.New(ledger.KindTelemetryEpochOpened, s.cfg.Now(), caller.ID, e.Epoch.Device, nil, data), err
}

// DestroyDevice destroys what opens a device's sealed data: once it is retired, or its owner asks. It is for good: the device's signed
// epochs, each with its sealed key, may be held by anybody who saw them, so none is taken any more, nor a new one. Again changes nothing.
func (s *Service) DestroyDevice(ctx context.Context, caller access.Caller, device string, cause *ledger.Ref) error {
	from, err := s.cfg.Store.Origin(ctx, device)
	if err != nil {
		return err
	}
	res := access.In("device", from.Place)
	res.ID = device
	if err := s.cfg.Guard.Check(ctx, caller, access.StreamManage, res); err != nil {
		return err
	}
	f := ledger.New(ledger.KindTelemetryKeysDestroyed, s.cfg.Now(), caller.ID, device, cause, []byte("{}"))
	return s.cfg.Store.DestroyKeys(ctx, device, f)
}

func verifyEpoch(env []byte, device string, key crypto.PublicKey) (SignedEpoch, error) {
	payload, err := wire.Verify1(wire.TypeEpoch, env, key)
	if err != nil {
		return SignedEpoch{}, err
	}
	e, err := wire.DecodeEpoch(payload)
	if err != nil {
		return SignedEpoch{}, err
	}
	if e.Device != device {
		return SignedEpoch{}, fmt.Errorf("epoch of device %s", e.Device)
	}
	return SignedEpoch{Epoch: e, Payload: payload, Envelope: env}, nil
}

// Grant gives a reader the right to a stream.
func (s *Service) Grant(ctx context.Context, caller access.Caller, g Grant) error {
	if err := s.cfg.Guard.Check(ctx, caller, access.StreamManage, access.Resource{Type: "stream", ID: g.Stream, Product: g.Product}); err != nil {
		return err
	}
	if g.ID == "" || g.Reader == "" || g.Product == "" || g.Stream == "" || g.Purpose == "" || !g.Until.After(s.cfg.Now()) {
		return fault.New(fault.Invalid, "grant.incomplete", "a grant needs id, reader, product, stream, purpose and a day in the future", "give what is missing")
	}
	data, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return s.cfg.Store.PutGrant(ctx, g, ledger.New(ledger.KindAccessChanged, s.cfg.Now(), caller.ID, g.ID, nil, data))
}

// GrantQuery selects grants; empty fields do not select.
type GrantQuery struct {
	Reader, Product string
	After           string // ID of the last one of the page before
	Limit           int    // 0: all
}

// ErrNoGrant says that a product has no such grant.
var ErrNoGrant = errors.New("no such grant")

// Grants lists the grants to read streams of a product, of every product with an empty one.
func (s *Service) Grants(ctx context.Context, caller access.Caller, q GrantQuery) ([]Grant, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "stream", Product: q.Product}); err != nil {
		return nil, err
	}
	return s.cfg.Store.Grants(ctx, q)
}

// Revoke takes a grant back, with the reason. What was read with it has been read.
func (s *Service) Revoke(ctx context.Context, caller access.Caller, product, id, reason string) error {
	if err := s.cfg.Guard.Check(ctx, caller, access.StreamManage, access.Resource{Type: "stream", ID: id, Product: product}); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"id": id, "product": product, "revoked": reason})
	if err != nil {
		return err
	}
	err = s.cfg.Store.RevokeGrant(ctx, product, id, ledger.New(ledger.KindAccessChanged, s.cfg.Now(), caller.ID, id, nil, data))
	if errors.Is(err, ErrNoGrant) {
		return fault.New(fault.NotFound, "grant.unknown", fmt.Sprintf("product %q has no grant %q", product, id), "see `hallmark stream grants`")
	}
	return err
}

// ReadRequest asks for a stream of a device.
type ReadRequest struct {
	Device  string `json:"device"`
	Stream  string `json:"stream"`
	Purpose string `json:"purpose"`
	KEM     uint16 `json:"kem"`
	Key     []byte `json:"key"`            // the reader's HPKE public key
	From    uint64 `json:"from,omitempty"` // the number of the first epoch: the next of the answer before; 0: from the oldest
}

// Readable is one epoch as a reader gets it: ciphertext, and the key sealed to him alone.
type Readable struct {
	Epoch     wire.Epoch    `json:"epoch"`
	SealedKey []byte        `json:"sealed_key"`
	Records   []wire.Sealed `json:"records"`
	Holes     []uint64      `json:"holes,omitempty"`
	Opened    []byte        `json:"opened"`
	Heads     [][]byte      `json:"heads"`
}

// ReadReply carries the decision's UID, to which the sealed keys are bound.
type ReadReply struct {
	Decision []byte     `json:"decision"`
	Epochs   []Readable `json:"epochs"`
	Gone     []uint64   `json:"gone,omitempty" doc:"epochs whose retention has ended: nobody can read them any more"`
	Next     uint64     `json:"next,omitempty" doc:"there is more: read again from this epoch on"`
}

// decided is the Data of a read decision.
type decided struct {
	Reader  string   `json:"reader"`
	Device  string   `json:"device"`
	Stream  string   `json:"stream"`
	Purpose string   `json:"purpose"`
	Epochs  []uint64 `json:"epochs"`
	Allowed bool     `json:"allowed"`
	Grant   string   `json:"grant,omitempty"`
	Key     []byte   `json:"reader_key_sha256"`
}

// What bounds one read; an epoch is given whole.
const (
	epochsPerRead  = 64
	recordsPerRead = 16384
)

// Read decides, records the decision, and only then opens keys for the reader.
func (s *Service) Read(ctx context.Context, caller access.Caller, req ReadRequest) (ReadReply, error) {
	if len(req.Device) > maxName || len(req.Stream) > maxName || len(req.Purpose) > maxPurpose { // a refusal is kept for good
		return ReadReply{}, fault.New(fault.Invalid, "stream.request", fmt.Sprintf("a device or stream of more than %d bytes, or a purpose of more than %d", maxName, maxPurpose), "name them as the grant does")
	}
	if !wire.ValidDeviceID(req.Device) || strings.ContainsFunc(req.Stream+req.Purpose, unicode.IsControl) { // it is in public under this name
		return ReadReply{}, fault.New(fault.Invalid, "stream.request", "a device's ID is 32 digits and letters from a to f; a stream and a purpose are one line of text", "name them as the grant does")
	}
	from, err := s.cfg.Store.Origin(ctx, req.Device)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return ReadReply{}, err
	}
	res := access.In("stream", from.Place)
	res.ID = req.Stream
	if err := s.cfg.Guard.Check(ctx, caller, access.StreamRead, res); err != nil {
		return ReadReply{}, errors.Join(err, s.refuse(ctx, caller, req))
	}
	if err != nil { // whether it is there is for who might read it
		return ReadReply{}, err
	}
	reader, err := readerKey(req)
	if err != nil {
		return ReadReply{}, err
	}
	grants, err := s.cfg.Store.Grants(ctx, GrantQuery{Reader: caller.ID, Product: res.Product})
	if err != nil {
		return ReadReply{}, err
	}
	grant := matching(grants, req, s.cfg.Now())
	if grant == "" {
		denied := fault.New(fault.Denied, "stream.no-grant",
			fmt.Sprintf("%s has no grant to read stream %q of product %q for %q", caller.ID, req.Stream, res.Product, req.Purpose),
			"ask who manages the stream for one; the refusal is in the ledger")
		if err := s.refuse(ctx, caller, req); err != nil {
			return ReadReply{}, err
		}
		return ReadReply{}, denied
	}
	found, more, err := s.cfg.Store.Epochs(ctx, req.Device, req.Stream, req.From, Limit{epochsPerRead, recordsPerRead})
	if err != nil {
		return ReadReply{}, err
	}
	var reply ReadReply
	var ranges []Range
	for _, r := range found {
		if caller.Owner != "" && !from.ownedIn(r.Epoch) {
			continue
		}
		if s.cfg.Keys.Holds(r.Epoch.Bucket) {
			ranges = append(ranges, r)
		} else {
			reply.Gone = append(reply.Gone, r.Epoch.Epoch)
		}
	}
	if more && len(found) > 0 {
		reply.Next = found[len(found)-1].Epoch.Epoch + 1
	}
	var uid [16]byte
	if err := s.decide(ctx, caller, req, ranges, grant, &uid); err != nil {
		return ReadReply{}, err
	}
	reply.Decision = uid[:]
	for _, r := range ranges {
		sealed, err := s.cfg.Keys.Reseal(r.Epoch, reader, uid[:])
		if err != nil {
			return ReadReply{}, err
		}
		reply.Epochs = append(reply.Epochs, Readable{
			Epoch: r.Epoch, SealedKey: sealed, Records: r.Records, Holes: r.Holes, Opened: r.Opened, Heads: r.Heads,
		})
	}
	return reply, nil
}

// Bounds of a request, bytes.
const (
	maxName    = 128
	maxPurpose = 512
)

func readerKey(req ReadRequest) (hpke.PublicKey, error) {
	kem, err := hpke.NewKEM(req.KEM)
	if err == nil {
		var pub hpke.PublicKey
		if pub, err = kem.NewPublicKey(req.Key); err == nil {
			return pub, nil
		}
	}
	return nil, fault.Newf(fault.Invalid, "stream.reader-key", "the reader's key: %w", err).With("give a KEM of the HPKE registry, and its public key")
}

func matching(grants []Grant, req ReadRequest, now time.Time) string {
	for _, g := range grants {
		if g.Stream == req.Stream && g.Purpose == req.Purpose && now.Before(g.Until) {
			return g.ID
		}
	}
	return ""
}

// decide puts the decision in the ledger; a nil uid with no grant is a denial.
func (s *Service) decide(ctx context.Context, caller access.Caller, req ReadRequest, ranges []Range, grant string, uid *[16]byte) error {
	sum := sha256.Sum256(req.Key)
	d := decided{
		Reader: caller.Named(), Device: req.Device, Stream: req.Stream, Purpose: req.Purpose,
		Allowed: grant != "", Grant: grant, Key: sum[:], Epochs: []uint64{},
	}
	for _, r := range ranges {
		d.Epochs = append(d.Epochs, r.Epoch.Epoch)
	}
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f := caller.Tells(ledger.New(ledger.KindTelemetryReadDecided, s.cfg.Now(), caller.ID, req.Device, nil, data))
	if uid != nil {
		*uid = f.UID
	}
	return s.cfg.Store.Decide(ctx, f)
}
