package store_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger/devicelog"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// carrying has the world's registry take in what is carried.
func (r *roll) carrying() { r.carryingFrom(r.db.Devices()) }

func (r *roll) carryingFrom(registry device.Registry) {
	r.t.Helper()
	clock := func() time.Time { return r.now }
	judge, err := attest.NewService(attest.Config{Store: r.db.Attest(), Guard: r.guard, References: r.db.Releases(), Now: clock, Policy: func(context.Context, string) (attest.Policy, error) {
		return attest.Policy{AllowVirtual: true, Suites: []string{"HM-P256-1"}}, nil
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	dev := r.db.Devices()
	if r.devices, err = device.NewService(device.Config{
		Registry: registry, Reports: dev, Commands: dev, Trust: dev, Groups: dev, Forgetter: dev, Guard: r.guard, Ledger: r.ledger, Releases: r.releases, Bundles: dev, Records: dev,
		Authorities: func() []crypto.Signer { return []crypto.Signer{r.authority} }, Now: clock,
		Evidence: judge, Journal: devicelog.NewService(r.db, r.ledger, r.guard),
	}); err != nil {
		r.t.Fatal(err)
	}
	r.svc, r.store = rollouts(r.stages)
	r.ledger.witnessed = true
}

func (r *roll) pack(of device.CartonOf) (carton.Head, string) {
	h, _, err := r.devices.Carton(r.t.Context(), person("op"), r.new.Digest, of)
	return h, codeOf(err)
}

// begun is a world with three devices, of which two are told by a rollout that may be carried.
func begun(t *testing.T) *roll {
	r := newRoll(t, 3)
	r.carrying()
	spec := ofOne("mine", r.new, rollout.Selection{IDs: []string{devN(0), devN(1)}})
	spec.Alone = true
	spec.Waves[0].Contact = 3600
	r.begin(spec)
	r.tick(time.Second)
	return r
}

func names(h carton.Head) (ids []string) {
	for _, d := range h.Devices {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestACartonIsForWhomARolloutToldThatMayBeCarried(t *testing.T) {
	r := newRoll(t, 3)
	r.carrying()
	if _, code := r.pack(device.CartonOf{}); code != "carton.nobody" {
		t.Errorf("for nobody: %q", code)
	}
	r.begin(ofOne("line", r.new, rollout.Selection{IDs: []string{devN(2)}}))
	r.tick(time.Second)
	if _, code := r.pack(device.CartonOf{}); code != "carton.nobody" {
		t.Errorf("for a rollout over the line: %q", code)
	}
	r = begun(t)
	last := map[string]uint64{}
	for i, of := range []device.CartonOf{{}, {Devices: []string{devN(1)}}, {Devices: []string{devN(0), devN(2)}}} {
		h, code := r.pack(of)
		want := [][]string{{devN(0), devN(1)}, {devN(1)}, {devN(0)}}[i]
		if code != "" || !slices.Equal(names(h), want) || len(h.Blobs) != 1 || h.Blobs[0].Size != r.new.Manifest.Components[0].Size {
			t.Fatalf("%+v: %q, %q, %+v", of, code, names(h), h.Blobs)
		}
		for _, d := range h.Devices {
			o := offline(t, r, d)
			if o.Device != d.ID || o.Counter <= last[d.ID] || o.Expires > uint64(r.now.Unix())+wire.MaxOffline {
				t.Errorf("%s is told %+v, and %d before", d.ID, o, last[d.ID])
			}
			last[d.ID] = o.Counter
		}
	}
	if _, code := r.pack(device.CartonOf{Group: "elsewhere"}); code != "carton.nobody" {
		t.Errorf("for a group that has none of them: %q", code)
	}
	if _, err := r.releases.Close(t.Context(), person("proposer"), r.new.Digest, "a flaw"); err != nil {
		t.Fatal(err)
	}
	if h, code := r.pack(device.CartonOf{}); code == "" {
		t.Errorf("of a release that is closed: %+v", h)
	}
}

func offline(t testing.TB, r *roll, d carton.Device) wire.OfflineDirective {
	t.Helper()
	o, err := wire.DecodeOfflineDirective(must(wire.Verify1(wire.TypeOffline, d.Directive, r.authority.Public()))(t))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A device that would not read such a command is not given it.
func TestACommandThatMayBeCarriedGoesToWhoKnowsIt(t *testing.T) {
	r := begun(t)
	for _, knows := range [][]string{nil, {wire.KnowsCarton}} {
		d, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0))
		if err != nil {
			t.Fatal(err)
		}
		r.boots[devN(0)]++
		reply, err := r.devices.Checkin(t.Context(), access.DeviceCaller(devN(0)), devN(0), wire.Checkin{
			Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: r.boots[devN(0)], Healthy: true, Bundle: 1, Release: r.old.Digest[:], Version: "1.0.0", Counter: d.Counter, Knows: knows,
		})
		if err != nil || (reply.Delivery != nil) != (knows != nil) {
			t.Errorf("who knows %q is given %d bytes, %v", knows, len(reply.Delivery), err)
		}
	}
}

func TestARolloutThatMayBeCarriedHasNoSoakAndNoHours(t *testing.T) {
	r := newRoll(t, 1)
	spec := ofOne("mine", r.new, rollout.Selection{IDs: []string{devN(0)}})
	spec.Alone, spec.Waves[0].Soak = true, 5
	if _, err := r.svc.Create(t.Context(), person("op"), spec); codeOf(err) != "rollout.alone" {
		t.Error(err)
	}
}

// tells makes a history of a device that installed what it was told by d; change spoils what it says before it is bound together, and after.
func (r *roll) tells(d carton.Device, boots uint64, events int, before, after func(h *carton.History)) []byte {
	t := r.t
	t.Helper()
	o, key := offline(t, r, d), r.keys[d.ID]
	sum := sha256.Sum256(d.Directive)
	h := carton.History{V: 1, Device: d.ID, At: uint64(r.now.Unix()), Directive: d.Directive, Checkin: must(wire.EncodeCheckin(wire.Checkin{
		Nonce: sum[:], State: "active", BootCount: boots, Healthy: true, Bundle: 1, Release: r.new.Digest[:], Version: "1.1.0", Counter: o.Counter,
		Results: []wire.Result{{Command: o.Command, Act: wire.ActInstall, Outcome: wire.OutcomeDone, At: uint64(r.now.Unix()), Seq: 1}},
	}))(t)}
	head := wire.LogOrigin(d.ID, spki(t, key))
	b := wire.LogBatch{Device: d.ID, First: 1, Prev: bytes.Clone(head[:]), BootCount: boots, Sent: h.At}
	for i := range events {
		e := wire.LogEvent{Seq: uint64(i + 1), Epoch: 1, At: h.At, Kind: "boot"}
		b.Events = append(b.Events, e)
		head = must(wire.NextLogHead(head, d.ID, e))(t)
	}
	b.Last, b.Head = uint64(events), head[:]
	h.Log = [][]byte{must(wire.Sign1(wire.TypeDeviceLog, must(wire.EncodeLogBatch(b))(t), key))(t)}
	if before != nil {
		before(&h)
	}
	nonce := h.Nonce()
	h.Evidence = must(wire.Sign1(wire.TypeEvidence, must(wire.EncodeEvidence(wire.Evidence{
		Nonce: nonce[:], InstanceID: must(wire.InstanceID(key.Public()))(t), Profile: wire.PSAProfile, ClientID: 1, Lifecycle: wire.LifecycleSecured, Implementation: make([]byte, 32),
		Components: []wire.Measured{{Type: "App", Value: r.new.Manifest.Components[0].Digest, SignerID: make([]byte, 32)}}, Device: d.ID, Virtual: true, Hardware: "A", DebugLocked: true,
		BootCount: boots, Counter: 1, LogHead: head[:], LogSeq: uint64(events), Bundle: 1, BootSeed: make([]byte, 32),
	}))(t), key))(t)
	if after != nil {
		after(&h)
	}
	return must(carton.EncodeHistory(h))(t)
}

// What a device did alone counts as if it had said it, as of when it did; once, whatever the order of its files.
func TestAHistoryCountsOnce(t *testing.T) {
	r := begun(t)
	h, _ := r.pack(device.CartonOf{Devices: []string{devN(0)}})
	packed := r.now
	r.now = r.now.Add(10 * time.Minute)
	first := r.tells(h.Devices[0], 5, 2, nil, nil)
	said := r.now
	r.now = r.now.Add(10 * time.Minute)
	second := r.tells(h.Devices[0], 6, 3, nil, nil)
	r.now = r.now.Add(10 * time.Minute)
	take := func(data []byte) device.Taken {
		t.Helper()
		taken, err := r.devices.TakeHistory(t.Context(), person("op"), data)
		if err != nil {
			t.Fatal(err)
		}
		return taken
	}
	if got := take(first); got.Known || !got.At.Equal(said.Truncate(time.Second)) || got.Log != 2 || got.Behind != 0 {
		t.Errorf("%+v, said at %s", got, said)
	}
	d, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0))
	if err != nil || d.Twin.Version != "1.1.0" || !d.Twin.Carried.Equal(d.LastSeen) || !d.LastSeen.Equal(said.Truncate(time.Second)) || d.Twin.Suspect != "" {
		t.Errorf("%+v, %v", d, err)
	}
	v, err := r.db.Attest().Verdict(t.Context(), devN(0))
	if err != nil || !v.At.Equal(said.Truncate(time.Second)) || v.At.Before(packed.Truncate(time.Second)) {
		t.Errorf("verdict %+v, %v", v, err)
	}
	before := count(t, r.db)
	if got := take(first); !got.Known || count(t, r.db) != before {
		t.Errorf("the same again: %+v", got)
	}
	r.tick(time.Second)
	if c := r.counts("mine"); c.Devices != 2 || c.Waiting != 1 { // it is judged, by evidence that is no board's; the other is waited for
		t.Errorf("the rollout counts %+v", c)
	}
	if got := take(second); got.Known || got.Behind != 1 { // its one batch begins before what is here, and goes beyond: it is not cut there
		t.Errorf("a later one, whose log is not cut where this one ended: %+v", got)
	}
	if got := take(first); !got.Known {
		t.Errorf("the first again: %+v", got)
	}
}

// A carton says how far the log of a device is here, once something of it is: the device's next history goes on from there.
func TestACartonSaysHowFarALogIs(t *testing.T) {
	r := begun(t)
	of := device.CartonOf{Devices: []string{devN(1)}}
	h, _ := r.pack(of)
	if h.Devices[0].Log != nil {
		t.Errorf("of a log that nothing is known of: %+v", h.Devices[0].Log)
	}
	r.now = r.now.Add(10 * time.Minute)
	waits := r.tells(h.Devices[0], 5, 2, func(h *carton.History) {
		in := must(wire.DecodeCheckin(h.Checkin))(t)
		in.Results, in.Release, in.Version = nil, r.old.Digest[:], "1.0.0"
		h.Checkin = must(wire.EncodeCheckin(in))(t)
	}, nil)
	if taken, err := r.devices.TakeHistory(t.Context(), person("op"), waits); err != nil || taken.Log != 2 {
		t.Fatalf("%+v, %v", taken, err)
	}
	h, code := r.pack(of)
	if code != "" || h.Devices[0].Log == nil {
		t.Fatalf("%q, %+v", code, h.Devices)
	}
	f, err := wire.DecodeFact(h.Devices[0].Log.Entry)
	if last := must(wire.DecodeLogBatch(must(wire.Verify1(wire.TypeDeviceLog, f.Data, r.keys[devN(1)].Public()))(t)))(t).Last; err != nil || last != 2 {
		t.Errorf("to event %d, %v", last, err)
	}
}

// Nothing of a history is taken that is not the device's, whole, and of after the carton.
func TestWhatIsNoHistoryOfTheDevice(t *testing.T) {
	r := begun(t)
	h, _ := r.pack(device.CartonOf{})
	mine, other := h.Devices[0], h.Devices[1]
	r.now = r.now.Add(time.Minute)
	line := must(wire.Sign1(wire.TypeDirective, []byte{0}, r.authority))(t)
	before := count(t, r.db)
	for name, data := range map[string][]byte{
		"nothing":                           nil,
		"junk":                              []byte("junk"),
		"another check-in than was proven":  r.tells(mine, 5, 2, nil, func(h *carton.History) { h.Checkin = append(bytes.Clone(h.Checkin[:len(h.Checkin)-1]), 2) }),
		"another time than was proven":      r.tells(mine, 5, 2, nil, func(h *carton.History) { h.At++ }),
		"without its log":                   r.tells(mine, 5, 2, nil, func(h *carton.History) { h.Log = nil }),
		"another directive than was proven": r.tells(mine, 5, 2, nil, func(h *carton.History) { h.Directive = other.Directive }),
		"another's directive":               r.tells(mine, 5, 2, func(h *carton.History) { h.Directive = other.Directive }, nil),
		"a directive of nobody":             r.tells(mine, 5, 2, func(h *carton.History) { h.Directive = []byte{1} }, nil),
		"a directive of a line":             r.tells(mine, 5, 2, func(h *carton.History) { h.Directive = line }, nil),
		"another's name":                    r.tells(mine, 5, 2, nil, func(h *carton.History) { h.Device = other.ID }),
		"another's evidence": r.tells(mine, 5, 2, nil, func(h *carton.History) {
			d, _ := carton.DecodeHistory(r.tells(other, 5, 2, nil, nil))
			h.Evidence = d.Evidence
		}),
		"no check-in": r.tells(mine, 5, 2, func(h *carton.History) { h.Checkin = []byte{0xa0} }, nil),
	} {
		if got, err := r.devices.TakeHistory(t.Context(), person("op"), data); err == nil || count(t, r.db) != before {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := r.devices.TakeHistory(t.Context(), access.Caller{ID: "person:nobody", Kind: access.Person}, r.tells(mine, 5, 2, nil, nil)); err == nil {
		t.Error("somebody who may not brings one")
	}
	// The clock of a device is believed between the carton and now.
	got, err := r.devices.TakeHistory(t.Context(), person("op"), r.tells(mine, 5, 2, func(h *carton.History) { h.At = 1 << 50 }, nil))
	if err != nil || !got.At.Equal(r.now) {
		t.Errorf("of the future: %+v, %v", got, err)
	}
	got, err = r.devices.TakeHistory(t.Context(), person("op"), r.tells(other, 5, 2, func(h *carton.History) { h.At = 5 }, nil))
	if err != nil || !got.At.Equal(r.now.Add(-time.Minute).Truncate(time.Second)) {
		t.Errorf("of long ago: %+v, %v", got, err)
	}
}

// How many cartons a device is named in says nothing of how often it refused: a refusal that may pass stays one.
func TestCartonsAreNoAttempts(t *testing.T) {
	r := begun(t)
	var h carton.Head
	for range device.MaxAttempts {
		h, _ = r.pack(device.CartonOf{}) // for all
	}
	r.now = r.now.Add(10 * time.Minute)
	said := r.tells(h.Devices[0], 5, 2, func(h *carton.History) {
		in := must(wire.DecodeCheckin(h.Checkin))(t)
		in.Release, in.Version = r.old.Digest[:], "1.0.0"
		in.Results[0].Outcome, in.Results[0].Code = wire.OutcomeRefused, "expired"
		h.Checkin = must(wire.EncodeCheckin(in))(t)
	}, nil)
	if _, err := r.devices.TakeHistory(t.Context(), person("op"), said); err != nil {
		t.Fatal(err)
	}
	if _, code := r.pack(device.CartonOf{Devices: []string{devN(0)}}); code != "" {
		t.Errorf("another carton, after one was too old: %q", code)
	}
	r.tick(time.Second)
	if c := r.counts("mine"); c.Failed != 0 || c.Waiting != 2 {
		t.Errorf("the rollout counts %+v", c)
	}
}

// Couriers are trusted for nothing: whatever the order in which they bring files, and whatever has come over a line meanwhile, a true device is no clone.
func TestAnOlderHistoryAccusesNobody(t *testing.T) {
	for _, how := range []string{"after a line", "after a later one without its log", "after a later one of the same start"} {
		t.Run(how, func(t *testing.T) {
			r := begun(t)
			h, _ := r.pack(device.CartonOf{Devices: []string{devN(0)}})
			r.now = r.now.Add(10 * time.Minute)
			first := r.tells(h.Devices[0], 5, 2, nil, nil)
			r.now = r.now.Add(10 * time.Minute)
			switch how {
			case "after a line":
				if _, err := r.devices.Checkin(t.Context(), access.DeviceCaller(devN(0)), devN(0), wire.Checkin{
					Nonce: bytes.Repeat([]byte{9}, 32), State: "active", BootCount: 6, Healthy: true, Bundle: 1, Release: r.new.Digest[:], Version: "1.1.0", Counter: offline(t, r, h.Devices[0]).Counter,
				}); err != nil {
					t.Fatal(err)
				}
			case "after a later one without its log":
				second := r.tells(h.Devices[0], 6, 3, func(h *carton.History) { h.Log = nil }, nil)
				if got, err := r.devices.TakeHistory(t.Context(), person("op"), second); err != nil || got.Known || got.Behind != 3 {
					t.Fatalf("%+v, %v", got, err)
				}
			default:
				second := r.tells(h.Devices[0], 5, 3, func(h *carton.History) {
					in := must(wire.DecodeCheckin(h.Checkin))(t)
					in.Version, h.Log = "1.1.0-later", nil
					h.Checkin = must(wire.EncodeCheckin(in))(t)
				}, nil)
				if _, err := r.devices.TakeHistory(t.Context(), person("op"), second); err != nil {
					t.Fatal(err)
				}
			}
			before, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0))
			if err != nil {
				t.Fatal(err)
			}
			r.now = r.now.Add(10 * time.Minute)
			got, err := r.devices.TakeHistory(t.Context(), person("op"), first)
			if err != nil || !got.Known || got.Log != 2 || got.Behind != 0 {
				t.Errorf("the older one: %+v, %v", got, err)
			}
			d, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0))
			if err != nil || !reflect.DeepEqual(d, before) {
				t.Errorf("it changed %+v to %+v, %v", before, d, err)
			}
			if d.Twin.Suspect != "" {
				t.Errorf("suspected: %s", d.Twin.Suspect)
			}
		})
	}
}

