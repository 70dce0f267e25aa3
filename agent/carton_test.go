package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// pack writes a carton of a command for this device into dir; edit may spoil it before it is written.
func (w *world) pack(t *testing.T, dir string, c *command, counter uint64, edit func(h *carton.Head)) string {
	t.Helper()
	now := uint64(w.now().Unix())
	member := must(wire.MembershipOf([]string{me}, me))
	member.Path = [][]byte{}
	h := carton.Head{
		V: 1, Product: product, Release: *w.logged(c.release.entry), Commands: []wire.Logged{*w.logged(c.entry)},
		Devices: []carton.Device{{ID: me, Member: member, Directive: must(wire.Sign1(wire.TypeOffline, must(wire.EncodeOfflineDirective(wire.OfflineDirective{
			Device: me, Counter: counter, Command: c.digest[:], Issued: now, Expires: now + 3600,
		})), w.directive))}},
	}
	for _, p := range c.release.rel.Components {
		h.Blobs = append(h.Blobs, carton.Blob{Digest: p.Digest, Size: p.Size})
	}
	if len(w.steps) > 1 {
		h.Steps, h.From = w.steps[1:], 2
		h.Newest = &wire.NewestBundle{Version: w.bundle.Version, Logged: *w.logged(w.newest)}
	}
	if edit != nil {
		edit(&h)
	}
	out := bytes.NewBuffer(must(carton.Encode(h)))
	for _, b := range h.Blobs {
		out.Write(w.bytes[string(b.Digest)])
	}
	path := filepath.Join(dir, "a.hmb")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// byHand is an install that may be brought.
func (w *world) byHand(f *firmware) *command {
	return w.command(wire.ActInstall, func(c *command) { c.release, c.cmd.Alone = f, true })
}

// beside asks a device that may end before it answers.
func (d *device) beside(ended <-chan error, req agent.LocalRequest) (r agent.LocalReply, err error, over bool) {
	near, far := net.Pipe()
	select {
	case d.local.conns <- far:
	case err := <-ended:
		return r, err, true
	}
	defer near.Close()
	go func() { _, _ = near.Write(append(must(json.Marshal(req)), '\n')) }()
	line, err := bufio.NewReader(near).ReadBytes('\n')
	if err != nil {
		return r, <-ended, true
	}
	return r, json.Unmarshal(line, &r), false
}

// visit is somebody who puts a carton before a device that no line reaches, and stays until it has come to an end with it, over its restarts. said is the first answer that was one.
func (d *device) visit(t *testing.T, path string) (said agent.LocalReply, at agent.Status) {
	t.Helper()
	d.s.down.Store(true)
	return d.bring(t, path)
}

// bring is a visit to a device whose line is as it is.
func (d *device) bring(t *testing.T, path string) (said agent.LocalReply, at agent.Status) {
	t.Helper()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.power(ctx) }()
		err, over := error(nil), false
		for !over {
			var r agent.LocalReply
			if said.Act == "" && said.Error == "" {
				if r, err, over = d.beside(ended, agent.LocalRequest{Op: "carton", Path: path}); over {
					break
				}
				said = r
			}
			if r, err, over = d.beside(ended, agent.LocalRequest{Op: "status"}); over {
				break
			}
			if at = *r.Status; at.Task == "" && !at.Trial {
				cancel()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				return said, at
			}
			time.Sleep(time.Second)
		}
		cancel()
		if err != nil && !errors.Is(err, agent.ErrReset) && !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
	}
	t.Fatalf("not settled after 20 starts: %+v", at)
	return said, at
}

// history asks a device for what it has to tell.
func (d *device) history(t *testing.T) (h carton.History, says string) {
	t.Helper()
	stop := d.start(t)
	r := d.ask(t, `{"op":"history"}`)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if r.Error != "" {
		return h, r.Error
	}
	return must(carton.DecodeHistory(r.History)), ""
}

