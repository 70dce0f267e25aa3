package agent_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/frame"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/wire"
)

// Who has taken the network's process over says on its sockets what he likes. Here that is a thief, who hands each of them to a brain in the test: the
// process is the test's own file, confined as the network's is, and connects to the one port that it may.

// called, answered, asked and had are what goes over the sockets, as a thief writes it: without the device's code.
type called struct {
	Do      string   `cbor:"1,keyasint"`
	Server  string   `cbor:"2,keyasint,omitempty"`
	Anchors [][]byte `cbor:"3,keyasint,omitempty"`
	Chain   [][]byte `cbor:"4,keyasint,omitempty"`
	Now     int64    `cbor:"5,keyasint,omitempty"`
	Call    string   `cbor:"6,keyasint,omitempty"`
	Body    []byte   `cbor:"7,keyasint,omitempty"`
	Digest  []byte   `cbor:"8,keyasint,omitempty"`
	Offset  int64    `cbor:"9,keyasint,omitempty"`
	Renew   bool     `cbor:"10,keyasint,omitempty"`
	Path    []string `cbor:"11,keyasint,omitempty"`
}

type answered struct {
	Fault string `cbor:"1,keyasint,omitempty"`
	Text  string `cbor:"2,keyasint,omitempty"`
	Code  int    `cbor:"3,keyasint,omitempty"`
	Body  []byte `cbor:"5,keyasint,omitempty"`
	More  bool   `cbor:"8,keyasint,omitempty"`
}

type asked struct {
	Do     string   `cbor:"1,keyasint"`
	As     [32]byte `cbor:"2,keyasint"`
	Digest []byte   `cbor:"3,keyasint,omitempty"`
	Hash   uint     `cbor:"4,keyasint,omitempty"`
	Line   string   `cbor:"5,keyasint,omitempty"`
}

type had struct {
	Fault string `cbor:"1,keyasint,omitempty"`
	Data  []byte `cbor:"2,keyasint,omitempty"`
}

// bePartOfThief is the thief's process, and never returns from it.
func bePartOfThief() {
	is, err := launch.Part("network")
	if !is {
		return
	}
	if err == nil {
		err = beThief()
	}
	_, _ = os.Stderr.WriteString("thief: " + err.Error() + "\n")
	os.Exit(1)
}

func beThief() error {
	file := func(n int) net.Conn {
		return must(net.FileConn(os.NewFile(uintptr(launch.PartFiles+n), "taken")))
	}
	calls, asks := file(0).(*net.UnixConn), file(1)
	first := true
	for {
		one, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := calls.ReadMsgUnix(one, oob)
		if err != nil {
			return err
		}
		fds := must(unix.ParseUnixRights(&must(unix.ParseSocketControlMessage(oob[:n]))[0]))
		f := os.NewFile(uintptr(fds[0]), "call")
		call := must(net.FileConn(f))
		_ = f.Close()
		var q called
		if err := frame.Receive(call, &q, 1<<20); err != nil {
			return err
		}
		brain := func(what string) net.Conn {
			c := must(net.Dial("tcp", must(url.Parse(q.Server)).Host))
			must(c.Write([]byte(what)))
			return c
		}
		if first {
			first = false
			join(asks, brain("A"))
		}
		to := brain("C")
		if err := frame.Send(to, q, 1<<20); err != nil {
			return err
		}
		join(call, to)
	}
}

// join has two connections be one.
func join(a, b net.Conn) {
	pass := func(from, to net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = from.Close(), to.Close()
	}
	go pass(a, b)
	go pass(b, a)
}

// brain is the thief's.
type brain struct {
	t    *testing.T
	s    *server
	port string

	asks chan net.Conn // the socket on which things are asked

	mu sync.Mutex
	do func(q called, conn net.Conn) bool // instead of what the server says; true: it was done
}

func newBrain(t *testing.T, s *server) *brain {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &brain{t: t, s: s, port: l.Addr().String(), asks: make(chan net.Conn, 1)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.take(c)
		}
	}()
	return b
}

