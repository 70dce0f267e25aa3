package watch_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/mirror"
	"github.com/hallmark-iot/hallmark/ledger/watch"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

type signer struct{ ed25519.PrivateKey }

func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.PrivateKey, text), nil }
func (s signer) Public() ed25519.PublicKey        { return s.PrivateKey.Public().(ed25519.PublicKey) }

func noteKey(b byte) signer {
	return signer{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))}
}

func trust() audit.Trust {
	t := audit.Trust{Quorum: 1, Witnesses: []audit.Witness{{Name: "w1", Type: audit.Ed25519, Key: noteKey(2).Public()}}}
	for _, log := range []string{"control", "events"} {
		t.Logs = append(t.Logs, audit.TrustedLog{Name: log, Origin: "acme/" + log, Key: noteKey(1).Public()})
	}
	return t
}

// server serves the files of both logs, made by x/mod's tlog: by other code than reads them.
type server struct {
	t     testing.TB
	files map[string][]byte
	lost  bool // no file can be had
}

func (s *server) fetch(log string) audit.Fetcher {
	return func(_ context.Context, path string) ([]byte, error) {
		data, ok := s.files[log+"/"+path]
		if !ok || s.lost {
			return nil, fs.ErrNotExist
		}
		return data, nil
	}
}

// publish serves a log of these entries, which the witness saw at that time.
func (s *server) publish(log ledger.Log, entries [][]byte, seen time.Time) {
	s.t.Helper()
	put := func(path string, data []byte) { s.files[string(log)+"/"+path] = data }
	maps.DeleteFunc(s.files, func(path string, _ []byte) bool { return strings.HasPrefix(path, string(log)+"/") })
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, _ error) {
		for _, x := range at {
			out = append(out, hashes[x])
		}
		return out, nil
	})
	size := int64(len(entries))
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), e, reader)
		must(s.t, err)
		hashes = append(hashes, more...)
	}
	for _, tile := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(tile, reader)
		must(s.t, err)
		put("tile/"+strings.TrimPrefix(tile.Path(), "tile/8/"), data)
	}
	for n := int64(0); n*256 < size; n++ {
		w := min(256, size-n*256)
		var b []byte
		for _, e := range entries[n*256 : n*256+w] {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
		}
		put(mirror.Path("entries", uint64(n), int(w)), b)
	}
	root, err := tlog.TreeHash(size, reader)
	must(s.t, err)
	note, err := ledger.SignCheckpoint("acme/"+string(log), ledger.State{Size: uint64(size), Root: root}, noteKey(1))
	must(s.t, err)
	parsed, err := ledger.ParseNote(note)
	must(s.t, err)
	line, err := ledger.Ed25519Cosigner("w1", noteKey(2)).Line(parsed, seen)
	must(s.t, err)
	put("checkpoint", append(note, line...))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tellers keep what is told and saved, and fail when they should.
type teller struct {
	told   []watch.Notice
	state  []byte
	memory []byte
	fail   bool
}

func (s *teller) Tell(_ context.Context, n watch.Notice) error {
	if s.fail {
		return errors.New("no room")
	}
	s.told = append(s.told, n)
	return nil
}

func (s *teller) Save(_ context.Context, st watch.State) (err error) {
	s.state, err = json.Marshal(st)
	return err
}

func (s *teller) Remember(_ context.Context, m *watch.Memory) (err error) {
	s.memory, err = m.Encode()
	return err
}

// rules are those told since the last time.
func (s *teller) rules() string {
	var out []string
	for _, n := range s.told {
		r := n.Alert.Rule
		if n.Alert.Over {
			r += "-over"
		}
		out = append(out, r)
	}
	s.told = nil
	return strings.Join(out, " ")
}

// scene is a life, its server, and a follower.
type scene struct {
	*life
	server *server
	sink   *teller
	f      *watch.Follower
	clock  time.Time
}

func newScene(t *testing.T) *scene {
	s := &scene{life: ordinary(t), server: &server{t: t, files: map[string][]byte{}}, sink: &teller{}}
	s.clock = s.now.Add(time.Minute)
	s.show()
	s.f = s.follower(nil)
	return s
}

func (s *scene) follower(m *watch.Memory) *watch.Follower {
	return &watch.Follower{Trust: trust(), Fetch: s.server.fetch, Judge: watch.NewJudge(watch.Policy{}, m), Stale: 5 * time.Minute, Sink: s.sink}
}

// show publishes both logs as they are, witnessed now.
func (s *scene) show() {
	for log, entries := range s.entries {
		s.server.publish(log, entries, s.clock)
	}
}

