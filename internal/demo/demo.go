// Package demo plays whole lives of devices with the real programs: server, station and devices are processes of their own, and
// everything goes through their public interfaces.
//
// Over all stages. Each step says what it expected and what it saw, and where the ledger tells of it; nothing is a step that is
// not also checked. The attacks are made with what a thief of the server would have: its database and its online keys.
package demo

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// Options of a demo.
type Options struct {
	Devices                int
	Dir                    string // empty: a temporary one, removed at the end
	DB                     string // an empty PostgreSQL database; empty: a file
	JSON                   bool
	Firmware, FirmwareNext string // empty: the demo's own program
	Out                    io.Writer
	Stay                   func(console string) error // called at the end, with the console's address; nil: end at once

	begun  func(*demo) // called when the server serves; tests cut its life, and that of devices, short
	ending func()      // called before the ledger is verified
	trace  bool        // devices tell in their logs what each call was answered

	programs string // directory of the programs; empty: beside this one
	maker    string // whose instance it is; empty: oemID
	protect  bool   // programs are protected
}

// Step is one thing that was tried.
type Step struct {
	Step     string `json:"step"`
	Device   string `json:"device,omitempty"`
	Expected string `json:"expected"`
	Observed string `json:"observed"`
	OK       bool   `json:"ok"`
	Ledger   *Place `json:"ledger,omitempty"`
}

// Place is where the ledger tells of a step.
type Place struct {
	Log   string `json:"log"`
	Index uint64 `json:"index"`
}

// Summary ends a demo.
type Summary struct {
	Steps   int    `json:"steps"`
	Failed  int    `json:"failed"`
	Devices int    `json:"devices"`
	Keys    string `json:"station_keys"`
	Seconds int    `json:"seconds"`
	OK      bool   `json:"ok"`
}

const (
	productID = "sensor"
	hardware  = "A"
	oemID     = "example-devices"
)

// demo is one run.
type demo struct {
	o     Options
	dir   string
	bin   binaries
	pass  string
	began time.Time

	layout  server.Layout
	serve   running
	welcome string // what init told
	console string
	devURL  string
	people  map[string]*client.Client // by name
	offline *soft.Store

	station stationDir
	order   string
	agents  []*device

	mu   sync.Mutex
	live []*device // those that run; guarded by mu

	images   map[string][]byte // firmware by version
	beside   map[string][]part // by version: what a release has besides its program
	releases map[string]string // digest (hex) by version
	steps    []Step
	builder  crypto.Signer     // whose provenance the gate believes; nil: there is no gate
	told     map[string]uint64 // by kind and subject: the index that was told last, so that the next is newer
	last     map[string]uint64 // by log: the highest index that was told
}

// ErrFailed says that a step did not do what it should.
var ErrFailed = errors.New("a step did not do what it should")

// Run plays everything.
func Run(ctx context.Context, o Options) (err error) {
	if o.Devices < 5 {
		return fmt.Errorf("%d devices: the story needs at least 5", o.Devices)
	}
	if (o.Firmware == "") != (o.FirmwareNext == "") {
		return errors.New("--firmware and --firmware-next belong together")
	}
	d := plan(o)
	if d.dir = o.Dir; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "hallmark-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); err = errors.Join(err, d.quiet(ctx)); d.stopAll() }()
	for _, chapter := range []func(context.Context) error{
		d.build, d.instance, d.firstRelease, d.produce, d.field, d.update, d.gate, d.lateComer, d.attacks, d.modified, d.data, d.handedOn, d.keysLost,
		d.copied, d.wipeAll, d.retire, d.quiet, d.verify,
	} {
		if err := chapter(ctx); err != nil {
			return errors.Join(err, d.end())
		}
	}
	if err := d.end(); err != nil {
		return err
	}
	if o.Stay != nil {
		link, err := d.signIn(ctx)
		if err != nil {
			return err
		}
		return o.Stay(link)
	}
	return nil
}

