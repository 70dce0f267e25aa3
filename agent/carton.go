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

// OpenCarton opens a carton that somebody put before the device. Nothing but a file is opened: to open a device can do something by itself, and a pipe may never answer.
func OpenCarton(path string) (*carton.Carton, *os.File, error) {
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
	c, file, err := OpenCarton(path)
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
	if err := a.heard(mine.Log); err != nil {
		return LocalReply{Error: err.Error()}, err
	}
	command := peekOffline(mine.Directive)
	switch t := a.m.Task; {
	case t == nil:
	case t.Carton == "" || t.Phase != phaseStage: // what a line told comes to its own end, and to the verifier's word
		return LocalReply{Error: fmt.Sprintf("another act is under way: %s", t.Act)}, nil
	case bytes.Equal(t.Command, command) && bytes.Equal(a.m.Carried, mine.Directive):
		return a.goOnFrom(path, a.m) // the same carton, perhaps in another place
	}
	s, err := a.newer(ctx, c)
	if fatal(err) {
		return LocalReply{Error: err.Error()}, err
	} else if err != nil {
		return LocalReply{Error: "the carton's trust bundles: " + err.Error()}, nil
	}
	now := a.now()
	plan, s, err := a.judgeCarried(s, wire.Delivery{
		Directive: mine.Directive, Command: c.Commands[mine.Command], Member: mine.Member, Release: &c.Release,
	}, now)
	if err != nil {
		return said(a.turnDown(err, command, wire.ActInstall))
	}
	for _, part := range plan.Release.Components {
		if c.Open(part.Digest, 0) == nil {
			return LocalReply{Error: fmt.Sprintf("the carton lacks component %s: export another", part.Name)}, nil
		}
	}
	if s.last != nil {
		if err := a.take(s); err != nil {
			return LocalReply{Error: err.Error()}, err
		}
	}
	if t := a.m.Task; t != nil && bytes.Equal(t.Command, command) { // the carton before was lost, and here is another of the same command
		next := accept(a.m, plan)
		next.Carried = mine.Directive
		return a.goOnFrom(path, next)
	} else if t != nil { // nothing of it was tried yet, and nobody may have its carton any more
		if err := a.drop(); err != nil {
			return LocalReply{Error: err.Error()}, err
		}
	}
	r, err := said(a.obey(ctx, plan, now, &brought{path, mine.Directive}))
	r.Release = fmt.Sprintf("%x", plan.Digest)
	return r, err
}

// heard takes what a carton proves of how far this device's log is in the ledger: histories go on from there, and the log is free up to there. That the log was set back nobody has to be
// believed who only brought a carton: what contradicts the log changes nothing.
func (a *Agent) heard(anchor *wire.Logged) error {
	if anchor == nil {
		return nil
	}
	key, err := a.attestKey()
	if err != nil {
		return local(err)
	}
	f, l := a.c.Machine.Facts(), a.c.Log
	is, err := gate.Anchored(f.Bundle, a.m.Trees, f.Device, key.Public(), *anchor)
	if err != nil {
		a.log.Warn("log anchor not believed", "error", err)
		return nil
	}
	other, err := l.Contradicts(is.Batch)
	switch {
	case err != nil:
		return local(err)
	case other:
		a.log.Warn("the carton's anchor contradicts this device's log", "last", is.Batch.Last)
		return nil
	case is.Batch.Last > l.Acked():
		if err := a.taken(l.Ack(is.Batch.Last, 0)); err != nil {
			return err
		}
	}
	return a.taken(l.Anchored(is.Batch))
}

