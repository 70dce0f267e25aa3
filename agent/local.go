package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/wire"
)

// The local socket takes one JSON object a line and answers each with one line:
//
//	{"op":"status"}                        → {"status":{…}}
//	{"op":"params"}                        → {"params":[{…}]}              those of the factory, and those it was told
//	{"op":"nonce"}                         → {"nonce":"<base64>"}          outstanding until the next delivery
//	{"op":"deliver","delivery":"<base64>"} → {"outcome":"refused","code":"…","text":"…","act":"…"}
//	{"op":"consent","answer":"yes"}        → {"act":"install","outcome":"done"}   or "no": of the install that it waits with
//	{"op":"carton","path":"/…"}            → as deliver                    what is in that file for this device: see wire/carton
//	{"op":"history"}                       → {"history":"<base64>"}        carton.History, for the server, of a device that installed out of a carton
//	{"op":"prove","challenge":"<base64>"}  → {"proof":"<base64>"}          wire.DeviceProof, signed with the factory identity
//
// A delivery brought here is judged by the same gate as one from the server: who stands beside a device has no more right
// than who is far away. An empty outcome says that the act has begun and reports later.

// LocalRequest is one line to the socket.
type LocalRequest struct {
	Op       string `json:"op"`
	Delivery []byte `json:"delivery,omitempty"`
	Answer   string `json:"answer,omitempty"` // of consent: yes or no

	Path string `json:"path,omitempty"` // of a carton

	Challenge []byte `json:"challenge,omitempty"` // 16 to 64 random bytes of who asks
}

// LocalReply is the answer.
type LocalReply struct {
	Status  *Status      `json:"status,omitempty"`
	Nonce   []byte       `json:"nonce,omitempty"`
	Command []byte       `json:"command,omitempty"` // digest of the command that it is about, which results have too
	Release string       `json:"release,omitempty"` // digest of what a carton brings, as in Status
	Act     wire.Act     `json:"act,omitempty"`
	Outcome wire.Outcome `json:"outcome,omitempty"`
	Code    string       `json:"code,omitempty"`
	Text    string       `json:"text,omitempty"`
	Error   string       `json:"error,omitempty"`
	Proof   []byte       `json:"proof,omitempty"`
	History []byte       `json:"history,omitempty"`

	Params []params.Parameter `json:"params,omitempty"`
}

// Status is what the device says of itself on the local socket.
type Status struct {
	Device    string             `json:"device"`
	Product   string             `json:"product"`
	State     string             `json:"state"`
	Version   string             `json:"version,omitempty"`
	Release   string             `json:"release,omitempty"`
	Slot      string             `json:"slot,omitempty"`
	Trial     bool               `json:"trial"`
	Healthy   bool               `json:"healthy"`
	Health    string             `json:"health,omitempty"`
	Verdict   string             `json:"verdict,omitempty"`
	Counter   uint64             `json:"counter"`
	TreeSize  uint64             `json:"tree_size"`
	Bundle    uint64             `json:"bundle"`
	Fuses     uint32             `json:"fuses"`
	BootCount uint64             `json:"boot_count"`
	LogSeq    uint64             `json:"log_seq"`
	Task      string             `json:"task,omitempty"`
	Waits     *wire.Waits        `json:"waits,omitempty"`  // what the task waits for
	Wanted    string             `json:"wanted,omitempty"` // the version that the task brings
	Results   []wire.Result      `json:"results,omitempty"`
	Config    []wire.ConfigEntry `json:"config,omitempty"`

	Isolation []wire.Layer          `json:"isolation,omitempty"` // the layers that hold its programs
	Missing   map[wire.Layer]string `json:"missing,omitempty"`   // those that do not, and why
	Processes []Process             `json:"processes,omitempty"` // of the device
}

// Process is one of the device's.
type Process struct {
	Name      string                `json:"name"` // trusted, network, or a program's
	Pid       int                   `json:"pid,omitempty"`
	Starts    int                   `json:"starts,omitempty"`    // since the device started
	Isolation []wire.Layer          `json:"isolation,omitempty"` // the layers that hold it
	Missing   map[wire.Layer]string `json:"missing,omitempty"`   // those that do not, and why
	Fault     string                `json:"fault,omitempty"`     // why it does not run
}

// Confined is a Program that says what holds its processes, and which layers are missing with the reasons.
type Confined interface {
	Isolation() (held wire.Isolation, missing map[wire.Layer]string)
}

type op struct {
	req   LocalRequest
	reply chan LocalReply
}

// maxLocalLine holds a delivery in base64.
const maxLocalLine = wire.MaxDelivery*4/3 + 4<<10

// answerTime is how long the other end may take to read an answer, idleTime to ask.
const (
	answerTime = 10 * time.Second
	idleTime   = 10 * time.Minute
)

// ServeLocal answers on l until it is closed, and returns when the last answer is given. Requests wait their turn in the
// agent's loop.
func (a *Agent) ServeLocal(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("local socket: %w", err)
		}
		conns.Go(func() { a.serveConn(ctx, conn) })
	}
}

