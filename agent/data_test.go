package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/wire"
)

// said is what programs write.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// await waits until the programs have said as much, and gives it.
func (s *said) await(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		all := s.b.String()
		s.mu.Unlock()
		if strings.Contains(all, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the programs said %q, and not %q", all, want)
		}
	}
}

// set publishes a release of assets whose bytes are given.
func (w *world) set(version string, counter uint32, change func(*wire.Component), parts ...part) firmware {
	r := wire.Release{ID: version, Product: product, Hardware: []string{"A"}, Model: wire.ModelAsset, Version: version, Counter: counter, Created: 1}
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p.text))
		c := wire.Component{
			Name: p.name, Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(p.text)), Digest: sum[:], Health: wire.HealthAlive,
			Capabilities: &wire.Capabilities{Read: []string{"/bin", "/etc/ld.so.cache", "/lib", "/lib64", "/usr/bin", "/usr/lib"}, Data: p.data, Channels: p.over},
		}
		if p.kind == wire.KindData {
			c.Kind, c.Health, c.Capabilities = wire.KindData, wire.HealthNone, nil
		}
		if change != nil {
			change(&c)
		}
		w.bytes[string(sum[:])] = []byte(p.text)
		r.Components = append(r.Components, c)
	}
	payload := must(wire.EncodeRelease(r))
	return firmware{rel: r, envelope: threshold(wire.TypeRelease, payload, w.release), digest: wire.ReleaseDigest(payload)}
}

type part struct {
	name string
	kind wire.ComponentKind
	text string
	data []string // that it reads
	over []string // channels
}

func (w *world) fetch(_ context.Context, c wire.Component, from int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(w.bytes[string(c.Digest)][from:])), nil
}

// launched starts a machine that was made with a release, and its programs.
func launched(t *testing.T, w *world, f firmware) (*machine.Machine, *machine.Programs, *said) {
	t.Helper()
	m, err := machine.Start(&born(t, w, f).Board, [32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	out := new(said)
	p, err := m.Launch(launch.Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return m, p, out
}

// switched has a machine go on with another release without a restart.
func switched(t *testing.T, w *world, m *machine.Machine, f firmware) {
	t.Helper()
	if err := m.Stage(t.Context(), f.envelope, w.fetch, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Activate(f.digest); err != nil {
		t.Fatal(err)
	}
	if done, err := m.Switch(); err != nil || !done {
		t.Fatalf("switched: %v, %v", done, err)
	}
}

// A program reads the data that its release names for it, and no other. When that data changes without a restart, who reads it is another process with the new
// bytes; who does not goes on.
func TestAProgramReadsTheDataOfItsRelease(t *testing.T) {
	const sh = "#!/bin/sh\necho %s begins with $LISTEN_FDNAMES: $(cat <&3)\nexec sleep 600\n"
	w := newWorld()
	table := func(text string) []part {
		return []part{
			{"control", wire.KindExec, fmt.Sprintf(sh, "control"), []string{"table"}, nil},
			{"motor", wire.KindExec, "#!/bin/sh\necho motor begins with $LISTEN_FDNAMES.\nexec sleep 600\n", nil, nil},
			{"table", wire.KindData, text, nil, nil},
		}
	}
	v1, v2 := w.set("1.0.0", 1, nil, table("slow\n")...), w.set("2.0.0", 2, nil, table("fast\n")...)
	m, _, out := launched(t, w, v1)
	out.await(t, "control begins with data/table: slow\n")
	out.await(t, "motor begins with .\n")
	switched(t, w, m, v2)
	out.await(t, "control begins with data/table: fast\n")
	if n := strings.Count(out.b.String(), "motor begins"); n != 1 {
		t.Errorf("what reads no data began %d times", n)
	}
}

// Data that is protected is read when its key has come, and until then whoever reads it is not started.
func TestProtectedDataIsReadWhenItsKeyHasCome(t *testing.T) {
	w := newWorld()
	key, id := bytes.Repeat([]byte{7}, wire.ContentKey), bytes.Repeat([]byte{8}, wire.ContentKeyID)
	s := must(wire.NewComponentSealer(strings.NewReader("secret\n"), key, id))
	sealed := string(must(io.ReadAll(s)))
	protected := s.Protected()
	f := w.set("1.0.0", 1, func(c *wire.Component) {
		if c.Kind == wire.KindData {
			c.Protected = &protected
		}
	}, part{"control", wire.KindExec, "#!/bin/sh\necho it reads $(cat <&3)\nexec sleep 600\n", []string{"table"}, nil}, part{"table", wire.KindData, sealed, nil, nil})
	m, _, out := launched(t, w, f)
	if !m.Locked() {
		t.Error("nothing waits for a key")
	}
	to, nonce := must(m.CodeKey()), bytes.Repeat([]byte{1}, 32)
	if err := m.Unlock([]wire.Wrap{must(wire.WrapKey(to, me, nonce, id, key))}, nonce); err != nil {
		t.Fatal(err)
	}
	out.await(t, "it reads secret\n")
}

// Two programs of a release talk. One that is replaced without a restart finds the channel again, and the other, which goes on, is told.
func TestProgramsOfAReleaseTalk(t *testing.T) {
	const hear = "a=$(dd bs=4096 count=1 <&3 2>/dev/null | tr '\\000' '!'); "
	w := newWorld()
	talking := func(motor string) []part {
		return []part{
			{"control", wire.KindExec, "#!/bin/sh\nwhile true; do " + hear + "echo control hears $a; echo done >&4; done\n", nil, []string{"orders"}},
			{"motor", wire.KindExec, "#!/bin/sh\necho " + motor + " >&4; " + hear + "echo motor hears $a\nexec sleep 600\n", nil, []string{"orders"}},
		}
	}
	v1, v2 := w.set("1.0.0", 1, nil, talking("slow")...), w.set("2.0.0", 2, nil, talking("fast")...)
	m, _, out := launched(t, w, v1)
	out.await(t, "control hears slow\n")
	out.await(t, "motor hears done\n")
	switched(t, w, m, v2)
	out.await(t, "control hears !\n")
	out.await(t, "control hears fast\n")
}