// A device without a line takes a release out of a carton, keeps it by its program's health alone, and says and proves what became of it.
func TestADeviceWithoutALineInstallsFromACarton(t *testing.T) {
	for _, model := range []wire.UpdateModel{wire.ModelBlob, wire.ModelAsset} {
		t.Run(string(model), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1, v2 := w.publishAs(model, "1.0.0", 1), w.publishAs(model, "2.0.0", 2)
				d := newDevice(t, w, born(t, w, v1))
				d.s.down.Store(true)
				if _, says := d.history(t); !strings.Contains(says, "nothing was installed out of a carton") {
					t.Errorf("a history of nothing: %q", says)
				}
				c, began := w.byHand(&v2), time.Now()
				path := w.pack(t, t.TempDir(), c, 1, nil)
				said, at := d.visit(t, path)
				if said.Act != wire.ActInstall || said.Outcome != "" || said.Release != at.Release || at.Version != "2.0.0" || at.Fuses != 2 || at.Counter != 1 {
					t.Fatalf("%+v, then %+v", said, at)
				}
				if took := time.Since(began); took < time.Minute || took > 9*time.Minute {
					t.Errorf("the trial took %s", took)
				}
				if len(at.Results) != 1 || at.Results[0].Outcome != wire.OutcomeDone || !bytes.Equal(at.Results[0].Command, said.Command) {
					t.Errorf("results %+v", at.Results)
				}
				if again, at := d.visit(t, path); again.Outcome != wire.OutcomeRefused || again.Code != "replayed" || at.Version != "2.0.0" {
					t.Errorf("the same carton again: %+v", again)
				}
				d.checkHistory(t, c)
			})
		})
	}
}

// checkHistory reads two histories of a device as its server would.
func (d *device) checkHistory(t *testing.T, c *command) {
	t.Helper()
	var batches [2][]wire.LogBatch
	for i := range batches {
		h, says := d.history(t)
		if says != "" {
			t.Fatal(says)
		}
		nonce := h.Nonce()
		e := must(wire.DecodeEvidence(must(wire.Verify1(wire.TypeEvidence, h.Evidence, d.s.attest))))
		in := must(wire.DecodeCheckin(h.Checkin))
		if sum := sha256.Sum256(h.Directive); !bytes.Equal(e.Nonce, nonce[:]) || !bytes.Equal(in.Nonce, sum[:]) || e.Device != me {
			t.Fatalf("evidence over %x, want %x", e.Nonce, nonce)
		}
		if in.Version != "2.0.0" || in.Trial || !in.Healthy || len(in.Results) != 2 || !bytes.Equal(in.Results[0].Command, c.digest[:]) {
			t.Fatalf("it says %+v", in)
		}
		for _, env := range h.Log {
			batches[i] = append(batches[i], must(wire.DecodeLogBatch(must(wire.Verify1(wire.TypeDeviceLog, env, d.s.attest)))))
		}
		last := batches[i][len(batches[i])-1]
		if last.Last != e.LogSeq || !bytes.Equal(last.Head, e.LogHead) || last.Events[len(last.Events)-1].Kind != "history.told" {
			t.Fatalf("the log ends at %d, the evidence says %d", last.Last, e.LogSeq)
		}
	}
	if n := len(batches[0]); len(batches[1]) <= n || batches[1][n].First != batches[0][n-1].Last+1 {
		t.Errorf("%d batches, and then %d: the second does not go on where the first ended", n, len(batches[1]))
	}
}

// A device that is online again is heard of as ever: what it was told by hand is a result like others.
func TestWhatWasBroughtIsToldOverTheLineToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		c := w.byHand(&v2)
		d.visit(t, w.pack(t, t.TempDir(), c, 1, nil))
		d.s.down.Store(false)
		if got := d.told(t, c); len(got) != 1 || got[0].Outcome != wire.OutcomeDone || d.s.last.Version != "2.0.0" {
			t.Errorf("%+v", got)
		}
	})
}

// The program that a carton brought is not well: the device goes back by itself, and nobody had to be asked.
func TestWhatIsNotWellGoesBackWithoutALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		d.prog.spell = time.Hour
		_, at := d.visit(t, w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil))
		if at.Version != "1.0.0" || at.Fuses != 1 || len(at.Results) != 1 || at.Results[0].Outcome != wire.OutcomeFailed {
			t.Errorf("%+v", at)
		}
	})
}