func (b *brain) take(c net.Conn) {
	what := make([]byte, 1)
	if _, err := io.ReadFull(c, what); err != nil {
		return
	}
	if what[0] == 'A' {
		select {
		case b.asks <- c:
		default: // that of a process that has ended is there
		}
		return
	}
	defer c.Close()
	var q called
	if err := frame.Receive(c, &q, 1<<20); err != nil {
		return
	}
	b.mu.Lock()
	do := b.do
	b.mu.Unlock()
	if do != nil && do(q, c) {
		return
	}
	_ = frame.Send(c, b.serve(q, c), 1<<20)
}

// serve says what the server says.
func (b *brain) serve(q called, c net.Conn) answered {
	var r *http.Request
	if q.Do == "artifact" {
		r = httptest.NewRequest(http.MethodGet, "/d/v1/artifact/"+hexOf(q.Digest), nil)
	} else {
		r = httptest.NewRequest(http.MethodPost, "/d/v1/"+q.Call, bytes.NewReader(q.Body))
	}
	rec := httptest.NewRecorder()
	b.s.ServeHTTP(rec, r)
	if rec.Code >= 300 {
		return answered{Fault: "status", Code: rec.Code, Text: rec.Body.String()}
	}
	if q.Do == "artifact" {
		_ = frame.Send(c, answered{Body: rec.Body.Bytes()[q.Offset:], More: true}, 1<<20)
		return answered{}
	}
	return answered{Body: rec.Body.Bytes()}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, x := range b {
		out.WriteByte(digits[x>>4])
		out.WriteByte(digits[x&15])
	}
	return out.String()
}

// ask has the trusted side do something, or say why not.
func (b *brain) ask(a asked) (h had) {
	to := <-b.asks
	defer func() { b.asks <- to }()
	if err := errors.Join(frame.Send(to, a, 1<<20), frame.Receive(to, &h, 1<<20)); err != nil {
		return had{Fault: "hung up: " + err.Error()}
	}
	return h
}

// instead has do answer the calls.
func (b *brain) instead(do func(q called, conn net.Conn) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.do = do
}

// taken is a device whose network's process is the thief's.
func taken(t *testing.T) (*world, *device, *brain) {
	t.Helper()
	w := newWorld()
	d := newDevice(t, w, born(t, w, w.publish("2.0.0", 2)))
	b := newBrain(t, d.s)
	d.network = line.Open(line.Options{
		Server: "https://" + b.port, Dir: t.TempDir(), Device: me, Self: "/proc/self/exe", Output: os.Stderr, Logger: slog.New(slog.DiscardHandler),
	})
	d.url = "https://" + b.port
	t.Cleanup(d.network.Close)
	return w, d, b
}

// Whatever a thief of the network's process says to the device, it runs what it ran, believes whom it believed, keeps what it kept; and what is
// good still comes through afterwards.
func TestWhoTakesTheNetworkOverCommandsNothing(t *testing.T) {
	w, d, b := taken(t)
	mine := newWorld() // keys of his own
	old := w.publish("1.0.0", 1)
	evil := mine.publish("6.6.6", 3)
	w.bytes[string(evil.rel.Components[0].Digest)] = mine.bytes[string(evil.rel.Components[0].Digest)]
	for _, c := range []struct {
		name, code string
		thief      *world
		tell       *command
	}{
		{"a release that nobody signed", "signature", mine, mine.command(wire.ActInstall, func(c *command) { c.release = &evil })},
		{"a release below the counter", "security-counter", nil, w.command(wire.ActInstall, func(c *command) { c.release = &old })},
		{"a wipe without a warrant", "warrant-missing", nil, w.command(wire.ActWipe, func(c *command) { c.warrant = 0 })},
		{"a wipe by his own warrant", "warrant-missing", mine, mine.command(wire.ActWipe, nil)},
		{"his own trust bundle", "signature", mine, mine.command(wire.ActBundle, nil)},
		{"a configuration of his", "signature", mine, mine.command(wire.ActConfigure, nil)},
	} {
		d.s.mu.Lock()
		d.s.thief = c.thief
		d.s.mu.Unlock()
		got := d.told(t, c.tell)
		if len(got) == 0 || got[0].Outcome != wire.OutcomeRefused || got[0].Code != c.code {
			t.Errorf("%s: %+v, want %s", c.name, got, c.code)
		}
	}
	if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 2 {
		t.Errorf("security counter %d, %v", n, err)
	}
	if last := d.runs[len(d.runs)-1].version; last != "2.0.0" || len(d.prog.configured) != 0 || d.s.last.Bundle != 1 {
		t.Errorf("it runs %s, was configured %d times, believes bundle %d", last, len(d.prog.configured), d.s.last.Bundle)
	}
	d.s.mu.Lock()
	d.s.thief = nil
	d.s.mu.Unlock()
	next := w.publish("3.0.0", 3)
	if got := d.told(t, w.command(wire.ActInstall, func(c *command) { c.release = &next })); len(got) != 1 || got[0].Outcome != wire.OutcomeDone {
		t.Fatalf("what is good: %+v", got)
	}
	if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 3 {
		t.Errorf("security counter %d, %v", n, err)
	}
	b.instead(nil)
}

