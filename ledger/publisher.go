package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// CheckpointStore is the database as the publisher needs it.
type CheckpointStore interface {
	ReadStore
	// PutCheckpoint stores a signed, not yet witnessed note. Another root at a size that is there already is an error.
	PutCheckpoint(ctx context.Context, log Log, s State, note []byte) error
	// Publish makes note, with its cosignatures, the newest published checkpoint, if it is not behind the one there is.
	Publish(ctx context.Context, log Log, s State, note []byte) error
}

// Exporter keeps the log's public files (c2sp.org/tlog-tiles).
type Exporter interface {
	// Put is durable when it returns nil, and no reader sees half a file. Putting again replaces.
	Put(ctx context.Context, path string, data []byte) error
	// Drop removes every file under dir; there need be none.
	Drop(ctx context.Context, dir string) error
	// Get gives a file's content; nil, nil when there is none.
	Get(ctx context.Context, path string) ([]byte, error)
}

// Cosigner is a witness, near or far.
type Cosigner interface {
	Name() string
	Key() ed25519.PublicKey
	// Cosign asks for a cosignature of note, whose tree extends the one of size old, as proof shows. It returns signature
	// lines. When the witness has seen another size it fails with *OldSizeError.
	Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error)
}

// OldSizeError is a witness's answer when it remembers another size than it was told.
type OldSizeError struct{ Size uint64 }

func (e *OldSizeError) Error() string { return fmt.Sprintf("the witness remembers size %d", e.Size) }

// ErrForked says that signing would contradict what was already exported: the database is behind, or another.
var ErrForked = errors.New("the log would fork")

// PublisherConfig is what a Publisher needs.
type PublisherConfig struct {
	Store     CheckpointStore
	Log       Log
	Origin    string
	Key       Signer
	Export    Exporter
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

	// Of Step, which is never run twice at once:
	last     time.Time // of the last publication
	exported uint64    // the size whose files are known to be there
}

// NewPublisher makes a publisher.
func NewPublisher(cfg PublisherConfig) *Publisher {
	if cfg.Every == 0 {
		cfg.Every = time.Minute
	}
	if cfg.Failpoint == nil {
		cfg.Failpoint = func(string) {}
	}
	return &Publisher{
		cfg: cfg, reader: NewReader(cfg.Store),
		wake: make(chan struct{}, 1), seen: map[string]uint64{},
	}
}

// Wake hints that there is something to publish.
func (p *Publisher) Wake() { poke(p.wake) }

// Check refuses to begin when the export is ahead of the database, or another: signing on would fork the log. It must be
// called before Run.
func (p *Publisher) Check(ctx context.Context) error {
	note, err := p.cfg.Export.Get(ctx, "checkpoint")
	if err != nil || note == nil {
		return err
	}
	out, err := ParseCheckpoint(note, p.cfg.Origin, p.cfg.Key.Public())
	if err != nil {
		return fmt.Errorf("exported checkpoint of the %s log: %w; restore the file, or the key that signed it", p.cfg.Log, err)
	}
	state, err := p.cfg.Store.State(ctx, p.cfg.Log)
	if err != nil {
		return err
	}
	if state.Size < out.Size {
		return fmt.Errorf("%w: the %s log in the database has %d entries, but %d were published and witnessed; "+
			"the database is an old copy: restore a newer one, or replay the exported entries; nothing was signed",
			ErrForked, p.cfg.Log, state.Size, out.Size)
	}
	root, err := p.rootAt(ctx, out.Size)
	if err != nil {
		return err
	}
	p.exported = out.Size
	if root != out.Root {
		return fmt.Errorf("%w: the first %d entries of the %s log are not those that were published; "+
			"the database or the export is another instance's; nothing was signed", ErrForked, out.Size, p.cfg.Log)
	}
	return nil
}

