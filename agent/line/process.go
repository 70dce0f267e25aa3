package line

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/renewal"
	"github.com/hallmark-iot/hallmark/wire"
)

// Options of the network's process.
type Options struct {
	Server  string           // base URL; it may connect to that port, and to none but those of name servers besides
	Door    *net.TCPListener // where strangers bring challenges; nil: nowhere. It stays the caller's
	Dir     string           // the agent's
	Device  string           // its ID
	Self    string           // a program whose main calls launch.Confine and Become: this one
	Require []wire.Layer     // without which it does not start
	Output  io.Writer        // what it says
	Logger  *slog.Logger
}

// Prove proves the device to who brings a challenge: a wire.DeviceProof, or why not.
type Prove func(ctx context.Context, challenge []byte) (proof []byte, refusal string)

// When it ended it is started again, at once and then more and more rarely.
const (
	firstPause = time.Second
	mostPause  = time.Minute
	settled    = time.Minute     // one that lived so long begins the count anew
	betweenTwo = 5 * time.Second // that a call waits for the next
	maxEnds    = 5               // in a row: something is wrong that starting it does not mend
)

// Process is the network's process, whichever runs now. It may be used by several goroutines.
type Process struct {
	o      Options
	grants grants
	over   context.CancelFunc
	ctx    context.Context // ends with Close
	all    sync.WaitGroup

	mu     sync.Mutex    // guards all below
	other  string        // base URL: a server that it may connect to besides
	now    *running      // nil: between two
	up     chan struct{} // closed while now is not nil
	ends   int           // in a row
	starts int
	fault  error // of the last start
	prove  Prove
}

// running is one of them.
type running struct {
	proc  *launch.Process
	calls *net.UnixConn
	since time.Time
	saw   [len(names)]uint64 // the files of names, as they were
	ports []uint16           // that it may connect to
}

// names are the files by which a server's name is found. The process may open those that were there when it started, and not what has taken their place.
var names = [...]string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"}

// saw tells files apart that have one name.
func saw() (out [len(names)]uint64) {
	for i, name := range names {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			out[i] = st.Ino
		}
	}
	return out
}

// State is how the network's process stands.
type State struct {
	Pid    int
	Starts int
	Layers launch.Report
	Fault  string // why there is none
}

// Open starts the network's process, and again when it ends, until Close. A device whose process does not start goes on without: State says why.
func Open(o Options) *Process {
	p := &Process{o: o, up: make(chan struct{})}
	p.ctx, p.over = context.WithCancel(context.Background())
	r, err := p.start()
	if err != nil {
		p.failed(err)
	}
	p.all.Go(func() { p.keep(r) })
	return p
}

func (p *Process) failed(err error) {
	p.o.Logger.Error("the network's process does not start", "error", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends++
	p.fault = err
}

// Answer says who proves the device. Until then nobody does.
func (p *Process) Answer(prove Prove) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prove = prove
}

// Close ends the process.
func (p *Process) Close() {
	p.over()
	p.all.Wait()
}

// State tells how the process stands.
func (p *Process) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Starts: p.starts}
	if p.now != nil {
		s.Pid, s.Layers = p.now.proc.Pid(), p.now.proc.Layers()
	}
	if p.fault != nil {
		s.Fault = p.fault.Error()
	}
	return s
}

