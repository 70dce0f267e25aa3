package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/forms"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// A device that no network reaches is brought a carton. What it does of it is what it would do of a delivery, by the same gate and the same task; but that nobody answers what it
// says and proves of itself. So the trial of such a release ends by the program's health alone, after a while: that it may is in the command, which is in the ledger. What the
// device says and proves goes back in a file.

// maxCartonPath bounds the name of a carton's file.
const maxCartonPath = 512

// brought is where an install came from that no line did.
type brought struct {
	path      string
	directive []byte
}

// openCarton opens a carton that somebody put before the device. Nothing but a file is opened: to open a device can do something by itself, and a pipe may never answer.
func openCarton(path string) (*carton.Carton, *os.File, error) {
	if !filepath.IsAbs(path) || len(path) > maxCartonPath {
		return nil, nil, fmt.Errorf("%.64q: want the whole name of a file, of at most %d bytes", path, maxCartonPath)
	}
	seen, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no file: copy the carton, and give its name", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	is, err := f.Stat()
	if err == nil && !os.SameFile(seen, is) {
		err = fmt.Errorf("%s was changed while it was opened", path)
	}
	var c *carton.Carton
	if err == nil {
		c, err = carton.Read(f, is.Size())
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return c, f, nil
}

// install judges what a carton has for this device, and begins to act.
func (a *Agent) install(ctx context.Context, path string) (LocalReply, error) {
	c, file, err := openCarton(path)
	if err != nil {
		return LocalReply{Error: err.Error()}, nil
	}
	defer file.Close()
	f := a.c.Machine.Facts()
	mine, ok := c.For(f.Device)
	switch {
	case c.Product != f.Product:
		return LocalReply{Error: fmt.Sprintf("the carton is for devices of %q, this is one of %q", c.Product, f.Product)}, nil
	case !ok:
		return LocalReply{Error: fmt.Sprintf("the carton has nothing for device %s, and for %d others: export one for it", f.Device, len(c.Devices))}, nil
	}
	if t := a.m.Task; t != nil {
		if t.Phase != phaseStage || !bytes.Equal(a.m.Carried, mine.Directive) {
			return LocalReply{Error: fmt.Sprintf("another act is under way: %s", t.Act)}, nil
		}
		return a.goOnFrom(path) // the same carton, perhaps in another place
	}
	if err := a.climb(ctx, c); fatal(err) {
		return LocalReply{Error: err.Error()}, err
	} else if err != nil {
		return LocalReply{Error: "the carton's trust bundles: " + err.Error()}, nil
	}
	now := a.now()
	plan, err := gate.Carried(a.gateState(), wire.Delivery{
		Directive: mine.Directive, Command: c.Commands[mine.Command], Member: mine.Member, Release: &c.Release,
	}, now)
	if err != nil {
		return said(a.turnDown(err, peekOffline(mine.Directive), wire.ActInstall))
	}
	for _, part := range plan.Release.Components {
		if c.Open(part.Digest, 0) == nil {
			return LocalReply{Error: fmt.Sprintf("the carton lacks component %s: export another", part.Name)}, nil
		}
	}
	return said(a.obey(ctx, plan, now, &brought{path, mine.Directive}))
}

// peekOffline reads, without believing anything, which command a directive is about.
func peekOffline(directive []byte) []byte {
	o, err := wire.Parse1(wire.TypeOffline, directive)
	if err != nil {
		return nil
	}
	d, err := wire.DecodeOfflineDirective(o.Payload)
	if err != nil {
		return nil
	}
	return d.Command
}

// goOnFrom has the install that is under way fetch out of this file from now on.
func (a *Agent) goOnFrom(path string) (LocalReply, error) {
	a.stopStaging()
	next, t := a.m, *a.m.Task
	t.Carton = path
	next.Task = &t
	if err := a.save(next); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	a.source, a.stageFails = nil, 0
	return LocalReply{Act: t.Act}, nil
}

// climb takes the trust bundles that a carton has and the device has not.
func (a *Agent) climb(ctx context.Context, c *carton.Carton) error {
	if c.Newest == nil || c.Newest.Version <= a.c.Machine.Facts().Bundle.Version {
		return nil
	}
	_, err := a.come(ctx, boxed{c})
	return err
}

// boxed is the history of trust bundles in a carton.
type boxed struct{ c *carton.Carton }

func (b boxed) Newest(context.Context, string) (wire.NewestBundle, error) {
	return *b.c.Newest, nil
}

func (b boxed) Step(_ context.Context, _ string, version uint64) (wire.BundleStep, error) {
	if version < b.c.From || version-b.c.From >= uint64(len(b.c.Steps)) {
		return wire.BundleStep{}, fmt.Errorf("it has those from %d on, and this device needs %d: export one for this device", b.c.From, version)
	}
	return b.c.Steps[version-b.c.From], nil
}

func (boxed) Home(context.Context, string, string) (wire.HomeHint, error) {
	return wire.HomeHint{}, errors.New("a carton leads nowhere")
}

func (boxed) Close() {}

// outOf fetches out of a carton, and over the line what is not to be had there.
func (a *Agent) outOf(path string) forms.Fetch {
	return func(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
		r, err := readOut(path, digest, offset)
		if err == nil {
			return r, nil
		}
		over, other := a.fetch(ctx, digest, offset)
		if other != nil {
			return nil, errors.Join(err, other)
		}
		return over, nil
	}
}

type partOf struct {
	io.Reader
	io.Closer
}

func readOut(path string, digest []byte, offset int64) (io.ReadCloser, error) {
	c, file, err := openCarton(path)
	if err != nil {
		return nil, err
	}
	if r := c.Open(digest, offset); r != nil {
		return partOf{r, file}, nil
	}
	return nil, errors.Join(fmt.Errorf("%s does not have %x", path, digest), file.Close())
}

// aloneAfter is the part of the time for a trial after which a program's health alone is enough, where nobody can be asked.
const aloneAfter = 10

// aloneAt is when that is, for what came out of a carton; 0: never.
func (a *Agent) aloneAt() uint64 {
	t := a.m.Task
	if t == nil || t.Phase != phaseTrial || t.Carton == "" {
		return 0
	}
	return t.Deadline - uint64((a.c.TrialTime-a.c.TrialTime/aloneAfter)/time.Second)
}

// tell says and proves what a line would have told: see carton.History. That it was told is in the log, and a batch ends with it, so that each history goes on where one before it ended.
func (a *Agent) tell() (LocalReply, error) {
	if len(a.m.Carried) == 0 {
		return LocalReply{Error: "nothing was installed out of a carton, so that there is nothing for a history to answer"}, nil
	}
	if err := a.record(eventTold, nil, "a history to be carried"); err != nil {
		return LocalReply{Error: err.Error()}, err
	}
	directive := sha256.Sum256(a.m.Carried)
	in, err := a.says(directive[:])
	if err != nil {
		return LocalReply{Error: err.Error()}, err
	}
	h := carton.History{V: 1, Device: a.c.Machine.Facts().Device, At: uint64(a.now().Unix()), Directive: a.m.Carried}
	if h.Checkin, err = wire.EncodeCheckin(in); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	nonce := h.Nonce()
	if h.Evidence, err = a.evidence(nonce[:], nil); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	key, err := a.attestKey()
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	h.Log, err = a.c.Log.Batches(key, devlog.Says{Boots: a.c.Machine.Facts().BootCount, Trees: a.m.Trees, Now: a.now()}, eventTold, carton.MaxBatches)
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	out, err := carton.EncodeHistory(h)
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	return LocalReply{History: out}, nil
}
