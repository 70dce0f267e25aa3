package machine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// Programs are the processes of a release. It implements agent.Program.
type Programs struct {
	mu     sync.Mutex // guards what follows, and the processes
	list   []*program
	quiet  bool               // isolated
	values []wire.ConfigEntry // the device's parameters
	known  bool               // they were given

	over func()          // ends what measures; nil: nothing does
	done <-chan struct{} // it has ended
}

// program is one of them.
type program struct {
	name  string
	what  wire.Component
	data  []wire.Component // that it reads
	talks []talk
	start func() (*launch.Process, error)
	proc  *launch.Process // nil: stopped, because it did not isolate itself; or not started, by fault, which may be errLocked
	fault error

	schema wire.Schema // of the release it is of
	told   *told       // nil: nothing yet
}

// told is what a process answered to its parameters. Another process of the same program has to be told anew.
type told struct {
	proc   *launch.Process
	values string
	answer wire.ProgramTold
}

// Launch starts every program of the release that runs, each confined. Nothing runs in recovery: nil.
func (m *Machine) Launch(o launch.Options) (*Programs, error) {
	m.launch = &o
	if m.boot.Report().Release == nil {
		return nil, nil
	}
	p := &Programs{list: m.list(o)}
	for _, x := range p.list {
		var err error
		if x.proc, err = x.start(); errors.Is(err, errLocked) {
			x.fault = err
		} else if err != nil {
			p.Stop()
			return nil, err
		}
	}
	m.programs = p
	p.measure(o.Dir)
	return p, nil
}

// list gives the programs of the release that runs, not started.
func (m *Machine) list(o launch.Options) (all []*program) {
	for _, c := range m.boot.Report().Release.Components {
		if c.Kind != wire.KindExec {
			continue
		}
		release := *m.boot.Report().Release
		all = append(all, &program{name: c.Name, what: c, data: reads(release, c), talks: talks(release, c), schema: release.Parameters, start: func() (*launch.Process, error) {
			code, _, err := m.boot.Component(c.Name)
			if err != nil {
				return nil, err
			}
			plain, err := m.readable(code, c)
			if err != nil {
				return nil, err
			}
			given, err := m.give(release, c)
			defer func() {
				for _, g := range given {
					_ = g.File.Close() // the program's is another
				}
			}()
			if err != nil {
				return nil, err
			}
			return launch.Start(plain, c.Plain(), o, given...)
		}})
	}
	return all
}

// replace makes next what runs. One that is in both, whole and as it is, with the data that it reads and whom it talks to, goes on; one that does not start is there as sick, with its reason.
func (p *Programs) replace(next []*program) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, was := range p.list {
		i := slices.IndexFunc(next, func(x *program) bool {
			return reflect.DeepEqual(x.what, was.what) && reflect.DeepEqual(x.data, was.data) && reflect.DeepEqual(x.talks, was.talks)
		})
		switch {
		case was.proc == nil:
		case i >= 0 && !failed(was.proc):
			next[i].proc, next[i].told = was.proc, was.told
		default:
			was.proc.Stop()
		}
	}
	for _, x := range next {
		if x.proc == nil {
			x.proc, x.fault = x.start()
		}
	}
	p.list = next
}

// failed reports whether a program has ended, and not well.
func failed(proc *launch.Process) bool {
	if !proc.Ended() {
		return false
	}
	good, _, _ := proc.Health(context.Background())
	return !good
}

// startable says whether this device could start the programs of a release that nobody has verified yet: before any of it is written.
func (m *Machine) startable(envelope []byte) error {
	if m.launch == nil {
		return nil // nothing is started here, now or later
	}
	payload, _, err := wire.ThresholdPayload(wire.TypeRelease, envelope)
	if err != nil {
		return err
	}
	r, err := wire.DecodeRelease(payload)
	if err != nil {
		return err
	}
	if err := readsWithin(r); err != nil {
		return err
	}
	for _, c := range r.Components {
		if c.Kind != wire.KindExec {
			continue
		}
		if err := launch.Check(c, *m.launch); err != nil {
			return fmt.Errorf("component %s: %w", c.Name, err)
		}
	}
	return nil
}

// Isolation implements agent.Confined: the layers that hold all of the programs, and what some of them lacked.
func (p *Programs) Isolation() (held wire.Isolation, missing map[wire.Layer]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var reports []launch.Report
	for _, x := range p.list {
		if x.proc == nil {
			continue
		}
		reports = append(reports, x.proc.Layers())
		for l, why := range x.proc.Layers().Missing {
			if missing == nil {
				missing = map[wire.Layer]string{}
			}
			missing[l] = why
		}
	}
	return wire.Isolation{Programs: uint(len(reports)), InForce: launch.Common(reports...)}, missing
}

