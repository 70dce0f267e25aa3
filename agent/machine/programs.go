package machine

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// Programs are the processes of a release. It implements agent.Program.
type Programs struct {
	mu   sync.Mutex // guards the processes
	list []*program
}

// program is one of them.
type program struct {
	name  string
	start func() (*launch.Process, error)
	proc  *launch.Process // nil: stopped, because it did not isolate itself
}

// Launch starts every program of the release that runs, with sockets in dir and output to out. Nothing runs in recovery: nil.
func (m *Machine) Launch(dir string, out io.Writer) (*Programs, error) {
	r := m.boot.Report().Release
	if r == nil {
		return nil, nil
	}
	p := &Programs{}
	for _, c := range r.Components {
		if c.Kind != wire.KindExec {
			continue
		}
		start := func() (*launch.Process, error) {
			code, _, err := m.boot.Component(c.Name)
			if err != nil {
				return nil, err
			}
			return launch.Start(code, c, dir, out)
		}
		proc, err := start()
		if err != nil {
			p.Stop()
			return nil, err
		}
		p.list = append(p.list, &program{name: c.Name, start: start, proc: proc})
	}
	return p, nil
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
		if x.proc != nil {
			good, known, text = x.proc.Health(ctx)
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
			if err != nil {
				return err
			}
			x.proc = proc
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

// Sample asks the first program that answers for a reading.
func (p *Programs) Sample(ctx context.Context) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.proc == nil {
			continue
		}
		if s, err := x.proc.Ask(ctx, "sample"); err == nil {
			return s, true
		}
	}
	return "", false
}

// Stop ends all.
func (p *Programs) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.list {
		if x.proc != nil {
			x.proc.Stop()
		}
	}
}
