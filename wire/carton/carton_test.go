package carton_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

func sum(s string) []byte {
	d := sha256.Sum256([]byte(s))
	return d[:]
}

func logged(s string) wire.Logged {
	return wire.Logged{Entry: []byte(s), Proof: wire.Proof{Path: [][]byte{}, Cosignatures: []wire.Cosignature{}}}
}

func head() carton.Head {
	return carton.Head{
		V: 1, Product: "pump", Release: logged("release"), Commands: []wire.Logged{logged("one"), logged("two")},
		Devices: []carton.Device{
			{ID: "a", Directive: []byte("for a"), Member: wire.Membership{Path: [][]byte{}}},
			{ID: "c", Directive: []byte("for c"), Command: 1, Member: wire.Membership{Path: [][]byte{}}},
		},
		Blobs: []carton.Blob{{Digest: sum("first"), Size: 5}, {Digest: sum("second one"), Size: 10}},
		Steps: []wire.BundleStep{{Envelope: []byte("two")}, {Envelope: []byte("three")}}, From: 2, Newest: &wire.NewestBundle{Version: 3, Logged: logged("three")},
	}
}

func whole(t testing.TB) []byte {
	t.Helper()
	b, err := carton.Encode(head())
	if err != nil {
		t.Fatal(err)
	}
	return append(b, "firstsecond one"...)
}

func read(b []byte) (*carton.Carton, error) { return carton.Read(bytes.NewReader(b), int64(len(b))) }

func TestACartonGivesWhatWasPutIn(t *testing.T) {
	c, err := read(whole(t))
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := c.For("c"); !ok || string(d.Directive) != "for c" || string(c.Commands[d.Command].Entry) != "two" {
		t.Fatalf("for c: %+v, %v", d, ok)
	}
	if _, ok := c.For("b"); ok {
		t.Error("there is something for a device that is not in it")
	}
	for offset, want := range []string{"second one", "econd one", "cond one"} {
		got, err := io.ReadAll(c.Open(sum("second one"), int64(offset)))
		if err != nil || string(got) != want {
			t.Errorf("from %d: %q, %v", offset, got, err)
		}
	}
	if err := c.Verify(); err != nil {
		t.Error(err)
	}
	other := whole(t)
	other[len(other)-1] ^= 1
	if c, err := read(other); err != nil || c.Verify() == nil || !strings.Contains(c.Verify().Error(), "blob 2 of 2 has other bytes") {
		t.Errorf("with a byte changed: %v", err)
	}
	if c.Open(sum("third"), 0) != nil || c.Open(sum("first"), 6) != nil || c.Open(sum("first"), -1) != nil {
		t.Error("bytes that are not in it were given")
	}
}

// TestWhatIsNoCarton changes one thing of a head; the file is whole otherwise.
func TestWhatIsNoCarton(t *testing.T) {
	for name, change := range map[string]func(h *carton.Head){
		"another version":     func(h *carton.Head) { h.V = 2 },
		"no product":          func(h *carton.Head) { h.Product = "" },
		"no device":           func(h *carton.Head) { h.Devices = nil },
		"too many devices":    func(h *carton.Head) { h.Devices = make([]carton.Device, carton.MaxDevices+1) },
		"devices that fall":   func(h *carton.Head) { h.Devices[0], h.Devices[1] = h.Devices[1], h.Devices[0] },
		"a device twice":      func(h *carton.Head) { h.Devices[1].ID = "a" },
		"no directive":        func(h *carton.Head) { h.Devices[0].Directive = nil },
		"another's command":   func(h *carton.Head) { h.Devices[0].Command = 2 },
		"no command":          func(h *carton.Head) { h.Commands = nil },
		"no blob":             func(h *carton.Head) { h.Blobs = nil },
		"a blob twice":        func(h *carton.Head) { h.Blobs[1] = h.Blobs[0] },
		"a blob of nothing":   func(h *carton.Head) { h.Blobs[0].Size = 0 },
		"a blob without end":  func(h *carton.Head) { h.Blobs[0].Size = 1 << 63 },
		"a short digest":      func(h *carton.Head) { h.Blobs[0].Digest = []byte{1} },
		"steps without end":   func(h *carton.Head) { h.Newest = nil },
		"steps from nowhere":  func(h *carton.Head) { h.From = 0 },
		"steps to elsewhere":  func(h *carton.Head) { h.Newest.Version = 9 },
		"steps that overflow": func(h *carton.Head) { h.From = 1<<64 - 1 },
		"too many steps":      func(h *carton.Head) { h.Steps = make([]wire.BundleStep, carton.MaxSteps+1) },
	} {
		h := head()
		change(&h)
		if b, err := carton.Encode(h); !errors.Is(err, carton.ErrFormat) {
			t.Errorf("%s: encoded to %d bytes, %v", name, len(b), err)
		}
	}
	good := whole(t)
	for n := range good {
		if _, err := read(good[:n]); !errors.Is(err, carton.ErrFormat) {
			t.Fatalf("cut after %d of %d bytes: %v", n, len(good), err)
		}
	}
	if _, err := read(append(bytes.Clone(good), 0)); !errors.Is(err, carton.ErrFormat) || !strings.Contains(err.Error(), "copy it again") {
		t.Errorf("with a byte more: %v", err)
	}
}