// The trust bundles on the way come with it: the device may have missed some, and what they close it does not install.
func TestACartonBringsTheTrustBundles(t *testing.T) {
	for name, c := range map[string]struct {
		install uint32
		edit    func(h *carton.Head)
		error   string
		code    string
	}{
		"all of them":               {},
		"one is missing":            {edit: func(h *carton.Head) { h.Steps, h.From = h.Steps[1:], 3 }, error: "it has those from 3 on, and this device needs 2"},
		"none is there":             {edit: func(h *carton.Head) { h.Steps, h.From, h.Newest = nil, 0, nil }, code: "signature"},
		"one is somebody else's":    {edit: func(h *carton.Head) { h.Steps[0] = wire.BundleStep{Envelope: []byte("x")} }, error: "trust bundles"},
		"one closes the release":    {install: 3, code: "closed"},
		"the end is of another log": {edit: func(h *carton.Head) { h.Newest.Logged.Proof.LogSignature = make([]byte, 64) }, error: "trust bundles"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1 := w.publish("1.0.0", 1)
				d := newDevice(t, w, born(t, w, v1))
				w.replace(everybody)
				w.replace(func(w *world) { everybody(w); w.bundle.Install = c.install })
				v2 := w.publish("2.0.0", 2)
				said, at := d.visit(t, w.pack(t, t.TempDir(), w.byHand(&v2), 1, c.edit))
				if good := c.error == "" && c.code == ""; good != (at.Version == "2.0.0" && at.Bundle == 3) || said.Code != c.code || !strings.Contains(said.Error, c.error) {
					t.Errorf("%+v, then %+v", said, at)
				}
			})
		})
	}
}

// What is put before a device and is no carton for it is refused in words, and touches nothing.
func TestWhatIsNoCartonForThisDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		d.s.down.Store(true)
		c, dir := w.byHand(&v2), t.TempDir()
		good := must(os.ReadFile(w.pack(t, dir, c, 1, nil)))
		at := func(name string) string { return filepath.Join(dir, name) }
		file := func(name string, b []byte) string {
			if err := os.WriteFile(at(name), b, 0o600); err != nil {
				t.Fatal(err)
			}
			return at(name)
		}
		packed := func(name string, edit func(h *carton.Head)) string {
			path := w.pack(t, t.TempDir(), c, 1, edit)
			return file(name, must(os.ReadFile(path)))
		}
		if err := errors.Join(os.Symlink(at("a.hmb"), at("link")), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
			t.Fatal(err)
		}
		huge := file("huge", good)
		if err := os.Truncate(huge, 10<<30); err != nil {
			t.Fatal(err)
		}
		stop := d.start(t)
		for path, want := range map[string]string{
			"a.hmb":                         "want the whole name of a file",
			at("nothing"):                   "no such file",
			at("link"):                      "is no file",
			at("pipe"):                      "is no file",
			dir:                             "is no file",
			"/dev/null":                     "is no file",
			huge:                            "it was cut, or is not copied whole",
			file("empty", nil):              "no carton",
			file("cut", good[:len(good)-1]): "it was cut, or is not copied whole",
			file("junk", bytes.Repeat([]byte("x"), 100)):                                        "no carton",
			file("head", append([]byte("HMCARTN1\xff\xff\xff\xff"), good...)):                   "no carton",
			packed("kettle", func(h *carton.Head) { h.Product = "kettle" }):                     `for devices of "kettle"`,
			packed("other", func(h *carton.Head) { h.Devices[0].ID = strings.Repeat("f", 32) }): "has nothing for device " + me,
			packed("lacks", func(h *carton.Head) {
				d := sha256.Sum256([]byte("x"))
				h.Blobs[0].Digest = d[:]
				w.bytes[string(d[:])] = make([]byte, 2000)
			}): "lacks component app",
		} {
			r := d.ask(t, string(must(json.Marshal(agent.LocalRequest{Op: "carton", Path: path}))))
			if !strings.Contains(r.Error, want) || r.Act != "" {
				t.Errorf("%s: %+v, want %q", path, r, want)
			}
		}
		if r := d.ask(t, `{"op":"status"}`); r.Status.Task != "" || r.Status.Counter != 0 || len(r.Status.Results) != 0 {
			t.Errorf("something was touched: %+v", r.Status)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// begun is a device whose power failed while it fetched from the carton at path; then something happens to the file, and ten minutes later it is still at it.
func begun(t *testing.T, w *world, golden *virtual.Board, path string, whole []byte, spoil func()) *device {
	t.Helper()
	for cut := uint64(20); cut < 400; cut++ {
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDevice(t, w, must(golden.Clone()))
		d.s.down.Store(true)
		d.board.Power.CutAt(cut, virtual.Modes()[0], cut)
		ended := make(chan error, 1)
		go func() { ended <- d.power(t.Context()) }()
		if _, err, over := d.beside(ended, agent.LocalRequest{Op: "carton", Path: path}); !over {
			err = <-ended
			if !errors.Is(err, hw.ErrPowerCut) {
				t.Fatalf("cut %d: %v", cut, err)
			}
		} else if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatalf("cut %d: %v", cut, err)
		}
		spoil()
		stop := d.start(t)
		if r := d.ask(t, `{"op":"status"}`); r.Status.Task != "install: stage" {
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		time.Sleep(10 * time.Minute)
		if r := d.ask(t, `{"op":"status"}`); r.Status.Task != "install: stage" || r.Status.Version != "1.0.0" {
			t.Fatalf("ten minutes later: %+v", r.Status)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	t.Fatal("no cut leaves it fetching")
	return nil
}

// Bytes that are not the release's end the install, whoever changed them, and what ran runs.
func TestChangedBytesOutOfACartonAreNotInstalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
		d := newDevice(t, w, born(t, w, v1))
		path := w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil)
		b := must(os.ReadFile(path))
		b[len(b)-7] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, at := d.visit(t, path); at.Version != "1.0.0" || len(at.Results) != 1 || at.Results[0].Outcome != wire.OutcomeFailed {
			t.Errorf("%+v", at)
		}
	})
}