// The thief affirms no trial: not with words, not with a signature of his own, not with the verdict on other evidence. What was on trial is given up, and no
// counter rises.
func TestWhoTakesTheNetworkOverAffirmsNothing(t *testing.T) {
	w, d, b := taken(t)
	mine := newWorld()
	next := w.publish("3.0.0", 3)
	var old []byte
	said := 0
	b.instead(func(q called, conn net.Conn) bool {
		if q.Call != "attest" {
			return false
		}
		reply := wire.AttestReply{Status: "affirming"}
		switch said++; said % 3 {
		case 1:
			reply.Signed = mine.judged(q.Body, "affirming")
		case 2:
			if old == nil {
				old = w.judged([]byte("evidence of another time"), "affirming")
			}
			reply.Signed = old
		}
		_ = frame.Send(conn, answered{Body: must(wire.EncodeAttestReply(reply))}, 1<<20)
		return true
	})
	d.trial = 8 * time.Second
	got := d.told(t, w.command(wire.ActInstall, func(c *command) { c.release = &next }))
	if len(got) != 1 || got[0].Outcome != wire.OutcomeFailed || got[0].Code != "trial-timeout" || said < 3 {
		t.Errorf("%+v after %d verdicts", got, said)
	}
	if n, err := d.board.Fuses.SecurityCounter(); err != nil || n != 2 {
		t.Errorf("security counter %d, %v", n, err)
	}
	if last := d.runs[len(d.runs)-1].version; last != "2.0.0" {
		t.Errorf("it runs %s", last)
	}
}

// A delivery that was good once is none the second time: the thief kept it.
func TestWhoTakesTheNetworkOverRepeatsNothing(t *testing.T) {
	w, d, b := taken(t)
	var kept []byte
	b.instead(func(q called, conn net.Conn) bool {
		if q.Call != "checkin" {
			return false
		}
		r := b.serve(q, conn)
		reply, err := wire.DecodeCheckinReply(r.Body)
		if err != nil {
			return false
		}
		if len(reply.Delivery) > 0 {
			kept = reply.Delivery
		} else if kept != nil {
			reply.Delivery = kept
			r.Body = must(wire.EncodeCheckinReply(reply))
		}
		_ = frame.Send(conn, r, 1<<20)
		return true
	})
	if got := d.told(t, w.command(wire.ActConfigure, nil)); len(got) == 0 || got[0].Outcome != wire.OutcomeDone {
		t.Fatalf("%+v", got)
	}
	times := len(d.prog.configured)
	d.lives(t, 2)
	refused := 0
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	for _, r := range d.s.results {
		if r.Outcome == wire.OutcomeRefused {
			refused++
		}
	}
	if refused == 0 || len(d.prog.configured) > times+1 { // once more at the start, from what it keeps
		t.Errorf("refused %d times, configured %d times after %d", refused, len(d.prog.configured), times)
	}
}

