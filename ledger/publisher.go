package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// CheckpointStore is the database as the publisher needs it.
type CheckpointStore interface {
	ReadStore
	// PutCheckpoint stores a signed, not yet witnessed note. Another root at a size that is there already is an error.
	PutCheckpoint(ctx context.Context, log Log, s State, note []byte) error
	// Publish makes note, with its cosignatures, the newest published checkpoint, if it is not behind the one there is.
	Publish(ctx context.Context, log Log, s State, note []byte) error
	SignedStore
}

// SignedStore remembers what was signed.
type SignedStore interface {
	// Signed gives the smallest signed checkpoint, published or not, of at least size entries. Not found: ErrNotFound.
	Signed(ctx context.Context, log Log, size uint64) (Published, error)
}

// Exporter keeps the log's public files (c2sp.org/tlog-tiles).
type Exporter interface {
	fmt.Stringer // where: for people
	// Put is durable when it returns nil, and no reader sees half a file. Putting again replaces.
	Put(ctx context.Context, path string, data []byte) error
	// Swap puts data where old is, nil for no file, in one step; done is false when another content is there by now.
	Swap(ctx context.Context, path string, old, data []byte) (done bool, err error)
	// Drop removes every file under dir; there need be none.
	Drop(ctx context.Context, dir string) error
	// Get gives a file's content; nil, nil when there is none.
	Get(ctx context.Context, path string) ([]byte, error)
}

// ErrForked says that signing would contradict what was already exported: the database is behind, or another.
var ErrForked = errors.New("the log would fork")

// PublisherConfig is what a Publisher needs.
type PublisherConfig struct {
	Store     CheckpointStore
	Log       Log
	Origin    string
	Key       Signer
	Others    []Signer            // sign too, while the key is being replaced
	Former    []ed25519.PublicKey // signed what is exported, once: it is read with them, and nothing is signed
	Export    Exporter
	Also      []Exporter // further places; each has to be as complete as Export before anything is published
	Witnesses []Cosigner
	Quorum    int
	Every     time.Duration // a checkpoint at least this often, so that its cosignatures stay fresh; 0: one minute
	Logger    *slog.Logger
	Published func()            // called after each publication
	Failpoint func(name string) // for tests that end the process there; nil otherwise
}

// Publisher signs checkpoints, has them witnessed, and publishes them.
type Publisher struct {
	cfg    PublisherConfig
	reader *Reader
	wake   chan struct{}

	mu   sync.Mutex        // guards seen
	seen map[string]uint64 // the size each witness remembers, as far as we know

	standing Standing // guarded by mu

	// Of Check and Step, which are never run twice at once:
	last    time.Time // of the last publication
	known   State     // the largest tree that this process knows to be published, by whichever node
	outlets []outlet
	forked  error // why nothing is signed any more
}

// outlet is one place that files are exported to.
type outlet struct {
	Exporter
	exported uint64 // the size whose files are known to be there
}

// NewPublisher makes a publisher.
func NewPublisher(cfg PublisherConfig) *Publisher {
	if cfg.Every == 0 {
		cfg.Every = time.Minute
	}
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	p := &Publisher{
		cfg: cfg, reader: NewReader(cfg.Store),
		wake: make(chan struct{}, 1), seen: map[string]uint64{},
	}
	for _, e := range append([]Exporter{cfg.Export}, cfg.Also...) {
		p.outlets = append(p.outlets, outlet{Exporter: e})
	}
	return p
}

// Wake hints that there is something to publish.
func (p *Publisher) Wake() { poke(p.wake) }

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.wake:
		}
		if err := p.Step(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Logger.ErrorContext(ctx, "publishing waits", "log", p.cfg.Log, "error", err)
		}
	}
}

// Step publishes the sequenced state if it is new, or the last publication has grown old.
func (p *Publisher) Step(ctx context.Context) error {
	err := p.step(ctx)
	if ctx.Err() == nil {
		p.tried(err, time.Now())
	}
	return err
}

func (p *Publisher) step(ctx context.Context) error {
	if p.forked != nil {
		return p.forked
	}
	prev, err := p.cfg.Store.Published(ctx, p.cfg.Log)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	state, err := p.cfg.Store.State(ctx, p.cfg.Log) // read second, so that it is never behind for another node's sake
	if err != nil || state.Size == 0 {
		return err
	}
	known := State{Size: prev.Size, Root: prev.Root}
	if state.Size == prev.Size && state.Root == prev.Root && time.Since(p.last) < p.cfg.Every {
		return nil
	}
	if err := p.ahead(ctx, state, known); err != nil {
		if errors.Is(err, ErrForked) {
			p.forked = err // until somebody has looked at it
		}
		return err
	}
	return p.sign(ctx, state, known)
}

// sign exports what is new, signs it, has it witnessed, and publishes it.
func (p *Publisher) sign(ctx context.Context, state, known State) error {
	for _, o := range p.outlets {
		// Files that were lost are written again.
		if err := p.export(ctx, o, min(known.Size, o.exported), state.Size); err != nil {
			return err
		}
	}
	p.cfg.Failpoint("publish.exported")
	note, err := SignCheckpoint(p.cfg.Origin, state, p.cfg.Key, p.cfg.Others...)
	if err != nil {
		return err
	}
	if err := p.cfg.Store.PutCheckpoint(ctx, p.cfg.Log, state, note); err != nil {
		return err
	}
	for _, o := range p.outlets {
		// A witness may come to remember a tree that is never published: what it is must be known when the database is lost.
		if err := o.Put(ctx, SignedFile, note); err != nil {
			return err
		}
	}
	witnessed, err := p.collect(ctx, state, note)
	if err != nil {
		return err
	}
	p.cfg.Failpoint("publish.witnessed")
	return p.publish(ctx, state, known, witnessed)
}

// SignedFile is the file beside "checkpoint" with the newest checkpoint that witnesses were asked to sign. It is not for readers.
const SignedFile = "signed"

// publish shows a witnessed checkpoint to everybody: in the files first, because a database that knows of more than they do would
// hide that they are behind.
func (p *Publisher) publish(ctx context.Context, state, known State, witnessed []byte) error {
	for i := range p.outlets {
		if err := p.show(ctx, p.outlets[i], state, witnessed); err != nil {
			return err
		}
	}
	p.cfg.Failpoint("publish.checkpoint-file")
	for i := range p.outlets {
		if err := p.dropPartial(ctx, p.outlets[i], min(known.Size, p.outlets[i].exported), state.Size); err != nil {
			return err
		}
		p.outlets[i].exported = state.Size
	}
	if err := p.cfg.Store.Publish(ctx, p.cfg.Log, state, witnessed); err != nil {
		return err
	}
	p.last, p.known = time.Now(), state
	if p.cfg.Published != nil {
		p.cfg.Published()
	}
	return nil
}