// processes are the programs, each as it runs.
func (p *Programs) processes() []agent.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []agent.Process
	for _, x := range p.list {
		one := agent.Process{Name: x.name, Fault: "it is stopped"}
		switch {
		case x.proc != nil && !x.proc.Ended():
			one = agent.Process{Name: x.name, Pid: x.proc.Pid(), Isolation: x.proc.Layers().InForce, Missing: x.proc.Layers().Missing}
		case x.proc != nil:
			one.Fault = "it ended"
		case x.fault != nil:
			one.Fault = x.fault.Error()
		}
		out = append(out, one)
	}
	return out
}

// Health implements agent.Program: good only when all are.
func (p *Programs) Health() (agent.Health, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	var said []string
	worst := agent.HealthGood
	for _, x := range p.list {
		good, known, text := false, false, x.name+" is stopped: it does not isolate itself"
		switch {
		case x.proc != nil:
			good, known, text = x.proc.Health(ctx)
			if known && good {
				p.tell(ctx, x)
			}
		case errors.Is(x.fault, errLocked):
			text = x.name + " is not started: " + x.fault.Error()
		case errors.Is(x.fault, launch.ErrFull):
			known, text = true, x.name+" is stopped: "+x.fault.Error()
		case x.fault != nil:
			known, text = true, x.name+" was not started: "+x.fault.Error()
		}
		said = append(said, text)
		switch {
		case known && !good:
			worst = agent.HealthSick
		case !known && worst == agent.HealthGood:
			worst = agent.HealthUnknown
		}
	}
	return worst, strings.Join(said, "; ")
}

// patience is how long a program that may just have started has to answer.
const patience = 3 * time.Second

// Isolate implements agent.Program. A program that does not say that it talks to nobody any more is stopped: it then talks to
// nobody. When the isolation is over it is started again.
func (p *Programs) Isolate(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.quiet = on
	for _, x := range p.list {
		switch {
		case on && x.proc != nil && !obeys(x.proc, "isolate on"):
			x.proc.Stop()
			x.proc = nil
		case !on && x.proc != nil && !obeys(x.proc, "isolate off"):
			x.proc.Stop() // begin anew, rather than half isolated
			x.proc = nil
			fallthrough
		case !on && x.proc == nil:
			proc, err := x.start()
			if err != nil && !errors.Is(err, errLocked) {
				return err
			}
			x.proc, x.fault = proc, err
		}
	}
	return nil
}

func obeys(proc *launch.Process, order string) bool {
	end := time.Now().Add(patience)
	for {
		said, err := proc.Ask(context.Background(), order)
		if err == nil {
			return said == "ok" || strings.HasPrefix(said, "ok ")
		}
		if time.Now().After(end) || proc.Ended() {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Sample asks every program for a reading; those that measure nothing give none.
func (p *Programs) Sample(ctx context.Context) (said []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.proc == nil {
			continue
		}
		if s, err := x.proc.Ask(ctx, "sample"); err == nil && s != "" {
			said = append(said, s)
		}
	}
	return said
}

// measureEvery is how often it is looked at how much programs keep: often enough that a disk does not fill meanwhile, and seldom enough to cost nothing.
const (
	measureEvery = 5 * time.Second
	mostMeasure  = time.Minute // however long it takes to look
)

// measure looks now and then at what programs keep, until they are stopped. One that keeps more than it may is stopped; the others go on.
func (p *Programs) measure(dir string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.over, p.done = cancel, done
	go func() {
		defer close(done)
		for {
			began := time.Now()
			p.full()
			_ = launch.Reserve(dir) // where it cannot be put by, what is written later says so itself
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(max(measureEvery, 50*time.Since(began)), mostMeasure)):
			}
		}
	}()
}

// full stops who keeps too much. What cannot be measured is stopped too: nobody knows how much it is.
func (p *Programs) full() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		proc := x.proc
		if proc == nil || proc.Ended() {
			continue
		}
		p.mu.Unlock() // it may take its time
		err := proc.Full()
		p.mu.Lock()
		if err != nil && x.proc == proc {
			proc.Stop()
			x.proc, x.fault = nil, err
		}
	}
}

// Stop ends all.
func (p *Programs) Stop() {
	if p.over != nil {
		p.over()
		<-p.done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.proc != nil {
			x.proc.Stop()
		}
	}
}
