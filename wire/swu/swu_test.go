package swu_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire/swu"
)

func sources(files map[string][]byte) []swu.Source {
	var out []swu.Source
	for name, b := range files {
		out = append(out, swu.Source{Name: name, ReadSeeker: bytes.NewReader(b)})
	}
	return out
}

func signed([]byte) ([]byte, error) { return []byte("a signature"), nil }

func image(name, device string) swu.Image {
	return swu.Image{Filename: name, Device: device, Type: "raw", Directly: true}
}

func written(t testing.TB, d swu.Description, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := swu.Write(&b, d, signed, sources(files)...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var twoBanks = swu.Description{
	Version: "1.2.0", Hardware: []string{"1.0"},
	Stable: map[string]swu.OneMode{"a": {[]swu.Image{image("root.img", "/dev/a")}}, "b": {[]swu.Image{image("root.img", "/dev/b")}}},
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := map[string][]byte{}
		d := swu.Description{Version: "1.2.0", Hardware: []string{"1.0", "1.1"}}
		for range rapid.IntRange(1, 5).Draw(t, "files") {
			name := rapid.StringMatching(`[a-z][a-z0-9.]{0,12}`).Draw(t, "name")
			if files[name] == nil && name != "sw-description" {
				files[name] = rapid.SliceOfN(rapid.Byte(), 1, 700).Draw(t, "bytes")
				d.Images = append(d.Images, image(name, "/dev/"+name))
			}
		}
		var b bytes.Buffer
		if err := swu.Write(&b, d, signed, sources(files)...); err != nil {
			t.Fatal(err)
		}
		u, err := swu.Read(&b)
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Files) != len(files) || string(u.Signature) != "a signature" {
			t.Fatalf("%d files, signature %q", len(u.Files), u.Signature)
		}
		for _, f := range u.Files {
			if f.Digest != sha256.Sum256(files[f.Name]) || f.Size != uint64(len(files[f.Name])) {
				t.Fatalf("file %s is another", f.Name)
			}
		}
	})
}

// Whatever bit of it is turned, and wherever it is cut, it is not taken for the same update: what the description and the files say stays, or it is refused.
func TestNoByteIsAltered(t *testing.T) {
	data := written(t, twoBanks, map[string][]byte{"root.img": []byte(strings.Repeat("root file system ", 9))})
	want, err := swu.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if u, err := swu.Read(bytes.NewReader(bad)); err == nil && (!bytes.Equal(u.Signed, want.Signed) || u.Files[0] != want.Files[0]) {
			t.Fatalf("byte %d altered, and read as something else", i)
		}
		if _, err := swu.Read(bytes.NewReader(data[:i])); err == nil {
			t.Fatalf("read when it ends after %d bytes", i)
		}
	}
	if _, err := swu.Read(bytes.NewReader(append(bytes.Clone(data), 0, 0, 1))); err == nil {
		t.Error("read with something behind it")
	}
	if _, err := swu.Read(bytes.NewReader(append(bytes.Clone(data), make([]byte, 400)...))); err != nil {
		t.Errorf("with the zeros that fill a block: %v", err)
	}
}

func TestWhatIsNotWritten(t *testing.T) {
	files := map[string][]byte{"root.img": []byte("x")}
	for what, d := range map[string]swu.Description{
		"no version":      {Hardware: []string{"1"}, Images: []swu.Image{image("root.img", "/dev/a")}},
		"no hardware":     {Version: "1", Images: []swu.Image{image("root.img", "/dev/a")}},
		"no image":        {Version: "1", Hardware: []string{"1"}},
		"no device":       {Version: "1", Hardware: []string{"1"}, Images: []swu.Image{image("root.img", "")}},
		"another file":    {Version: "1", Hardware: []string{"1"}, Images: []swu.Image{image("boot.img", "/dev/a")}},
		"a path":          {Version: "1", Hardware: []string{"1"}, Images: []swu.Image{image("../root.img", "/dev/a")}},
		"its own name":    {Version: "1", Hardware: []string{"1"}, Images: []swu.Image{image("sw-description", "/dev/a")}},
		"both with modes": {Version: "1", Hardware: []string{"1"}, Images: twoBanks.Stable["a"].Images, Stable: twoBanks.Stable},
		"a script":        {Version: "1", Hardware: []string{"1"}, Images: []swu.Image{{Filename: "root.img", Device: "/dev/a", Type: "shellscript"}}},
	} {
		if err := swu.Write(&bytes.Buffer{}, d, signed, sources(files)...); err == nil {
			t.Errorf("%s was written", what)
		}
	}
	broken := errors.New("the token is gone")
	if err := swu.Write(&bytes.Buffer{}, twoBanks, func([]byte) ([]byte, error) { return nil, broken }, sources(files)...); !errors.Is(err, broken) {
		t.Errorf("without a signature: %v", err)
	}
}

// What SWUpdate would understand and we would not is refused, not passed over.
func TestADescriptionThatSaysMore(t *testing.T) {
	data := written(t, twoBanks, map[string][]byte{"root.img": []byte("x")})
	u, err := swu.Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"a script":             {`"stable"`, `"scripts":[],"stable"`},
		"another case":         {`"version"`, `"Version"`},
		"said twice":           {`"version":"1.2.0"`, `"version":"9.9.9","version":"1.2.0"`},
		"libconfig":            {`{"software":`, `software = `},
		"something behind":     {`}}}`, `}}} {}`},
		"a blank":              {`"version":`, `"version": `},
		"another handler":      {`"raw"`, `"ubivol"`},
		"digest left out":      {`"sha256"`, `"sha512"`},
		"a device of its own ": {`/dev/a`, ``},
	} {
		desc := strings.Replace(string(u.Signed), change[0], change[1], 1)
		if desc == string(u.Signed) {
			t.Fatalf("%s changed nothing", what)
		}
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", `printf '%s' "$1" >sw-description; printf x >root.img; printf 'sw-description\nroot.img\n' | cpio -o -H crc --quiet`, "sh", desc)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := swu.Read(bytes.NewReader(out)); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	// as it is, cpio's own archive of it is read: it has no signature
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", `printf '%s' "$1" >sw-description; printf x >root.img; printf 'sw-description\nroot.img\n' | cpio -o -H crc --quiet`, "sh", string(u.Signed))
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if u, err := swu.Read(bytes.NewReader(out)); err != nil || len(u.Signature) != 0 {
		t.Errorf("cpio's archive: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(written(f, twoBanks, map[string][]byte{"root.img": []byte("root")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := swu.Read(bytes.NewReader(data))
		if err == nil && (len(u.Files) == 0 || len(u.Signed) == 0) {
			t.Fatal("an update of nothing")
		}
	})
}
