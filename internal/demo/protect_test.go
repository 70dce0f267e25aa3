package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// A maker whose programs are protected: made in a factory that never has a key, started in the field after good evidence, updated over a power cut. Its
// bytes are on no disk but the maker's own, and a device that is marked as stolen starts nothing any more.
func TestProtectedProgramsRunOnGenuineDevicesAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	d := plan(Options{Devices: 3, Out: io.Discard, programs: programs(t), protect: true})
	d.dir = t.TempDir()
	t.Cleanup(d.stopAll)
	for _, chapter := range []func(context.Context) error{d.build, d.instance, d.firstRelease, d.produce, d.field, d.update} {
		if err := chapter(t.Context()); err != nil {
			logs, _ := os.ReadFile(filepath.Join(d.dir, "server.log"))
			t.Fatalf("%v\n%s\n%s", err, logs[max(0, len(logs)-4000):], tail(filepath.Join(d.agents[0].dir, "agent.log")))
		}
	}
	a := d.agents[1]
	if n := d.facts(t, ledger.KindCodeKeysGiven, a.id); n < 2 {
		t.Errorf("%d times keys were given to a device that started two releases", n)
	}
	d.nowherePlain(t)

	a.run.stop(os.Kill)
	if _, err := d.people["sam"].Mark(t.Context(), a.id, true, "gone from the van"); err != nil {
		t.Fatal(err)
	}
	given := d.facts(t, ledger.KindCodeKeysGiven, a.id)
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	var saw string
	if ok, _ := wait(t.Context(), time.Minute, func() (bool, string) {
		saw = tail(filepath.Join(a.dir, "agent.log"))
		return strings.Contains(saw, "no keys for protected programs"), ""
	}); !ok {
		t.Errorf("a stolen device was not refused: %s", saw)
	}
	if v, err := d.seen(t.Context(), a.id); err != nil || v.Device.Health == "healthy" {
		t.Errorf("a stolen device runs its program: %s", tell(v, err))
	}
	if ok, _ := wait(t.Context(), time.Minute, func() (bool, string) {
		v, err := d.seen(t.Context(), a.id)
		saw = tell(v, err)
		return err == nil && strings.Contains(v.Device.HealthText, "what is protected has no key: ") && strings.Contains(v.Device.HealthText, "marked as stolen"), ""
	}); !ok {
		t.Errorf("nobody is told why: %s", saw)
	}
	if n := d.facts(t, ledger.KindCodeKeysGiven, a.id); n != given {
		t.Errorf("a stolen device was given keys %d times", n-given)
	}
}

// facts counts those of a kind about a subject.
func (d *demo) facts(t *testing.T, kind ledger.Kind, subject string) (n int) {
	t.Helper()
	x, err := d.breakIn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = x.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = $1 AND subject = $2`, string(kind), subject).Scan(&n)
	if err2 := x.db.Close(); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return n
}

// nowherePlain searches all that server, station and devices have on their disks for the programs' bytes.
func (d *demo) nowherePlain(t *testing.T) {
	t.Helper()
	agent, err := os.ReadFile(d.bin.agent) // it lies there as the boot manager that is kept; and what one compiler makes is alike in parts
	if err != nil {
		t.Fatal(err)
	}
	var marks [][]byte
	for _, v := range []string{v1, v2} {
		for part := range 9 { // of the code, where no two bytes in a row are the same too often
			at := len(d.images[v]) * (part + 2) / 15
			if mark := d.images[v][at : at+256]; !bytes.Contains(agent, mark) {
				marks = append(marks, slices.Clone(mark))
			}
		}
	}
	if len(marks) < 6 {
		t.Fatalf("only %d places tell a program from the agent", len(marks))
	}
	looked := int64(0)
	look := func(what, dir string) {
		if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			looked += int64(len(b))
			for i, m := range marks {
				if bytes.Contains(b, m) {
					return fmt.Errorf("%s has bytes of a program in the clear (%d)", path, i)
				}
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	look("the server", d.layout.Dir)
	look("the station", d.station.dir)
	for _, a := range d.agents {
		look("a device", a.dir)
	}
	if looked < int64(len(d.images[v1]))*3 {
		t.Errorf("only %d bytes were looked at", looked)
	}
}