func (p *Publisher) rootAt(ctx context.Context, size uint64) ([32]byte, error) {
	tiles := p.reader.tiles(ctx, p.cfg.Log)
	e := &edge{size: size}
	for level := 0; size>>(tileHeight*level) > 0; level++ {
		n := size >> (tileHeight * level)
		t := Tile{Level: level, Index: n / tileWidth}
		if w := int(n%tileWidth) * hashSize; w > 0 {
			data, err := tiles(level, t.Index)
			if err != nil {
				return [32]byte{}, err
			}
			if len(data) < w {
				return [32]byte{}, fmt.Errorf("tile %d/%d is too short for size %d", level, t.Index, size)
			}
			t.Data = data[:w]
		}
		e.tiles = append(e.tiles, t)
	}
	return e.root(), nil
}

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
	state, err := p.cfg.Store.State(ctx, p.cfg.Log)
	if err != nil || state.Size == 0 {
		return err
	}
	prev, err := p.cfg.Store.Published(ctx, p.cfg.Log)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if state.Size < prev.Size || state.Size == prev.Size && state.Root != prev.Root {
		return fmt.Errorf("%w: the %s log has %d entries, %d are published; nothing was signed", ErrForked, p.cfg.Log, state.Size, prev.Size)
	}
	if state.Size == prev.Size && time.Since(p.last) < p.cfg.Every {
		return nil
	}
	if root, err := p.rootAt(ctx, prev.Size); err != nil || prev.Size > 0 && root != prev.Root {
		return errors.Join(err, fmt.Errorf("%w: the first %d entries of the %s log are not those that were published; nothing was signed",
			ErrForked, prev.Size, p.cfg.Log))
	}
	from := min(prev.Size, p.exported) // files that were lost are written again
	if err := p.export(ctx, from, state.Size); err != nil {
		return err
	}
	p.cfg.Failpoint("publish.exported")
	note, err := SignCheckpoint(p.cfg.Origin, state, p.cfg.Key)
	if err != nil {
		return err
	}
	if err := p.cfg.Store.PutCheckpoint(ctx, p.cfg.Log, state, note); err != nil {
		return err
	}
	witnessed, err := p.collect(ctx, state, note)
	if err != nil {
		return err
	}
	p.cfg.Failpoint("publish.witnessed")
	if err := p.cfg.Export.Put(ctx, "checkpoint", witnessed); err != nil {
		return err
	}
	p.cfg.Failpoint("publish.checkpoint-file")
	if err := p.dropPartial(ctx, from, state.Size); err != nil {
		return err
	}
	if err := p.cfg.Store.Publish(ctx, p.cfg.Log, state, witnessed); err != nil {
		return err
	}
	p.last, p.exported = time.Now(), state.Size
	if p.cfg.Published != nil {
		p.cfg.Published()
	}
	return nil
}

// witnessWait bounds how long one witness may hold up a publication.
const witnessWait = 10 * time.Second

// collect asks every witness, all at once, and needs a quorum of them.
func (p *Publisher) collect(ctx context.Context, s State, note []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, witnessWait)
	defer cancel()
	lines, problems := make([]string, len(p.cfg.Witnesses)), make([]error, len(p.cfg.Witnesses))
	var wg sync.WaitGroup
	for i, w := range p.cfg.Witnesses {
		wg.Go(func() {
			var err error
			if lines[i], err = p.ask(ctx, w, s, note); err != nil {
				problems[i] = fmt.Errorf("witness %s: %w", w.Name(), err)
			}
		})
	}
	wg.Wait()
	got := 0
	for _, l := range lines {
		if l != "" {
			got++
		}
	}
	if got < p.cfg.Quorum {
		return nil, fmt.Errorf("%s at size %d: %w: %d of %d: %w", p.cfg.Origin, s.Size, wire.ErrNotWitnessed, got, p.cfg.Quorum,
			errors.Join(problems...))
	}
	if err := errors.Join(problems...); err != nil {
		p.cfg.Logger.WarnContext(ctx, "published without every witness", "log", p.cfg.Log, "error", err)
	}
	return append(bytes.Clone(note), strings.Join(lines, "")...), nil
}

func (p *Publisher) ask(ctx context.Context, w Cosigner, s State, note []byte) (string, error) {
	p.mu.Lock()
	old := p.seen[w.Name()]
	p.mu.Unlock()
	for attempt := 0; ; attempt++ {
		proof, err := p.reader.Consistency(ctx, p.cfg.Log, old, s.Size)
		if err != nil {
			return "", err
		}
		out, err := w.Cosign(ctx, old, proof, note)
		var other *OldSizeError
		if errors.As(err, &other) && attempt == 0 {
			if other.Size > s.Size {
				return "", fmt.Errorf("%w: it has seen size %d, this tree has %d; the database is an old copy", ErrForked, other.Size, s.Size)
			}
			old = other.Size
			continue
		}
		if err != nil {
			return "", err
		}
		line, err := checkCosignature(out, w, note)
		if err != nil {
			return "", err
		}
		p.mu.Lock()
		p.seen[w.Name()] = s.Size
		p.mu.Unlock()
		return line, nil
	}
}

// checkCosignature finds the witness's own line among what it answered, and verifies it: a witness may be broken, or lie.
func checkCosignature(answer []byte, w Cosigner, note []byte) (string, error) {
	body, _, err := splitNote(note)
	if err != nil {
		return "", err
	}
	_, lines, err := splitNote(append([]byte(body+"\n"), answer...))
	if err != nil {
		return "", err
	}
	for _, l := range lines {
		if l.name != w.Name() || l.hash != wire.NoteKeyID(l.name, typeCosignature, w.Key()) || len(l.sig) != 8+ed25519.SignatureSize {
			continue
		}
		if ed25519.Verify(w.Key(), []byte(wire.CosignatureText(binary.BigEndian.Uint64(l.sig), body)), l.sig[8:]) {
			return signatureLine(l.name, typeCosignature, w.Key(), l.sig), nil
		}
	}
	return "", errors.New("no valid cosignature in its answer")
}
