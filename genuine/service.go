package genuine

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Store reads what is known of devices, and keeps what strangers ask of them.
type Store interface {
	// GenuineRecord gives what is known; a Record that is not Known for an ID that it does not hold.
	GenuineRecord(ctx context.Context, device string) (Record, error)
	// GenuineVersion gives a number that rises with each fact about the device; 0 for an ID without any.
	GenuineVersion(ctx context.Context, device string) (uint64, error)
	// AskDevice keeps a question, if no other is open for the device and fewer than most were asked of it since since, else ErrBusy or
	// ErrEnough; and forgets those from before. Durable on nil.
	AskDevice(ctx context.Context, q Question, since time.Time, most int) error
	// Question finds by ID; ErrNotFound.
	Question(ctx context.Context, id string) (Question, error)
	// OpenQuestions lists those without an answer that have not expired at now, at most limit.
	OpenQuestions(ctx context.Context, now time.Time, limit int) ([]Question, error)
	// AnswerQuestion keeps the device's evidence, once.
	AnswerQuestion(ctx context.Context, q Question) error
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrBusy     = errors.New("another question is open")
	ErrEnough   = errors.New("asked often enough")
)

// Ledger proves facts.
type Ledger interface {
	// Latest gives the newest witnessed checkpoint of a log; an error when there is none yet.
	Latest(ctx context.Context, log ledger.Log) (ledger.Published, error)
	// Path proves an entry under a checkpoint; ledger.ErrNotYetWitnessed when it is newer.
	Path(ctx context.Context, ref ledger.Ref, cp ledger.Published) ([32]byte, [][]byte, error)
}

// Question is what a stranger wants a device to prove.
type Question struct {
	ID       string
	Device   string
	Nonce    []byte // the asker's
	Asked    time.Time
	Expires  time.Time
	Answered time.Time // zero: not yet
	Word     string    // the verifier's verdict on the answer
	Evidence []byte    // the answer
	Key      []byte    // that signed it, SubjectPublicKeyInfo
}

// Config is what a Service needs. Every field without "default" must be set.
type Config struct {
	Store  Store
	Ledger Ledger
	Maker  string
	// Signer gives the key for verdicts and its certificates, leaf first and root last.
	Signer func(now time.Time) (crypto.Signer, [][]byte, error)
	Fresh  time.Duration    // how long a verdict is given out again before it is made anew; default 30 s
	Life   time.Duration    // of a verdict; default 24 h
	Wait   time.Duration    // how long a device has to answer; default 15 min
	Away   time.Duration    // a device not heard of for so long is not asked; default 24 h
	Daily  int              // questions a device is asked in a day at most; default 8
	Now    func() time.Time // default time.Now
}

// Service answers.
type Service struct {
	cfg    Config
	askers askers

	mu    sync.Mutex
	known map[string]*kept     // verdicts by device; guarded by mu
	open  map[string]Question  // questions that wait for their device, by device; guarded by mu
	asked map[string]time.Time // when this node last asked a device for its answer; guarded by mu
}

// kept is a verdict that is given out again; its own lock lets one make it while others wait for it.
type kept struct {
	mu     sync.Mutex
	at     time.Time // when it was made, and looked at last
	seen   time.Time
	rests  uint64 // GenuineVersion
	body   wire.Genuine
	record Record
	signed []byte
}

// maxKept bounds the verdicts that are remembered.
const maxKept = 4096

// maxOpen bounds the questions that are open at once, over all devices.
const maxOpen = 2048

// New checks cfg and fills its defaults.
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Ledger == nil || cfg.Maker == "" || cfg.Signer == nil {
		return nil, errors.New("genuine: the store, the ledger, the maker's name or the signer is missing")
	}
	for _, d := range []struct {
		is  *time.Duration
		def time.Duration
	}{{&cfg.Fresh, 30 * time.Second}, {&cfg.Life, 24 * time.Hour}, {&cfg.Wait, 15 * time.Minute}, {&cfg.Away, 24 * time.Hour}} {
		if *d.is == 0 {
			*d.is = d.def
		}
	}
	if cfg.Daily == 0 {
		cfg.Daily = 8
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, known: map[string]*kept{}, open: map[string]Question{}, asked: map[string]time.Time{}}, nil
}

// Verdict is what is answered: readable, and signed.
type Verdict struct {
	wire.Genuine
	Signed []byte // COSE_Sign1, wire.TypeGenuine
}