func (s *scene) round() watch.Round {
	s.t.Helper()
	r, err := s.f.Round(s.t.Context(), s.clock)
	must(s.t, err)
	return r
}

// later lets time pass, and publishes.
func (s *scene) later(d time.Duration) {
	s.clock = s.clock.Add(d)
	s.show()
}

// again is what a new process has, from what was kept.
func (s *scene) again(memory bool) {
	s.t.Helper()
	var m *watch.Memory
	if memory {
		var err error
		m, err = watch.DecodeMemory(s.sink.memory, watch.Policy{})
		must(s.t, err)
	}
	s.f = s.follower(m)
	must(s.t, json.Unmarshal(s.sink.state, &s.f.State))
}

func (s *scene) want(rules string) {
	s.t.Helper()
	if got := s.sink.rules(); got != rules {
		s.t.Fatalf("told %q, want %q", got, rules)
	}
}

func (s *scene) forge() { s.command(wire.ActWipe, 3, nil) }

func TestItFollowsBothLogsAsTheyGrow(t *testing.T) {
	s := newScene(t)
	all := s.entries
	s.entries = map[ledger.Log][][]byte{}
	seen := 0
	for _, ref := range s.order {
		s.entries[ref.Log] = all[ref.Log][:ref.Index+1]
		if len(s.entries) == 2 {
			s.later(time.Minute)
			r := s.round()
			if len(r.Failed) > 0 {
				t.Fatal(r.Failed)
			}
			seen++
		}
	}
	s.want("")
	s.later(time.Minute)
	if r := s.round(); r.Size["control"] != uint64(len(all["control"])) || r.Size["events"] != uint64(len(all["events"])) || seen < 10 {
		t.Errorf("%+v", r)
	}
	s.forge()
	s.later(time.Minute)
	s.round()
	s.want("command.warrant")
	s.later(time.Minute)
	s.round()
	s.want("")
}

// Whoever gets the notice can check it by the keys of the log and witnesses alone.
func TestANoticeProvesItself(t *testing.T) {
	s := newScene(t)
	for range 300 {
		s.grant("person:x", "viewer")
	}
	s.forge()
	s.grant("person:x", "viewer")
	s.later(20 * time.Minute)
	s.round()
	if len(s.sink.told) != 1 {
		t.Fatal(s.sink.rules())
	}
	n := s.sink.told[0]
	head, note, _ := strings.Cut(n.Proof, "\n\n")
	lines := strings.Split(head, "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != fmt.Sprintf("index %d", *n.Index) {
		t.Fatal(n.Proof)
	}
	var proof tlog.RecordProof
	for _, l := range lines[2:] {
		h, err := base64.StdEncoding.DecodeString(l)
		must(t, err)
		proof = append(proof, tlog.Hash(h))
	}
	cp, err := audit.Checkpoint(trust().Policy(0), []byte(note))
	must(t, err)
	must(t, tlog.CheckRecord(proof, int64(cp.Size), tlog.Hash(cp.Root), int64(*n.Index), tlog.RecordHash(n.Entry)))
	fact, err := wire.DecodeFact(n.Entry)
	if err != nil || fact.Kind != string(ledger.KindCommandIssued) || n.Alert.Rule != "command.warrant" {
		t.Errorf("%+v, %v", n.Alert, err)
	}
}

func TestALogThatForksIsTheAlert(t *testing.T) {
	for name, change := range map[string]func(*scene){
		"the newest entry is another": func(s *scene) {
			s.entries[ledger.Control][len(s.entries[ledger.Control])-1] = []byte("x")
		},
		"the first is another, and it is longer": func(s *scene) {
			s.entries[ledger.Control][0] = []byte("x")
			s.forge()
		},
	} {
		s := newScene(t)
		s.round()
		good := slices.Clone(s.entries[ledger.Control])
		kept := string(s.server.files["control/checkpoint"])
		change(s)
		s.later(time.Minute)
		if r := s.round(); len(r.Failed) != 1 {
			t.Errorf("%s: %v", name, r.Failed)
		}
		if n := s.sink.told[0]; n.Kept != kept || n.Shown != string(s.server.files["control/checkpoint"]) || n.Alert.Severity != watch.Critical {
			t.Errorf("%s: the evidence is not both checkpoints: %+v", name, n)
		}
		s.want("log.forked")
		s.again(true) // told once, also by the next process
		s.later(time.Minute)
		s.round()
		s.want("")
		s.entries[ledger.Control] = good
		s.later(time.Minute)
		s.round()
		s.want("log.forked-over")
		s.round()
		s.want("")
	}
}