// judgeCarried judges a carton's install by the newest trust bundle that the carton leads to, and gives what of the bundles is to be taken before it. A carton that the gate refuses
// changes nothing. Where what runs would not start under the new bundle, that waits until the release that mends it is confirmed, as long as the release is good under the one in force:
// the stick may be pulled, and the release may fail its trial.
func (a *Agent) judgeCarried(s steps, d wire.Delivery, now time.Time) (gate.Plan, steps, error) {
	state := a.gateState()
	if s.last == nil {
		plan, err := gate.Carried(state, d, now)
		return plan, s, err
	}
	before := state
	state.Bundle, state.Trees = *s.last, s.trees
	plan, err := gate.Carried(state, d, now)
	if err != nil {
		return plan, steps{}, err
	}
	if cur := state.Current; cur != nil && cur.Release.Counter < s.last.Floor {
		if old, err := gate.Carried(before, d, now); err == nil {
			return old, steps{}, nil
		}
	}
	return plan, s, nil
}

// drop gives up an install that is still fetched. It has no result: the act that comes in its place says enough.
func (a *Agent) drop() error {
	a.stopStaging()
	next := a.m
	next.Task = nil
	return local(a.save(next))
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

// goOnFrom has the install that is under way fetch out of this file from now on; next is the record with what else changes.
func (a *Agent) goOnFrom(path string, next memory) (LocalReply, error) {
	a.stopStaging()
	t := *a.m.Task
	t.Carton = path
	next.Task = &t
	if err := a.save(next); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	a.source, a.stageFails = nil, 0
	return LocalReply{Command: t.Command, Release: fmt.Sprintf("%x", t.Digest), Act: t.Act}, nil
}

// newer verifies the trust bundles that a carton has and the device has not: it has no more of them than are taken at once.
func (a *Agent) newer(ctx context.Context, c *carton.Carton) (steps, error) {
	if c.Newest == nil || c.Newest.Version <= a.c.Machine.Facts().Bundle.Version {
		return steps{}, nil
	}
	return a.ahead(ctx, boxed{c})
}

// climb takes the trust bundles that waited until the release of their carton was confirmed; over again, after a cut. Where the carton is gone, the next one brings them, or a line.
func (a *Agent) climb(ctx context.Context, path string) error {
	c, file, err := OpenCarton(path)
	if err != nil {
		a.log.Info("trust bundles that came with it are taken with the next carton", "error", err)
		return nil
	}
	defer file.Close()
	s, err := a.newer(ctx, c)
	if cur := a.c.Machine.Facts().Current; err == nil && s.last != nil {
		if cur == nil || cur.Release.Counter < s.last.Floor { // another carton is in that place by now, and its own release mends that
			return nil
		}
		err = a.take(s)
	}
	if fatal(err) {
		return err
	} else if err != nil {
		a.log.Warn("the carton's trust bundles", "error", err)
	}
	return nil
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
	c, file, err := OpenCarton(path)
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

// aloneAt is when that is, for what came out of a carton; 0: never. A verifier that answered was asked, whatever it said.
func (a *Agent) aloneAt() uint64 {
	t := a.m.Task
	if t == nil || t.Phase != phaseTrial || t.Carton == "" || a.verdict != "" {
		return 0
	}
	return t.Deadline - uint64((a.c.TrialTime-a.c.TrialTime/aloneAfter)/time.Second)
}

// tell says and proves what a line would have told: see carton.History. That it was told is in the log, and a batch ends with it, so that each history goes on where one before it ended.
func (a *Agent) tell() (LocalReply, error) {
	if len(a.m.Carried) == 0 {
		return LocalReply{Error: "nothing was installed out of a carton, so that there is nothing for a history to answer"}, nil
	}
	if told, err := a.c.Log.EndsWith(eventTold); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	} else if !told { // nothing happened since the last
		if err := a.record(eventTold, nil, "a history to be carried"); err != nil {
			return LocalReply{Error: err.Error()}, err
		}
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
	key, err := a.attestKey()
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	h.Log, err = a.c.Log.Batches(key, devlog.Says{Boots: a.c.Machine.Facts().BootCount, Trees: a.m.Trees, Now: a.now()}, eventTold, carton.MaxBatches)
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	nonce := h.Nonce()
	if h.Evidence, err = a.evidence(nonce[:], nil); err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	out, err := carton.EncodeHistory(h)
	if err != nil {
		return LocalReply{Error: err.Error()}, local(err)
	}
	return LocalReply{History: out}, nil
}
