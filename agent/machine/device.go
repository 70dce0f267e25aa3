package machine

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/agent/seal"
	"github.com/hallmark-iot/hallmark/wire"
)

// Options of a device's run.
type Options struct {
	Dir     string       // sockets of the programs, and below it what they keep
	Self    string       // a program whose main calls launch.Confine first: this one
	Require []wire.Layer // without which no program starts
	PollMin time.Duration
	Once    bool
	Logger  *slog.Logger
	Output  io.Writer // of the programs

	// Trusted is told, at the start and after each change, whom the board believes: a record for a copy that a start may take back. nil: there is no copy.
	Trusted func(record []byte)

	Door *net.TCPListener // where strangers may have the device prove itself; nil: nowhere
}

// Device is everything of one start: the agent, and the processes that must be stopped after it.
type Device struct {
	*agent.Agent
	programs *Programs
	network  *line.Process
}

// Stop ends the network's process and the programs.
func (d *Device) Stop() {
	d.network.Close()
	if d.programs != nil {
		d.programs.Stop()
	}
}

// Alive waits until the agent and the network's process have answered; false when ctx ended first, or when there is none that would.
func (d *Device) Alive(ctx context.Context) bool { return d.Agent.Alive(ctx) && d.network.Alive(ctx) }

// processes are those of the device.
func (d *Device) processes() []agent.Process {
	n := d.network.State()
	out := []agent.Process{
		{Name: "trusted", Pid: os.Getpid(), Starts: 1},
		{Name: "network", Pid: n.Pid, Starts: n.Starts, Isolation: n.Layers.InForce, Missing: n.Layers.Missing, Fault: n.Fault},
	}
	if d.programs != nil {
		out = append(out, d.programs.processes()...)
	}
	return out
}