// TestNoMutationOfAHeadPasses: of a head that was changed anywhere nothing is taken but another well-made one. What it says then proves itself, or does not, to the device.
func TestNoMutationOfAHeadPasses(t *testing.T) {
	rng, good := rand.New(rand.NewPCG(1, 2)), whole(t)
	end := len(good) - len("firstsecond one")
	for range 100_000 {
		b := bytes.Clone(good)
		for range 1 + rng.IntN(4) {
			b[rng.IntN(end)] ^= byte(1 + rng.IntN(255))
		}
		c, err := read(b)
		if err != nil {
			continue
		}
		again, err := carton.Encode(c.Head)
		if err != nil || !bytes.Equal(again, b[:end]) {
			t.Fatalf("taken, and not what it says: %x, %v", b[:end], err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(whole(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := carton.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if again, err := carton.Encode(c.Head); err != nil || !bytes.HasPrefix(data, again) {
			t.Errorf("another encoding: %v", err)
		}
	})
}

func history() carton.History {
	return carton.History{V: 1, Device: "a", At: 5, Directive: []byte("d"), Checkin: []byte("c"), Evidence: []byte("e"), Log: [][]byte{[]byte("l")}}
}

func TestTheNonceOfAHistoryHoldsWhatTheDeviceSays(t *testing.T) {
	was := history().Nonce()
	for name, change := range map[string]func(h *carton.History){
		"device":    func(h *carton.History) { h.Device = "b" },
		"time":      func(h *carton.History) { h.At++ },
		"directive": func(h *carton.History) { h.Directive = []byte("x") },
		"check-in":  func(h *carton.History) { h.Checkin = []byte("x") },
		"no log":    func(h *carton.History) { h.Log = nil },
		"batches":   func(h *carton.History) { h.Log = append(h.Log, []byte("m")) },
		"their cut": func(h *carton.History) { h.Log = [][]byte{[]byte("l"), {}} },
		"a border":  func(h *carton.History) { h.Directive, h.Checkin = []byte("dc"), []byte{} },
	} {
		h := history()
		if change(&h); h.Nonce() == was {
			t.Errorf("%s: the same nonce", name)
		}
	}
}

func FuzzDecodeHistory(f *testing.F) {
	b, err := carton.EncodeHistory(history())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := carton.DecodeHistory(data)
		if err != nil {
			return
		}
		if again, err := carton.EncodeHistory(h); err != nil || !bytes.Equal(again, data) {
			t.Errorf("another encoding: %v", err)
		}
	})
}

// Who writes another program that makes or checks histories has these to compare with; they were computed by another.
func TestTheNonceOfAHistoryIsAsItSays(t *testing.T) {
	h := carton.History{Device: strings.Repeat("ab", 16), At: 1_900_000_000, Directive: []byte("directive"), Checkin: []byte("check-in")}
	for want, log := range map[string][][]byte{
		"932e50d9dd008fb432a162d42c819455638d4fb424a2e6cdab0f4ec1ca4fe03f": nil,
		"6e674e17643f16a6e21419a3834a86b0c3d8ed8ed8ddb905716401412938aa81": {[]byte("one"), []byte("two")},
	} {
		h.Log = log
		if got := fmt.Sprintf("%x", h.Nonce()); got != want {
			t.Errorf("%d batches: %s, want %s", len(log), got, want)
		}
	}
}