func isDevice(id string) bool {
	return len(id) == 32 && !slices.ContainsFunc([]byte(id), func(c byte) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

// Of gives the verdict on a device. A nonce of the asker's, which may be left out, makes it one that was made for this question.
func (s *Service) Of(ctx context.Context, id string, nonce []byte) (Verdict, error) {
	if !isDevice(id) {
		return Verdict{}, fault.New(fault.Invalid, "genuine.id", "a device's ID is 32 digits and letters from a to f", "it is on the label or in the device's menu")
	}
	if n := len(nonce); n != 0 && (n < wire.MinAskerNonce || n > wire.MaxAskerNonce) {
		return Verdict{}, fault.New(fault.Invalid, "genuine.nonce", fmt.Sprintf("a nonce of %d bytes", n), "use 16 to 64 random bytes, or none")
	}
	k := s.keep(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	now := s.cfg.Now()
	if err := s.refresh(ctx, k, id, now); err != nil {
		return Verdict{}, err
	}
	if len(nonce) == 0 {
		return Verdict{k.body, k.signed}, nil
	}
	g := k.body
	g.Nonce = nonce
	return s.sign(g, now)
}

// keep gives the place of a device's verdict.
func (s *Service) keep(id string) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[id]; k != nil {
		return k
	}
	if len(s.known) >= maxKept {
		clear(s.known) // they are cheap to make, one at a time
	}
	k := &kept{}
	s.known[id] = k
	return k
}

// glance is how long a verdict is given out without asking whether anything has happened since.
const glance = time.Second

// refresh makes the verdict anew when it is old, or when something has happened.
func (s *Service) refresh(ctx context.Context, k *kept, id string, now time.Time) error {
	if k.signed != nil && now.Sub(k.seen) < glance {
		return nil
	}
	v, err := s.cfg.Store.GenuineVersion(ctx, id)
	if err != nil {
		return err
	}
	if k.signed == nil || v != k.rests || now.Sub(k.at) >= s.cfg.Fresh {
		if err := s.make(ctx, k, id, now); err != nil {
			return err
		}
	}
	k.seen, k.rests = now, v
	return nil
}

// make fills k anew.
func (s *Service) make(ctx context.Context, k *kept, id string, now time.Time) error {
	r, err := s.cfg.Store.GenuineRecord(ctx, id)
	if err != nil {
		return err
	}
	r.Device.ID = id
	g := payload(s.cfg.Maker, r, Judge(r, now), now, s.cfg.Life)
	if g.Headline != string(Unknown) {
		if err := s.prove(ctx, &g, r); err != nil {
			return err
		}
	}
	v, err := s.sign(g, now)
	if err != nil {
		return err
	}
	k.at, k.body, k.record, k.signed = now, g, r, v.Signed
	return nil
}

// prove adds the places of the facts that a verdict rests on.
func (s *Service) prove(ctx context.Context, g *wire.Genuine, r Record) error {
	g.Unplaced = r.Unplaced
	for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
		cp, err := s.cfg.Ledger.Latest(ctx, log)
		if err != nil {
			continue // nothing is witnessed yet: what rests on it is counted
		}
		l := wire.GenuineLog{Name: string(log), Checkpoint: string(cp.Note), Size: cp.Size}
		for _, f := range r.Facts {
			if f.Log != string(log) {
				continue
			}
			leaf, path, err := s.cfg.Ledger.Path(ctx, ledger.Ref{Log: log, Index: f.Index}, cp)
			if errors.Is(err, ledger.ErrNotYetWitnessed) {
				g.Unplaced++
				continue
			}
			if err != nil {
				return err
			}
			l.Facts = append(l.Facts, wire.GenuineFact{Index: f.Index, Kind: f.Kind, Leaf: leaf[:], Path: path})
		}
		if len(l.Facts) > 0 {
			slices.SortFunc(l.Facts, func(a, b wire.GenuineFact) int { return int(a.Index) - int(b.Index) })
			g.Logs = append(g.Logs, l)
		}
	}
	return nil
}

func (s *Service) sign(g wire.Genuine, now time.Time) (Verdict, error) {
	key, chain, err := s.cfg.Signer(now)
	if err != nil {
		return Verdict{}, err
	}
	body, err := wire.EncodeGenuine(g)
	if err != nil {
		return Verdict{}, err
	}
	signed, err := wire.SignChained(wire.TypeGenuine, body, key, chain)
	return Verdict{g, signed}, err
}