// plan is a demo of which nothing has been played yet.
func plan(o Options) *demo {
	return &demo{
		o: o, pass: "demo", began: time.Now(), people: map[string]*client.Client{}, told: map[string]uint64{}, last: map[string]uint64{},
		images: map[string][]byte{}, releases: map[string]string{},
	}
}

// quiet ends what tests do to the processes.
func (d *demo) quiet(context.Context) error {
	if d.o.ending != nil {
		d.o.ending()
	}
	return nil
}

// say tells progress to a person.
func (d *demo) say(format string, args ...any) {
	if !d.o.JSON {
		fmt.Fprintf(d.o.Out, format+"\n", args...)
	}
}

// step records what was seen; a step that is not as expected ends the demo.
func (d *demo) step(s Step) error {
	d.steps = append(d.steps, s)
	if d.o.JSON {
		if err := json.NewEncoder(d.o.Out).Encode(s); err != nil {
			return err
		}
	} else {
		mark := "ok  "
		if !s.OK {
			mark = "FAIL"
		}
		where := ""
		if s.Ledger != nil {
			where = fmt.Sprintf("  [%s %d]", s.Ledger.Log, s.Ledger.Index)
		}
		who := ""
		if s.Device != "" {
			who = " " + s.Device[:min(8, len(s.Device))]
		}
		fmt.Fprintf(d.o.Out, "  %s %s%s: %s%s\n", mark, s.Step, who, strings.ReplaceAll(s.Observed, "\n", "; "), where)
	}
	if !s.OK {
		return fmt.Errorf("%w: %s: expected %s, saw %s", ErrFailed, s.Step, s.Expected, s.Observed)
	}
	return nil
}

func (d *demo) end() error {
	s := Summary{Steps: len(d.steps), Devices: d.o.Devices, Keys: d.station.keys, Seconds: int(time.Since(d.began).Seconds())}
	for _, st := range d.steps {
		if !st.OK {
			s.Failed++
		}
	}
	s.OK = s.Failed == 0 && len(d.steps) > 0
	if d.o.JSON {
		return json.NewEncoder(d.o.Out).Encode(map[string]Summary{"summary": s})
	}
	if err := d.table(); err != nil {
		return err
	}
	fmt.Fprintf(d.o.Out, "\n%d steps, %d failed, %d devices, station keys in %s, %d s\n", s.Steps, s.Failed, s.Devices, s.Keys, s.Seconds)
	return nil
}

// table tells once more what happened, each step in a line, with its place in the ledger.
func (d *demo) table() error {
	fmt.Fprintln(d.o.Out, "\nWhat happened")
	w := tabwriter.NewWriter(d.o.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "  \tstep\tdevice\texpected\tledger")
	for _, s := range d.steps {
		mark, where := "ok", "-"
		if !s.OK {
			mark = "FAIL"
		}
		if s.Ledger != nil {
			where = fmt.Sprintf("%s %d", s.Ledger.Log, s.Ledger.Index)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", mark, s.Step, s.Device[:min(8, len(s.Device))], s.Expected, where)
	}
	return w.Flush()
}

// wait asks until done says so or the time is up; last is what it saw last.
func wait(ctx context.Context, limit time.Duration, done func() (bool, string)) (bool, string) {
	end := time.Now().Add(limit)
	for {
		ok, saw := done()
		if ok || time.Now().After(end) || ctx.Err() != nil {
			return ok, saw
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// insist does what may be interrupted, as a person would: when no answer came it is done again, and done is what the server says
// (by these codes) of something that was done already.
func insist(ctx context.Context, do func() error, done ...string) error {
	end := time.Now().Add(30 * time.Second)
	for again := false; ; again = true {
		err := do()
		var p *client.Problem
		answered := errors.As(err, &p) && p.Status < 500
		if err == nil || again && answered && slices.Contains(done, client.Code(err)) {
			return nil
		}
		if answered || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// output runs a command and gives what it printed; its error holds what it complained about.
func output(cmd *exec.Cmd) (string, error) {
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
