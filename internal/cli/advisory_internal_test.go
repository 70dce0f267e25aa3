package cli

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnArchiveOfAdvisoriesIsReadAsOne(t *testing.T) {
	archive := func(files ...string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "all.zip"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		z := zip.NewWriter(f)
		for i := 0; i < len(files); i += 2 {
			w, err := z.Create(files[i])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, files[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		return f
	}
	plain := archive()
	if _, err := plain.WriteString(`{"id":"A"}{"id":"B"}`); err != nil {
		t.Fatal(err)
	}
	if err := plain.Truncate(20); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		f    *os.File
		want string // of what is read, or of the error
	}{
		"plain":             {plain, `{"id":"A"}{"id":"B"}`},
		"an archive":        {archive("GO-1.json", `{"id":"A"}`, "folder/GO-2.json", `{"id":"B"}`), `{"id":"A"}{"id":"B"}`},
		"something else":    {archive("GO-1.json", `{"id":"A"}`, "../run.sh", "rm"), "no advisory: want JSON files only"},
		"a bomb":            {archive("GO-1.json", strings.Repeat(" ", 20<<20)), "larger than an advisory is"},
		"a damaged archive": {cutShort(t, archive("GO-1.json", `{"id":"A"}`)), "zip:"},
	} {
		r, err := advisoriesIn(c.f)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if err != nil {
			got = []byte(err.Error())
		}
		if !strings.Contains(string(got), c.want) || strings.Contains(c.want, "{") != (err == nil) {
			t.Errorf("%s: %.100s, want %s", name, got, c.want)
		}
	}
}

func cutShort(t *testing.T, f *os.File) *os.File {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(st.Size() - 10); err != nil {
		t.Fatal(err)
	}
	return f
}