// What a device said before it was handed on is not the new owner's to have: its settings were the seller's.
func TestAHistoryOfTheSellerBringsNothingButTheLog(t *testing.T) {
	r := begun(t)
	h, _ := r.pack(device.CartonOf{Devices: []string{devN(0)}})
	r.now = r.now.Add(10 * time.Minute)
	said := r.tells(h.Devices[0], 5, 2, func(h *carton.History) {
		in := must(wire.DecodeCheckin(h.Checkin))(t)
		in.Reported = []wire.ConfigEntry{{Name: "wifi.ssid", Value: "sellers-home"}}
		h.Checkin = must(wire.EncodeCheckin(in))(t)
	}, nil)
	r.now = r.now.Add(10 * time.Minute)
	if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE device SET owned_since = $1 WHERE id = $2`, store.Millis(r.now), devN(0))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	before, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0))
	if err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(10 * time.Minute)
	if got, err := r.devices.TakeHistory(t.Context(), person("op"), said); err != nil || !got.Known || got.Log != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if d, err := r.devices.Get(t.Context(), access.Internal("test"), devN(0)); err != nil || !reflect.DeepEqual(d, before) {
		t.Errorf("it changed %+v to %+v, %v", before, d, err)
	}
}

// readsCounted is a registry that counts how often each device is read.
type readsCounted struct {
	device.Registry
	reads map[string]int
}

func (c readsCounted) Device(ctx context.Context, id string) (device.Device, error) {
	c.reads[id]++
	return c.Registry.Device(ctx, id)
}

// Of a rollout of many, who exports for a few reads those alone.
func TestACartonForAFewReadsNoOther(t *testing.T) {
	r := begun(t)
	c := readsCounted{r.db.Devices(), map[string]int{}}
	r.carryingFrom(c)
	h, code := r.pack(device.CartonOf{Devices: []string{devN(1)}})
	if code != "" || !slices.Equal(names(h), []string{devN(1)}) {
		t.Fatalf("%q, %q", code, names(h))
	}
	if c.reads[devN(0)] != 0 || c.reads[devN(1)] == 0 {
		t.Errorf("read: %v", c.reads)
	}
}
