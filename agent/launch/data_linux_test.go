package launch

import (
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func dataComponent(name, text string) wire.Component {
	sum := sha256.Sum256([]byte(text))
	return wire.Component{Name: name, Kind: wire.KindData, Version: "1.0.0", Size: uint64(len(text)), Digest: sum[:], Health: wire.HealthNone}
}

func dataFor(t *testing.T, name, text string) *Data {
	t.Helper()
	d, err := NewData(strings.NewReader(text), dataComponent(name, text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// Two programs read the same data, each from its beginning, behind the descriptor that its environment names; it is still there when nobody else has it.
func TestProgramsReadData(t *testing.T) {
	d := dataFor(t, "table", "one\ntwo\n")
	code, c := component(t, "/bin/sh", wire.HealthAlive, "-c", "read a <&4; read b <&4; echo $LISTEN_FDS $LISTEN_FDNAMES $a $b")
	for name := range 2 {
		said := new(buffer)
		o := options(t)
		o.Output = said
		var given []Given
		for range 2 {
			g, err := d.Give()
			if err != nil {
				t.Fatal(err)
			}
			given = append(given, g)
		}
		if name == 1 {
			d.Close()
		}
		p, err := Start(bytes.NewReader(code), c, o, given...)
		for _, g := range given {
			g.File.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		<-p.done
		if want := "2 data/table:data/table one two\n"; said.String() != want {
			t.Errorf("program %d says %q, want %q", name, said, want)
		}
	}
}

// Bytes that are not those that were signed are given to nobody.
func TestOtherBytesAreNoData(t *testing.T) {
	c := dataComponent("table", "what it reads")
	for _, text := range []string{"what it read!", "what it read", "what it reads!", ""} {
		c := c
		from := io.Reader(strings.NewReader(text))
		if len(text) > int(c.Size) {
			c.Size++
		}
		if d, err := NewData(from, c); err == nil {
			t.Errorf("%q is taken: %v", text, d.Close())
		}
	}
}