func TestALogThatShrinksIsTold(t *testing.T) {
	s := newScene(t)
	s.round()
	s.entries[ledger.Events] = s.entries[ledger.Events][:3]
	s.later(time.Minute)
	s.round()
	s.want("log.smaller")
}

// A cache, or one of several servers, may be behind for a moment: that is no alarm, and what it shows is not judged.
func TestAServerThatIsBehindForAMomentIsNoAlarm(t *testing.T) {
	s := newScene(t)
	s.round()
	old := maps.Clone(s.server.files)
	s.grant("person:x", "viewer")
	s.later(20 * time.Second)
	s.round()
	now := maps.Clone(s.server.files)
	for _, f := range []struct {
		files map[string][]byte
		after time.Duration
		told  string
	}{{old, 5 * time.Second, ""}, {now, 5 * time.Second, ""}, {old, time.Second, ""}, {old, 59 * time.Second, ""}, {old, time.Second, "log.smaller"}, {old, time.Second, ""}, {now, time.Second, "log.smaller-over"}} {
		s.clock = s.clock.Add(f.after)
		s.server.files = f.files
		s.round()
		s.want(f.told)
	}
}

// A fork is seen by who was not there when it happened.
func TestAForkIsSeenAfterARestart(t *testing.T) {
	s := newScene(t)
	s.round()
	s.entries[ledger.Events][0] = []byte("x")
	for i := range 3 {
		s.grant(fmt.Sprint("person:", i), "viewer")
	}
	s.later(time.Hour)
	s.again(false)
	s.round()
	s.want("log.forked log.stale")
}

func TestFilesThatDoNotVerifyAreToldAndNotJudged(t *testing.T) {
	for name, change := range map[string]func(*scene){
		"checkpoint": func(s *scene) { s.server.files["control/checkpoint"][3] ^= 1 },
		"unwitnessed": func(s *scene) {
			note := s.server.files["control/checkpoint"]
			s.server.files["control/checkpoint"] = note[:bytes.LastIndex(note[:len(note)-1], []byte("\n"))+1]
		},
		"entry": func(s *scene) {
			for path, data := range s.server.files {
				if strings.HasPrefix(path, "control/tile/entries/") {
					data[len(data)-1] ^= 1
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.round()
			s.forge()
			s.later(time.Minute)
			change(s)
			for range 2 {
				if r := s.round(); len(r.Failed) == 0 {
					t.Error("no failure")
				}
			}
			s.want("log.unverified")
			s.later(time.Minute)
			s.round()
			s.want("command.warrant log.unverified-over")
		})
	}
}

func TestALogThatIsNotWitnessedIsToldUntilItIs(t *testing.T) {
	s := newScene(t)
	s.round()
	s.clock = s.clock.Add(5 * time.Minute)
	s.round()
	s.want("")
	s.clock = s.clock.Add(time.Second)
	s.round()
	s.round()
	s.want("log.stale log.stale")
	s.later(time.Second)
	s.round()
	s.want("log.stale-over log.stale-over")

	s.server.lost = true // nobody answers
	s.clock = s.clock.Add(time.Hour)
	if r := s.round(); len(r.Failed) != 2 {
		t.Error(r.Failed)
	}
	s.want("log.stale log.stale")
}

// Checkpoints that are ever new are worth nothing while the entries under them are kept back: who acts by one of those acts unseen.
func TestEntriesThatAreKeptBackAreTold(t *testing.T) {
	s := newScene(t)
	s.round()
	s.forge()
	for minute := range 8 {
		s.later(time.Minute)
		maps.DeleteFunc(s.server.files, func(path string, _ []byte) bool { return strings.HasPrefix(path, "control/tile/entries/") })
		if r := s.round(); len(r.Failed) != 1 {
			t.Fatal(r.Failed)
		}
		if want := map[bool]string{true: "log.withheld"}[minute == 6]; s.sink.rules() != want {
			t.Fatalf("after %d minutes: want %q", minute, want)
		}
	}
	s.later(time.Minute)
	s.round()
	s.want("command.warrant log.withheld-over")
}

// head is a tree head of a log of these entries, signed by key.
func (s *scene) head(log ledger.Log, entries [][]byte, key signer) wire.TreeHead {
	s.t.Helper()
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, _ error) {
		for _, x := range at {
			out = append(out, hashes[x])
		}
		return out, nil
	})
	for i, e := range entries {
		more, err := tlog.StoredHashes(int64(i), e, reader)
		must(s.t, err)
		hashes = append(hashes, more...)
	}
	root, err := tlog.TreeHash(int64(len(entries)), reader)
	must(s.t, err)
	h := wire.TreeHead{Origin: "acme/" + string(log), Size: uint64(len(entries)), Root: root[:]}
	h.Signature, err = key.Sign([]byte(wire.CheckpointText(h.Origin, h.Size, root)))
	must(s.t, err)
	return h
}