// A stick that is pulled, or is no carton any more, installs nothing; another copy of the same carton goes on where it stood.
func TestAnotherCopyOfTheCartonGoesOn(t *testing.T) {
	for name, spoil := range map[string]func(path string, whole []byte) error{
		"pulled":  func(path string, _ []byte) error { return os.Remove(path) },
		"cut":     func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o600) },
		"another": func(path string, _ []byte) error { return os.WriteFile(path, []byte("x"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				v1, v2 := w.publish("1.0.0", 1), w.publish("2.0.0", 2)
				golden := born(t, w, v1)
				path := w.pack(t, t.TempDir(), w.byHand(&v2), 1, nil)
				whole := must(os.ReadFile(path))
				d := begun(t, w, golden, path, whole, func() {
					if err := spoil(path, bytes.Clone(whole)); err != nil {
						t.Fatal(err)
					}
				})
				elsewhere := filepath.Join(t.TempDir(), "b.hmb")
				if err := os.WriteFile(elsewhere, whole, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, at := d.visit(t, elsewhere); at.Version != "2.0.0" {
					t.Errorf("%+v", at)
				}
			})
		})
	}
}

// The power fails at each write while a device installs from a carton: it ends with one of the two releases, whole, and says once what became of it.
func TestPowerCutAtEveryWriteOfAnInstallFromACarton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		v1 := w.publish("1.0.0", 1)
		golden := born(t, w, v1)
		w.replace(func(w *world) { w.bundle.Offline = 7200 })
		v2 := w.publish("2.0.0", 2)
		dir := t.TempDir()
		run := func(cut uint64) uint64 {
			b, err := golden.Clone()
			if err != nil {
				t.Fatal(err)
			}
			path := w.pack(t, dir, w.byHand(&v2), 1, nil)
			d := newDevice(t, w, b)
			if cut > 0 {
				b.Power.CutAt(cut, virtual.Modes()[cut%4], cut)
			}
			said, at := d.visit(t, path)
			if said.Act == "" { // before it could answer: somebody asks once more
				said, at = d.visit(t, path)
			}
			done := slices.ContainsFunc(at.Results, func(r wire.Result) bool { return r.Outcome == wire.OutcomeDone })
			back := slices.ContainsFunc(at.Results, func(r wire.Result) bool { return r.Code == "reverted" })
			if at.Bundle != 2 || at.Counter != 1 || done == back || done != (at.Version == "2.0.0") || back != (at.Version == "1.0.0") {
				t.Fatalf("cut %d: %+v, then %+v", cut, said, at)
			}
			return b.Power.Ops()
		}
		total := run(0)
		if total < 60 {
			t.Fatalf("only %d operations to cut", total)
		}
		for n := uint64(1); n <= total; n++ {
			run(n)
		}
	})
}