// The thief has signatures of the key of his call, of digests, a few; and of nothing else, in no other way, at no other time.
func TestWhoTakesTheNetworkOverSignsNothingElse(t *testing.T) {
	_, d, b := taken(t)
	digest := sha256.Sum256([]byte("evidence of a release that does not run"))
	attest := must(d.board.Keys.Signer(hw.KeyAttest)).Public().(*ecdsa.PublicKey)
	identity := must(d.board.Keys.Signer(hw.KeyIDevID)).Public().(*ecdsa.PublicKey)
	done := make(chan struct{})
	var as [32]byte
	b.instead(func(q called, _ net.Conn) bool {
		if q.Call != "checkin" {
			return false
		}
		b.instead(nil)
		defer close(done)
		as = sha256.Sum256(q.Chain[0])
		leaf := must(x509.ParseCertificate(q.Chain[0]))
		for name, a := range map[string]asked{
			"another's":           {Do: "sign", As: digest, Digest: digest[:], Hash: uint(crypto.SHA256)},
			"no digest":           {Do: "sign", As: as, Digest: []byte("any words at all"), Hash: uint(crypto.SHA256)},
			"without a hash":      {Do: "sign", As: as, Digest: digest[:]},
			"a request":           {Do: "request", As: as},
			"the attestation key": {Do: "sign attest", As: as, Digest: digest[:], Hash: uint(crypto.SHA256)},
			"read a parameter":    {Do: "params", As: as},
			"the unique secret":   {Do: "secret", As: as},
			"destroy a key":       {Do: "destroy", As: as, Line: hw.KeyIDevID},
		} {
			if h := b.ask(a); h.Fault == "" || len(h.Data) > 0 {
				t.Errorf("%s: %+v", name, h)
			}
		}
		got := 0
		for range 20 {
			h := b.ask(asked{Do: "sign", As: as, Digest: digest[:], Hash: uint(crypto.SHA256)})
			if h.Fault != "" {
				break
			}
			got++
			if !ecdsa.VerifyASN1(leaf.PublicKey.(*ecdsa.PublicKey), digest[:], h.Data) {
				t.Error("it is signed by another key than the call's")
			}
			if ecdsa.VerifyASN1(attest, digest[:], h.Data) || ecdsa.VerifyASN1(identity, digest[:], h.Data) {
				t.Error("it is signed by the key of evidence, or the factory's")
			}
		}
		if got > 8 {
			t.Errorf("%d signatures for a call", got)
		}
		return false
	})
	d.lives(t, 3)
	<-done
	if h := b.ask(asked{Do: "sign", As: as, Digest: digest[:], Hash: uint(crypto.SHA256)}); h.Fault == "" {
		t.Error("it signs while no call is under way")
	}
}

// What is no answer ends the process, and the device goes on with the next: no words of the thief's are anything but a line that does not work.
func TestWhoTakesTheNetworkOverStopsNothing(t *testing.T) {
	_, d, b := taken(t)
	junk := [][]byte{{}, {0xff, 0xff, 0xff, 0xff}, append(binary.BigEndian.AppendUint32(nil, 7), "garbage"...)} // more is FuzzTaken's, in agent/line
	said := 0
	b.instead(func(q called, conn net.Conn) bool {
		if q.Call != "checkin" || said == len(junk) {
			return false
		}
		_, _ = conn.Write(junk[said])
		said++
		return true
	})
	d.lives(t, 1)
	if starts := d.network.State().Starts; said != len(junk) || starts < 2 {
		t.Errorf("%d of %d said, %d starts", said, len(junk), starts)
	}
	if len(d.runs) != 1 {
		t.Errorf("the device itself started %d times", len(d.runs))
	}
}

// Without an answer to what keeps it alive, a process that hangs is ended; one that ends again and again is a device that does not say that it lives.
func TestANetworkThatDiesIsStartedAgain(t *testing.T) {
	_, d, _ := taken(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		s := d.network.State()
		if err := unix.Kill(s.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for d.network.State().Starts == s.Starts {
			if ctx.Err() != nil {
				t.Fatal("it is not started again")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	d.lives(t, 1)
}