// told is an anchored batch in which a device tells what it was shown.
func (s *scene) told(trees ...wire.TreeHead) {
	s.t.Helper()
	s.anchored(wire.LogBatch{Device: deviceID(0), First: 1, Prev: make([]byte, 32), Head: make([]byte, 32), Trees: trees})
}

func (s *scene) anchored(b wire.LogBatch) {
	s.t.Helper()
	payload, err := wire.EncodeLogBatch(b)
	must(s.t, err)
	env, err := wire.Sign1(wire.TypeDeviceLog, payload, s.key("at "+b.Device))
	must(s.t, err)
	s.fact(ledger.Events, ledger.KindDeviceLogAnchored, "device:x", b.Device, env)
}

// A log that shows devices another tree than everybody has signed its own confession, and devices pass it on.
func TestALogThatShowsDevicesAnotherTreeIsTold(t *testing.T) {
	s := newScene(t)
	s.round()
	control, events := s.entries[ledger.Control], s.entries[ledger.Events]
	fork := append(slices.Clone(control[:len(control)-1]), []byte("hidden"))
	for _, c := range []struct {
		name  string
		trees []wire.TreeHead
		rules string
	}{
		{"the same", []wire.TreeHead{s.head("control", control, noteKey(1)), s.head("events", events[:3], noteKey(1))}, ""},
		{"another, as the device alone says", []wire.TreeHead{s.head("control", fork, noteKey(7))}, ""},
		{"of a log nobody knows", []wire.TreeHead{s.head("elsewhere", fork, noteKey(1))}, ""},
		{"another", []wire.TreeHead{s.head("control", fork, noteKey(1))}, "log.faces"},
		{"another of events", []wire.TreeHead{s.head("control", control, noteKey(1)), s.head("events", fork[:2], noteKey(1))}, "log.faces"},
		{"none", nil, ""},
	} {
		s.told(c.trees...)
		s.later(time.Minute)
		s.round()
		if got := s.sink.rules(); got != c.rules {
			t.Errorf("%s: told %q, want %q", c.name, got, c.rules)
		}
	}
}

// A device tells which command it followed. Where the log has another in that place, somebody does not tell the truth.
func TestADeviceThatFollowedAnotherCommandIsTold(t *testing.T) {
	s := newScene(t)
	s.command(wire.ActQuarantine, 1, nil)
	at := uint64(len(s.entries[ledger.Control]) - 1)
	fact, err := wire.DecodeFact(s.entries[ledger.Control][at])
	must(t, err)
	command, err := wire.Parse1(wire.TypeCommand, fact.Data)
	must(t, err)
	digest := sha256.Sum256(command.Payload)
	s.later(time.Minute)
	s.round()
	s.want("")
	for _, c := range []struct {
		name   string
		index  uint64
		digest []byte
		rules  string
	}{
		{"the one that is there", at, digest[:], ""},
		{"another", at, hash("another"), "device.followed"},
		{"where there is none", at - 1, digest[:], "device.followed"},
		{"beyond the log", at + 1000, digest[:], "device.followed"},
	} {
		head := [32]byte{}
		e := wire.LogEvent{Seq: 1, Epoch: 1, Kind: "directive.accepted", Cause: &wire.LogRef{Origin: "acme/control", Index: c.index}, Data: fmt.Appendf(nil, "quarantine by command c, SHA-256 %x", c.digest)}
		after, err := wire.NextLogHead(head, deviceID(0), e)
		must(t, err)
		s.anchored(wire.LogBatch{Device: deviceID(0), First: 1, Last: 1, Prev: head[:], Head: after[:], BootCount: 1, Events: []wire.LogEvent{e}})
		s.later(time.Minute)
		s.round()
		if got := s.sink.rules(); got != c.rules {
			t.Errorf("%s: told %q, want %q", c.name, got, c.rules)
		}
	}
}