func (a *Agent) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) }) // no more questions; a broken line is one less
	defer stop()
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxLocalLine)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil || ctx.Err() != nil {
			return
		}
		var reply LocalReply
		more := lines.Scan()
		switch {
		case more:
			var ok bool
			if reply, ok = a.ask(ctx, lines.Bytes()); !ok {
				return
			}
		case errors.Is(lines.Err(), bufio.ErrTooLong):
			reply.Error = fmt.Sprintf("not a request: a line of more than %d bytes", maxLocalLine)
		default:
			return
		}
		if conn.SetWriteDeadline(time.Now().Add(answerTime)) != nil || json.NewEncoder(conn).Encode(reply) != nil || !more {
			return
		}
	}
}

// Alive waits until the loop has answered; false when ctx ended first. A loop that hangs never answers.
func (a *Agent) Alive(ctx context.Context) bool {
	o := op{req: LocalRequest{Op: "status"}, reply: make(chan LocalReply, 1)}
	select {
	case a.ops <- o:
	case <-ctx.Done():
		return false
	}
	select {
	case <-o.reply:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask reads a request and hands it to the loop.
func (a *Agent) ask(ctx context.Context, line []byte) (reply LocalReply, ok bool) {
	req, err := parseLocal(line)
	if err != nil {
		return LocalReply{Error: err.Error()}, true
	}
	return a.put(ctx, req)
}

// put hands a request to the loop; ok is false when the loop does not answer any more.
func (a *Agent) put(ctx context.Context, req LocalRequest) (reply LocalReply, ok bool) {
	o := op{req: req, reply: make(chan LocalReply, 1)}
	select {
	case a.ops <- o:
		return <-o.reply, true
	case <-ctx.Done():
		return LocalReply{}, false
	}
}

func parseLocal(line []byte) (LocalRequest, error) {
	var req LocalRequest
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return LocalRequest{}, fmt.Errorf("not a request: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return LocalRequest{}, errors.New("not a request: more than one on a line")
	}
	return req, nil
}

// serve answers one local request, in the loop.
func (a *Agent) serve(ctx context.Context, o op) (LocalReply, error) {
	switch o.req.Op {
	case "status":
		s := a.Status()
		return LocalReply{Status: &s}, nil
	case "params":
		reply := LocalReply{Params: params.Hide(a.c.Params.List(), a.schema())}
		if err := a.c.Params.Fault(); err != nil {
			reply.Error = err.Error()
		}
		return reply, nil
	case "nonce":
		nonce := make([]byte, 32)
		if _, err := io.ReadFull(a.random(), nonce); err != nil {
			return LocalReply{Error: err.Error()}, local(err)
		}
		a.local = nonce
		return LocalReply{Nonce: nonce}, nil
	case "deliver":
		nonce := a.local
		a.local = nil
		return said(a.receive(ctx, o.req.Delivery, nonce))
	case "carton":
		return a.install(ctx, o.req.Path)
	case "history":
		return a.tell()
	case "consent":
		return a.consent(o.req.Answer)
	case "prove":
		return a.prove(o.req.Challenge)
	}
	return LocalReply{Error: fmt.Sprintf("unknown op %q: status, params, nonce, deliver, consent, carton, history or prove", o.req.Op)}, nil
}

// said tells who stands beside the device what became of what they brought.
func said(r wire.Result, err error) (LocalReply, error) {
	reply := LocalReply{Command: r.Command, Act: r.Act, Outcome: r.Outcome, Code: r.Code, Text: r.Text}
	if err != nil && !errors.Is(err, ErrReset) && !errors.Is(err, ErrOver) {
		reply.Error = err.Error()
	}
	return reply, err
}

// Status tells how the device stands. It is for the loop's goroutine.
func (a *Agent) Status() Status {
	f := a.c.Machine.Facts()
	h, text := a.health()
	seq, _ := a.c.Log.Head()
	s := Status{
		Device: f.Device, Product: f.Product, State: a.state(), Slot: f.Slot, Trial: f.Trial,
		Healthy: h == HealthGood, Health: text, Verdict: a.verdict, Counter: a.m.Counter, TreeSize: a.m.treeSize(a.c.Machine.Facts().Bundle.Control.Origin),
		Bundle: f.Bundle.Version, Fuses: f.Fuses, BootCount: f.BootCount, LogSeq: seq,
		Results: a.m.Results, Config: a.told(),
	}
	if f.Current != nil {
		s.Version, s.Release = f.Current.Release.Version, fmt.Sprintf("%x", f.Current.Digest)
	}
	if c, ok := a.c.Program.(Confined); ok {
		held, missing := c.Isolation()
		s.Isolation, s.Missing = held.InForce, missing
	}
	if a.c.Processes != nil {
		s.Processes = a.c.Processes()
	}
	if t := a.m.Task; t != nil {
		s.Task, s.Waits, s.Wanted = string(t.Act)+": "+t.Phase, a.waits(a.now()), t.version()
	}
	return s
}