// Alive asks the process for an answer: false when there is none, and starting it anew does not help. One that hangs is ended.
func (p *Process) Alive(ctx context.Context) bool {
	c, err := p.call(ctx, question{Do: doPing}, nil, pingTime)
	if err == nil {
		_, err = c.answer()
		c.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return err == nil || ctx.Err() == nil && p.ends < maxEnds
}

// capabilities is what the process may reach.
func (p *Process) capabilities() wire.Capabilities {
	const dns = 53 // where an answer is too long for a datagram
	ports := []uint16{dns}
	p.mu.Lock()
	other := p.other
	p.mu.Unlock()
	for _, server := range []string{p.o.Server, other} {
		if port, ok := portOf(server); ok { // what is no address is told by who calls it
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return wire.Capabilities{
		ConnectTCP: slices.Compact(ports), UDP: true, Memory: memory,
		Read: names[:],
	}
}

func portOf(server string) (uint16, bool) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return 0, false
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
	return uint16(port), err == nil
}

// reach has the process connect to a server besides the device's. One that runs may not, if it has another port: the next one may.
func (p *Process) reach(server string) {
	port, ok := portOf(server)
	if own, same := portOf(p.o.Server); !ok || same && port == own {
		return
	}
	p.mu.Lock()
	p.other = server
	r := p.now
	p.mu.Unlock()
	if r != nil && !slices.Contains(r.ports, port) {
		p.end(r)
		<-r.proc.Done()
	}
}

// start makes the process, and has what it asks for answered.
func (p *Process) start() (*running, error) {
	var near [fileDoor]*net.UnixConn
	var far []*os.File
	defer func() {
		for _, f := range far {
			_ = f.Close() // the process has its own
		}
	}()
	fail := func(err error) (*running, error) {
		for _, c := range near {
			if c != nil {
				err = errors.Join(err, c.Close())
			}
		}
		return nil, err
	}
	for i := range near {
		c, f, err := pair()
		if err != nil {
			return fail(err)
		}
		near[i], far = c, append(far, f)
	}
	var args []string
	if p.o.Door != nil {
		args = append(args, withDoor)
		f, err := p.o.Door.File()
		if err != nil {
			return fail(err)
		}
		far = append(far, f)
	}
	before, may := saw(), p.capabilities()
	proc, err := launch.StartPart(part, args, may, far, launch.Options{
		Dir: p.o.Dir, Device: p.o.Device, Self: p.o.Self, Output: p.o.Output, Require: p.o.Require,
	})
	if err != nil {
		return fail(err)
	}
	r := &running{proc: proc, calls: near[fileCalls], since: time.Now(), saw: before, ports: may.ConnectTCP}
	p.all.Go(func() { p.serve(near[fileAsks], p.asked) })
	p.all.Go(func() { p.serve(near[fileProofs], p.challenged) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.fault = r, nil
	close(p.up)
	p.starts++
	return r, nil
}

// keep has a process run until Close.
func (p *Process) keep(r *running) {
	for {
		if r != nil {
			select {
			case <-p.ctx.Done():
				r.proc.Stop()
			case <-r.proc.Done():
			}
			_ = r.calls.Close() // nobody is at its other end
			p.ended(r)
			if p.ctx.Err() == nil {
				p.o.Logger.Warn("the network's process ended; the programs go on")
			}
		}
		if p.ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		wait := renewal.Again(firstPause, mostPause, p.ends-1, 0, rand.Float64())
		p.mu.Unlock()
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(wait):
		}
		var err error
		if r, err = p.start(); err != nil {
			p.failed(err)
		}
	}
}

func (p *Process) ended(r *running) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now, p.up, p.fault = nil, make(chan struct{}), errors.New("it ended, and is about to be started again")
	if time.Since(r.since) > settled {
		p.ends = 0
	}
	p.ends++
}

// running gives the process; between two it waits for the next, but not for long.
func (p *Process) running(ctx context.Context) (*running, error) {
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(betweenTwo):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return nil, fmt.Errorf("the network's process does not run: %w", p.fault)
	}
	return p.now, nil
}

// end ends a process that does not answer as it has to, or that cannot see what has changed around it: keep starts another.
func (p *Process) end(r *running) {
	if p.ctx.Err() == nil {
		r.proc.Stop()
	}
}

// serve answers what the process asks on conn, one question at a time, until it ends. What is no question ends it.
func (p *Process) serve(conn *net.UnixConn, one func(conn io.ReadWriter) error) {
	stop := context.AfterFunc(p.ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	for {
		if err := one(conn); err != nil {
			return
		}
	}
}

// asked answers one question of the process.
func (p *Process) asked(conn io.ReadWriter) error {
	var a ask
	if err := frame.Receive(conn, &a, maxAsk); err != nil {
		return err
	}
	data, err := p.grants.give(a)
	if err != nil {
		p.o.Logger.Warn("the network's process asked for what it is not given", "error", err)
		return frame.Send(conn, given{Fault: err.Error()}, maxGiven)
	}
	return frame.Send(conn, given{Data: data}, maxGiven)
}

// challenged answers one stranger.
func (p *Process) challenged(conn io.ReadWriter) error {
	var s stranger
	if err := frame.Receive(conn, &s, maxStranger); err != nil {
		return err
	}
	p.mu.Lock()
	prove := p.prove
	p.mu.Unlock()
	if prove == nil {
		return frame.Send(conn, proof{Error: "it is starting: ask again in some seconds"}, maxProof)
	}
	var out proof
	out.Proof, out.Error = prove(p.ctx, s.Challenge)
	return frame.Send(conn, out, maxProof)
}
