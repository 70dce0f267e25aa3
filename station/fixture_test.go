package station

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodFixture = `{"places": ["a", "b"], "hardware": "A", "timeout": "30s",
	"flash": {"size": 4194304, "erase": 4096, "slots": 2, "slot_size": 1048576},
	"area": {"address": 134217728, "size": 65536}, "components": {"app": {"address": 134283264, "size": 1048576}},
	"next": ["p", "{place}"], "identify": ["p", "{place}"], "erase": ["p", "{place}"], "write": ["p", "{place}", "program {file} {address}"],
	"read": ["p", "{place}", "{file}", "{address}", "{size}"], "fuses": ["p", "{place}"], "fuse": ["p", "{place}", "{fuse}={value}"],
	"lock": ["p", "{place}"], "locked": ["p", "{place}"]}`

// A fixture's file is wrong in one way at a time.
func TestWhatIsNoFixture(t *testing.T) {
	f, err := DecodeFixture([]byte(goodFixture))
	if err != nil || f.timeout.String() != "30s" || f.Scratch != "/dev/shm" {
		t.Fatalf("%+v, %v", f, err)
	}
	for name, change := range map[string][3]string{
		"an unknown member":               {`"hardware"`, `"hardwear"`, "unknown field"},
		"no place":                        {`["a", "b"]`, `[]`, "0 places"},
		"a place twice":                   {`["a", "b"]`, `["a", "a"]`, "each place once"},
		"a place that is an option":       {`["a", "b"]`, `["--yes"]`, "place"},
		"a place with a space":            {`["a", "b"]`, `["a b"]`, "place"},
		"a timeout that is none":          {`"30s"`, `"30"`, "timeout"},
		"a timeout that is past":          {`"30s"`, `"-1s"`, "timeout"},
		"no component":                    {`{"app": {"address": 134283264, "size": 1048576}}`, `{}`, "0 components"},
		"a component on the area":         {`134283264`, `134217729`, "lies on"},
		"a component larger than a flash": {`"size": 1048576}}`, `"size": 9999999}}`, "in a flash of"},
		"an area at the end of the world": {`134217728`, `18446744073709551615`, "in a flash of"},
		"an area that is too large":       {`"size": 65536`, `"size": 1000000`, "area"},
		"a command that is missing":       {`"lock": ["p", "{place}"], `, ``, "command lock"},
		"a program that is a placeholder": {`"lock": ["p"`, `"lock": ["{place}"`, "command lock"},
		"no file to write":                {`program {file} {address}`, `program {address}`, "{file}"},
		"a word that nothing is put for":  {`program {file} {address}`, `program {file} {address} {adress}`, "{adress}"},
		"a word of another command":       {`"{fuse}={value}"`, `"{fuse}={value}", "{file}"`, "{file}"},
		"a command without its place":     {`"lock": ["p", "{place}"]`, `"lock": ["p", "x"]`, "{place}"},
		"something behind it":             {`"locked": ["p", "{place}"]}`, `"locked": ["p", "{place}"]}{}`, "behind its end"},
	} {
		text := strings.Replace(goodFixture, change[0], change[1], 1)
		if _, err := DecodeFixture([]byte(text)); text == goodFixture || err == nil || !strings.Contains(err.Error(), change[2]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys of devices are handed over in memory: a fixture that would write them to a disk is not taken.
func TestAFixtureHandsKeysOverInMemory(t *testing.T) {
	dir := t.TempDir()
	if inMemory(dir) == nil {
		dir = "/proc" // where temporary files are in memory
	}
	path := filepath.Join(t.TempDir(), "fixture.json")
	for name, c := range map[string]struct {
		with string
		ok   bool
	}{
		"by default":                  {``, inMemory("/dev/shm") == nil},
		"on a disk":                   {`"scratch": "` + dir + `", `, false},
		"nowhere":                     {`"scratch": "/none/there", `, false},
		"on a disk, of no real piece": {`"virtual": true, "scratch": "` + dir + `", `, true},
	} {
		if err := os.WriteFile(path, []byte(strings.Replace(goodFixture, "{", "{"+c.with, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadFixture(path)
		if c.ok != (err == nil) || !c.ok && !strings.Contains(err.Error(), "tmpfs") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeFixture(f *testing.F) {
	f.Add([]byte(goodFixture))
	f.Add([]byte(`{}`))
	f.Add([]byte(strings.ReplaceAll(goodFixture, "{", "{{")))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeFixture(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeFixture(again); err != nil && len(again) <= maxFixture {
			t.Errorf("%s: taken, and not when it is written again: %v", b, err)
		}
	})
}

// A command has to say what it was asked, once, and nothing else that is for us.
func TestWhatACommandMaySay(t *testing.T) {
	for out, ok := range map[string]bool{
		"Open On-Chip Debugger\nhallmark: uid=00ff lifecycle=0x1000\nshutdown\n": true,
		"hallmark: uid=00ff\r\nhallmark: lifecycle=4096\r\n":                     true,
		"": false, "uid=00ff lifecycle=1\n": false, "hallmark: uid=00ff\n": false,
		"hallmark: uid=00ff uid=00ff lifecycle=1\n":                      false,
		"hallmark: uid=00ff lifecycle=1\nhallmark: uid=00fe\n":           false,
		"hallmark: uid=00ff lifecycle=1 more=1\n":                        false,
		"hallmark: uid=00ff lifecycle\n":                                 false,
		" hallmark: uid=00ff lifecycle=1\n":                              false,
		"hallmark: error: target halted\nhallmark: uid=00ff lifecycle=1": false,
	} {
		s, err := parseSaid([]byte(out), "uid", "lifecycle")
		if (err == nil) != ok {
			t.Errorf("%q: %v, %v", out, s, err)
		}
	}
	if _, err := parseSaid([]byte("hallmark: debug=open\n")); err == nil {
		t.Error("an answer that nobody asked for was taken")
	}
	s := said{"a": "0x10", "b": "-1", "c": "1_0", "d": "4294967296", "e": "", "f": "00FF", "g": "0", "h": "00ff"}
	if n, err := s.number("a"); err != nil || n != 16 {
		t.Error(n, err)
	}
	for _, k := range []string{"b", "c", "d", "e", "f"} {
		if n, err := s.number(k); err == nil {
			t.Errorf("%q is %d", s[k], n)
		}
	}
	for _, k := range []string{"a", "e", "f", "g"} {
		if b, err := s.bytes(k, 2, 4); err == nil {
			t.Errorf("%q is %x", s[k], b)
		}
	}
	if b, err := s.bytes("h", 2, 4); err != nil || len(b) != 2 {
		t.Error(b, err)
	}
}

func FuzzParseSaid(f *testing.F) {
	f.Add([]byte("hallmark: uid=00ff lifecycle=1\n"))
	f.Add([]byte("x\nhallmark: uid=\nhallmark: lifecycle==\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSaid(b, "uid", "lifecycle"); err == nil && (len(s) != 2 || strings.ContainsAny(s["uid"], " \n\r")) {
			t.Errorf("%q: %q", b, s)
		}
	})
}
