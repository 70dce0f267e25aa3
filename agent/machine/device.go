package machine

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

// Options of a device's run.
type Options struct {
	Dir     string       // sockets of the programs, and below it what they keep
	Self    string       // a program whose main calls launch.Confine first: this one
	Require []wire.Layer // without which no program starts
	PollMin time.Duration
	Zone    string // see agent.Config
	Busy    string // a file that is there while the device is at something that an update should not break off; empty: none
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
		PollMin: o.PollMin, Zone: o.Zone, Once: o.Once, Logger: o.Logger,
		Enrol: func(ctx context.Context, e agent.Enrolment) ([][]byte, error) { return m.enrol(ctx, network, e) },
		Dial: func(certificate func() (*tls.Certificate, error), anchors [][]byte, now func() time.Time) (agent.Server, error) {
			return &link.Client{Line: network.Line(line.Server{URL: m.server(), Anchors: anchors, Certificate: certificate, Now: now})}, nil
		},
		History: func(server string) (agent.History, error) {
			return &link.History{Pages: network.Pages(cmp.Or(server, m.server()))}, nil
		},
		Processes: d.processes,
	}
	if o.Busy != "" {
		c.Busy = func() bool {
			_, err := os.Lstat(o.Busy)
			return err == nil
		}
	}
	if programs != nil {
		c.Program = programs
		c.Telemetry = &readings{report: m.boot.Report, ask: programs.Sample}
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
