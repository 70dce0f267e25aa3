package launch

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/wire"
)

func channelFor(t *testing.T, name string) *Channel {
	t.Helper()
	c, err := NewChannel(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// hold takes an end as a program does.
func hold(t *testing.T, c *Channel, end int) (from, to *os.File) {
	t.Helper()
	given, err := c.Give(end)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range given {
		t.Cleanup(func() { g.File.Close() })
	}
	return given[0].File, given[1].File
}

func sends(t *testing.T, to *os.File, text string) {
	t.Helper()
	if _, err := to.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func hears(t *testing.T, from *os.File, want string) {
	t.Helper()
	b := make([]byte, MaxPacket)
	if n, err := from.Read(b); err != nil || string(b[:n]) != want {
		t.Fatalf("it hears %q, %v, want %q", b[:n], err, want)
	}
}

// What is said comes in the packets in which it was said. When one end begins anew, nothing that was said is left, and the other is told.
func TestAChannelOutlivesItsPrograms(t *testing.T) {
	c := channelFor(t, "orders")
	aFrom, aTo := hold(t, c, 0)
	bFrom, bTo := hold(t, c, 1)
	sends(t, aTo, "open")
	sends(t, aTo, "close")
	hears(t, bFrom, "open")
	hears(t, bFrom, "close")
	for range 10 {
		sends(t, aTo, "void")
		sends(t, bTo, "void")
	}
	bFrom.Close()
	bTo.Close()
	bFrom, bTo = hold(t, c, 1)
	hears(t, aFrom, string(Anew))
	sends(t, aTo, "again")
	hears(t, bFrom, "again")
	sends(t, bTo, "here")
	hears(t, aFrom, "here")
}

// One end that reads nothing keeps nobody from beginning anew, and a pipe that is full of what it did not read is empty then.
func TestAnEndThatReadsNothingHoldsNobodyUp(t *testing.T) {
	c := channelFor(t, "orders")
	aFrom, _ := hold(t, c, 0)
	_, bTo := hold(t, c, 1)
	size, err := unix.FcntlInt(bTo.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range size / MaxPacket { // as many packets as it holds
		sends(t, bTo, strings.Repeat("x", MaxPacket))
	}
	hold(t, c, 1)
	hears(t, aFrom, string(Anew))
}

// Two programs talk: one begins, the other answers. A program that has no channel has nothing of it.
func TestProgramsTalk(t *testing.T) {
	c := channelFor(t, "orders")
	said := new(buffer)
	var running []*Process
	for end, script := range []string{"echo open >&4; a=$(dd bs=4096 count=1 <&3 2>/dev/null); echo the first has heard $a; exec sleep 600", "a=$(dd bs=4096 count=1 <&3 2>/dev/null); echo done $a >&4; echo the second is $LISTEN_FDNAMES; exec sleep 600"} {
		code, comp := component(t, "/bin/sh", wire.HealthAlive, "-c", script)
		o := options(t)
		o.Output = said
		given, err := c.Give(end)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Start(bytes.NewReader(code), comp, o, given...)
		for _, g := range given {
			g.File.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, p)
		t.Cleanup(p.Stop)
	}
	for end := time.Now().Add(2 * time.Minute); !strings.Contains(said.String(), "the first has heard done open\n") || !strings.Contains(said.String(), "the second is from/orders:to/orders\n"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("they said %q", said)
		}
	}
	if running[0].Ended() || running[1].Ended() {
		t.Error("one has ended")
	}
}