// Device joins all parts of a started machine.
func (m *Machine) Device(o Options) (*Device, error) {
	r := m.boot.Report()
	m.copied = o.Trusted
	m.copyTrust()
	spki, err := m.attestKey()
	if err != nil && !errors.Is(err, hw.ErrNoKey) { // after its wipe the key is gone, and the log has begun long ago
		return nil, err
	}
	log, err := devlog.Open(devlog.Config{
		Region: m.boot.Flash().LogRegion(), Device: r.Identity.Device, Origin: wire.LogOrigin(r.Identity.Device, spki), Counter: m.board.Log,
		Epoch: r.BootCount, Now: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	p, err := m.Params()
	if err != nil {
		return nil, err
	}
	network := line.Open(line.Options{
		Server: m.server(), Door: o.Door, Dir: o.Dir, Device: r.Identity.Device, Self: o.Self, Require: o.Require, Output: o.Output, Logger: o.Logger,
	})
	o.Logger.Info("the network's code is confined", "by", network.State().Layers.InForce, "missing", network.State().Layers.Missing)
	d := &Device{network: network}
	programs, err := m.Launch(launch.Options{Dir: o.Dir, Device: r.Identity.Device, Self: o.Self, Output: o.Output, Require: o.Require})
	if err != nil {
		// The release was verified, and still cannot be started: the agent runs in recovery and says so.
		o.Logger.Error("programs are not started", "error", err)
		programs = nil
	}
	m.out = err != nil
	if programs != nil {
		held, missing := programs.Isolation()
		o.Logger.Info("programs are confined", "by", held.InForce, "missing", missing)
	}
	d.programs = programs
	c := agent.Config{
		Machine: m, Eraser: m, Store: m, Params: p, Keys: m.board.Keys, Log: log, Random: m.board.Random, IDevID: r.Identity.Chain,
		PollMin: o.PollMin, Once: o.Once, Logger: o.Logger,
		Enrol: func(ctx context.Context, e agent.Enrolment) ([][]byte, error) { return m.enrol(ctx, network, e) },
		Dial: func(certificate func() (*tls.Certificate, error), anchors [][]byte, now func() time.Time) (agent.Server, error) {
			return &link.Client{Line: network.Line(line.Server{URL: m.server(), Anchors: anchors, Certificate: certificate, Now: now})}, nil
		},
		History: func(server string) (agent.History, error) {
			return &link.History{Pages: network.Pages(cmp.Or(server, m.server()))}, nil
		},
		Processes: d.processes,
	}
	if programs != nil {
		c.Program = programs
		c.Telemetry = &readings{m: m, programs: programs}
	}
	if d.Agent, err = agent.New(c); err != nil {
		d.Stop()
		return nil, err
	}
	network.Answer(func(ctx context.Context, challenge []byte) ([]byte, string) {
		reply, ok := d.Prove(ctx, challenge)
		if !ok {
			return nil, "it is being switched off"
		}
		return reply.Proof, reply.Error
	})
	return d, nil
}

func (m *Machine) enrol(ctx context.Context, by *line.Process, e agent.Enrolment) ([][]byte, error) {
	r := m.boot.Report()
	// Its factory's certificate names its maker, and the instance it was handed to calls it otherwise: it asks without a name.
	return by.Enrol(ctx, line.Server{URL: m.server(), Anchors: r.Bundle.Anchors, Now: e.Now}, est.Request{
		As: e.As, Key: e.Key, Renew: e.Renew, Elsewhere: r.Home != nil && !e.Renew,
	})
}

// Stream is the name under which a device's readings are sealed; sampleEvery is how often one is taken, perEpoch how many one epoch has, so that a
// reader gets a long time in parts.
const (
	Stream      = "readings"
	sampleEvery = 5 * time.Second
	perEpoch    = 4096
)

// readings is the device's telemetry: what its program measures, sealed for the readers its maker will name. The server may refuse an epoch for good:
// a copy of this device has uploaded under its number, or the server came back from a backup without it. Then what waits is sealed in another
// one, and less and less often while that is refused too.
type readings struct {
	m        *Machine
	programs *Programs
	stream   *seal.Stream
	key      wire.StreamKey // that the stream is sealed for
	nth      uint           // epoch of this start
	spoiled  bool           // this epoch was refused
	refused  int            // epochs, in a row
	again    time.Time      // before then nothing is uploaded
	last     time.Time
}

// Next implements agent.Telemetry.
func (t *readings) Next(ctx context.Context, now time.Time, key crypto.Signer, period uint64) ([]byte, func(bool), error) {
	r := t.m.boot.Report()
	if len(r.Bundle.Telemetry) == 0 {
		return nil, nil, nil
	}
	if err := t.open(r, key, period, now); err != nil {
		return nil, nil, err
	}
	if err := t.stream.Sign(key); err != nil {
		return nil, nil, err
	}
	if now.Sub(t.last) >= sampleEvery && t.stream.Period() == period {
		if s, ok := t.programs.Sample(ctx); ok {
			if err := t.stream.Add([]byte(s)); err != nil && !errors.Is(err, seal.ErrFull) {
				return nil, nil, err
			}
			t.last = now
		}
	}
	if t.stream.Pending() == 0 || now.Before(t.again) {
		return nil, nil, nil
	}
	u, err := t.stream.Upload(false)
	if err != nil {
		return nil, nil, err
	}
	b, err := wire.EncodeUpload(u)
	return b, func(taken bool) { t.answered(u, taken, now) }, err
}

// open makes sure of an epoch that may be written: not full, not refused, for the key that the trust bundle names now, and of this period of
// ownership. One of another period stays until what waits of it is told, and nothing is added to it; what will not be had of it is dropped, rather than
// sealed for somebody else.
func (t *readings) open(r boot.Report, key crypto.Signer, period uint64, now time.Time) (err error) {
	bucket := r.Bundle.Telemetry[0]
	if s := t.stream; s != nil && s.Period() != period {
		if s.Pending() > 0 && !t.spoiled || t.nth > wire.MaxNth {
			return nil
		}
		t.stream = nil
	} else if s != nil {
		full := s.Sealed() >= perEpoch && s.Pending() == 0
		due := t.spoiled && !now.Before(t.again)
		if !full && !due && bytes.Equal(t.key.Key, bucket.Key) || t.nth > wire.MaxNth {
			return nil
		}
	}
	number := wire.EpochOf(r.BootCount, t.nth)
	next := t.stream
	if next == nil {
		next, err = seal.Open(r.Identity.Device, Stream, number, period, bucket, key, now)
	} else {
		next, err = next.Anew(number, bucket, now)
	}
	if err != nil {
		return err
	}
	t.stream, t.key, t.spoiled = next, bucket, false
	t.nth++
	return nil
}

// mostRefused is the longest pause after refusals.
const mostRefused = time.Hour

func (t *readings) answered(u wire.Upload, taken bool, now time.Time) {
	if taken {
		t.refused, t.again = 0, time.Time{}
		t.stream.Acked(u)
		return
	}
	t.spoiled = true
	t.refused++
	t.again = now.Add(min(sampleEvery<<min(t.refused, 16), mostRefused))
}