// A tree that is larger than the one shown here is waited for, and told of when it does not come.
func TestALogThatShowsDevicesMoreIsTold(t *testing.T) {
	s := newScene(t)
	s.round()
	control := slices.Clone(s.entries[ledger.Control])
	s.grant("person:x", "viewer")
	s.told(s.head("control", s.entries[ledger.Control], noteKey(1)))
	all := s.entries[ledger.Control]
	s.entries[ledger.Control] = control
	for minute := range 8 {
		s.later(time.Minute)
		s.round()
		want := map[int]string{6: "log.withheld", 7: "log.faces log.withheld-over"}[minute]
		if got := s.sink.rules(); got != want {
			t.Fatalf("after %d minutes: %q, want %q", minute, got, want)
		}
	}
	s.entries[ledger.Control] = all
	s.later(time.Minute)
	s.round()
	s.want("")

	// Who looks once, at copies that are perhaps of different times, cannot wait.
	s.entries[ledger.Control] = control
	s.later(time.Minute)
	s.f = s.follower(nil)
	s.f.Now = true
	if r := s.round(); len(r.Failed) > 0 || r.Size["events"] != uint64(len(s.entries[ledger.Events])) {
		t.Errorf("%+v", r)
	}
	s.want("")
}

// A server that answers nothing from the beginning on is told too.
func TestNoLogAtAllIsTold(t *testing.T) {
	s := newScene(t)
	s.server.lost = true
	s.round()
	s.clock = s.clock.Add(6 * time.Minute)
	s.round()
	s.want("log.stale log.stale")
}

func TestARestartRepeatsAndForgetsNothing(t *testing.T) {
	for _, memory := range []bool{true, false} {
		s := newScene(t)
		s.forge()
		s.later(time.Minute)
		s.round()
		must(t, s.f.Close(t.Context()))
		s.want("command.warrant")
		s.again(memory)
		s.round()
		s.want("")
		s.made(deviceID(0), 2, nil) // what was before the restart is known
		s.forge()
		s.later(time.Minute)
		s.round()
		s.want("command.warrant device.twice")
	}
}

// What could not be told is told later, and after a restart perhaps again, under the same name.
func TestAnAlertIsNotLostWhenItCannotBeTold(t *testing.T) {
	s := newScene(t)
	s.round()
	s.forge()
	s.made(deviceID(0), 2, nil)
	s.later(time.Minute)
	s.sink.fail = true
	for range 2 {
		if _, err := s.f.Round(t.Context(), s.clock); err == nil {
			t.Fatal("no error")
		}
	}
	must(t, s.f.Close(t.Context()))
	s.sink.fail = false
	kept := s.sink.state
	s.round()
	first := s.sink.told[0].Alert.ID
	s.want("command.warrant device.twice")
	s.sink.state = kept
	s.again(false)
	s.round()
	if s.sink.told[0].Alert.ID != first {
		t.Error("the same alert has another name")
	}
	s.want("command.warrant device.twice")
}

// An event waits until what it may rest on in the control log can be seen.
func TestAnEventWaitsForTheControlLog(t *testing.T) {
	s := newScene(t)
	s.round()
	control := slices.Clone(s.entries[ledger.Control])
	s.now = s.clock
	s.ordered("ord-2", 2)
	s.seq = 0
	s.made(deviceID(7), 0, nil)
	s.clock = s.clock.Add(time.Minute)
	s.server.publish(ledger.Events, s.entries[ledger.Events], s.clock)
	s.round()
	s.want("")
	s.server.publish(ledger.Control, control, s.now.Add(-time.Second)) // of before it happened
	s.round()
	s.want("")
	s.later(time.Second)
	r := s.round()
	s.want("")
	if r.Size["events"] != uint64(len(s.entries[ledger.Events])) {
		t.Errorf("not judged: %v", r.Size)
	}

	// It does not wait for ever: when the control log was witnessed long after it, what is missing is missing.
	s.orderCA("ord-3", "product")
	s.header.ID = "ord-3"
	s.made(deviceID(8), 0, nil)
	s.later(time.Minute)
	s.round()
	s.want("device.record")
}

func TestOverManyBundles(t *testing.T) {
	s := newScene(t)
	for range 600 {
		s.grant("person:x", "viewer")
	}
	l, err := pki.NewRoot(oem, s.key("evil root"), s.now)
	must(t, err)
	s.fact(ledger.Control, ledger.KindCACreated, "host:init", "root", l.Cert.Raw)
	s.later(20 * time.Minute)
	s.round()
	s.want("ca.unexpected")
}

// Who begins later, with a checkpoint from before, sees what happened between.
func TestAnEarlierCheckpointMustBeContinued(t *testing.T) {
	s := newScene(t)
	kept := s.server.files["control/checkpoint"]
	s.f.Expect(ledger.Control, kept)
	s.later(time.Minute)
	s.round()
	s.want("")
	s.f = s.follower(nil)
	s.f.Expect(ledger.Control, kept)
	s.entries[ledger.Control] = s.entries[ledger.Control][:5]
	s.later(time.Minute)
	s.round()
	s.want("log.smaller")
}
