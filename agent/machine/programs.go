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
	mu     sync.Mutex         // guards what follows, the processes, and what programs are started from
	list   []*program         // in the order in which they are started
	quiet  bool               // isolated
	values []wire.ConfigEntry // the device's parameters
	known  bool               // they were given

	over func()         // ends the work; nil: there is none
	work sync.WaitGroup // who measures, and who starts what waits
	stir chan struct{}  // something may have to be started
}

// program is one of them.
type program struct {
	name  string
	what  wire.Component
	data  []wire.Component // that it reads
	talks []talk
	start func() (*launch.Process, error)
	proc  *launch.Process // nil: stopped, because it did not isolate itself; or not started, by fault, which may be errLocked, or because it waits
	up    *launch.Process // that was found well: if it is proc, what comes after it may be started
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

// Launch starts every program of the release that runs, each confined; one that comes after others when these are up. Nothing runs in recovery: nil.
func (m *Machine) Launch(o launch.Options) (*Programs, error) {
	m.launch = &o
	if m.boot.Report().Release == nil {
		return nil, nil
	}
	p := &Programs{list: m.list(o), stir: make(chan struct{}, 1)}
	if err := p.begin(); err != nil {
		p.Stop()
		return nil, err
	}
	m.programs = p
	ctx, cancel := context.WithCancel(context.Background())
	p.over = cancel
	p.work.Go(func() { p.measure(ctx, o.Dir) })
	p.work.Go(func() { p.tend(ctx) })
	return p, nil
}

// list gives the programs of the release that runs, not started, in the order in which they are.
func (m *Machine) list(o launch.Options) (all []*program) {
	release := *m.boot.Report().Release
	for _, c := range release.Programs() {
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

// replace makes next what runs. One that is in both, whole and as it is, with the data that it reads and whom it talks to, goes on, if those that it comes after do; one that does not start is there as
// sick, with its reason. p.mu is held.
func (p *Programs) replace(next []*program) {
	goesOn := map[string]bool{}
	for _, x := range next {
		i := slices.IndexFunc(p.list, func(was *program) bool {
			return reflect.DeepEqual(x.what, was.what) && reflect.DeepEqual(x.data, was.data) && reflect.DeepEqual(x.talks, was.talks)
		})
		if i < 0 || p.list[i].proc == nil || failed(p.list[i].proc) || slices.ContainsFunc(x.what.After, func(name string) bool { return !goesOn[name] }) {
			continue
		}
		was := p.list[i]
		x.proc, x.up, x.told, goesOn[x.name] = was.proc, was.up, was.told, true
	}
	for _, was := range slices.Backward(p.list) {
		if was.proc != nil && !goesOn[was.name] {
			was.proc.Stop()
		}
	}
	p.list = next
	_ = p.begin() // what does not start says so by its fault
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
		case p.awaits(x) != "":
			one.Fault = "it waits for " + p.awaits(x)
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
		case p.awaits(x) != "":
			text = x.name + " is not started: it waits for " + p.awaits(x)
		case !p.quiet:
			text = x.name + " is being started"
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
// nobody. When the isolation is over it is started again; while it lasts, nothing that waits is.
func (p *Programs) Isolate(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !on && !p.quiet { // nobody was told to be quiet
		return nil
	}
	p.quiet = on
	order := "isolate off"
	if on {
		order = "isolate on"
	}
	for _, x := range slices.Backward(p.list) {
		switch {
		case x.proc == nil:
		case x.proc.Ended() && (on || !failed(x.proc)): // it talks to nobody; what it may have left behind does not either
			x.proc.Stop()
		case !obeys(x.proc, order):
			p.halt(x) // and begin anew, rather than half isolated
		}
	}
	if on {
		return nil
	}
	for _, x := range p.list {
		if x.proc == nil {
			x.fault = nil
		}
	}
	return p.begin()
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

// measure looks now and then at what programs keep, until ctx ends. One that keeps more than it may is stopped; the others go on, but for those that come after it.
func (p *Programs) measure(ctx context.Context, dir string) {
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
			p.halt(x)
			x.fault = err
		}
	}
}

// Stop ends all, those that come after others before them.
func (p *Programs) Stop() {
	if p.over != nil {
		p.over()
		p.work.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range slices.Backward(p.list) {
		if x.proc != nil {
			x.proc.Stop()
		}
	}
}
