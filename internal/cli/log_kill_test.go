package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// old makes an instance, and gives its directory after a life of so many facts, with the database of before.
func old(t *testing.T, facts int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "d")
	run(t, "init", "--dir", dir, "--kdf-iterations", "1000", "--api", "127.0.0.1:0", "--devices", "127.0.0.1:0")
	before, err := os.ReadFile(filepath.Join(dir, "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range facts {
		run(t, "recover", "--dir", dir, fmt.Sprintf("person:p%d", i))
	}
	serveOnce(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "hallmark.db"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a command in this process.
func run(t *testing.T, args ...string) string {
	t.Helper()
	t.Setenv("HALLMARK_PASSPHRASE", "pass")
	code, out, errOut := hallmark(args...)
	if code != 0 {
		t.Fatalf("%v: %d\n%s%s", args, code, out, errOut)
	}
	return out
}

// program runs a command in a process of its own, which a failpoint may end.
func program(t *testing.T, failpoint string, args ...string) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "hallmark", args...)
	cmd.Env = append(os.Environ(), "HALLMARK_PASSPHRASE=pass", "HALLMARK_FAILPOINTS="+failpoint)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v: %v\n%s", args, err, said.String())
	}
	return err != nil
}

func serveOnce(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "hallmark", "serve", "--dir", dir)
	cmd.Env = append(os.Environ(), "HALLMARK_PASSPHRASE=pass")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	_, err = out.Read(one)
	if err := errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
}

// Killed at every named place, as often as it comes by there, a replay goes on and ends whole; and so does a mirror.
func TestAKilledReplayGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	source := old(t, 260)
	for _, point := range []string{"store.before-commit", "store.after-commit", "sequence.placed", "replay.applied", "recover.bundle"} {
		dir := filepath.Join(t.TempDir(), "d")
		if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		kills := 0
		for n := 1; program(t, fmt.Sprintf("%s=%d", point, n), "log", "recover", "--dir", dir, "--apply"); kills++ {
			if kills > 20 {
				t.Fatalf("%s: no end", point)
			}
			n = kills + 2
		}
		if kills == 0 {
			t.Errorf("%s: never came by", point)
		}
		serveOnce(t, dir)
		run(t, "log", "verify", "--dir", dir, "--since", filepath.Join(source, "log", "control", "checkpoint"))
	}
	to := t.TempDir()
	for _, point := range []string{"mirror.bundle", "mirror.copied", "mirror.checkpoint"} {
		if !program(t, point+"=1", "log", "mirror", "--from", source, "--to", to, "--trust", filepath.Join(source, "log", "trust.json")) {
			t.Errorf("%s: never came by", point)
		}
	}
	program(t, "", "log", "mirror", "--from", source, "--to", to, "--trust", filepath.Join(source, "log", "trust.json"))
	run(t, "log", "verify", "--dir", to)
}

// Every flipped bit of what a replay reads stops it before anything is changed, and the file is named.
func TestAReplayOfDamagedFilesChangesNothing(t *testing.T) {
	source := old(t, 20)
	database, err := os.ReadFile(filepath.Join(source, "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile(filepath.Join(source, "log", "control", "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	files, size := 0, strings.Split(string(note), "\n")[1]
	err = filepath.WalkDir(filepath.Join(source, "log", "control"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "checkpoint" && d.Name() != size { // what was the edge before is read no more
			return err
		}
		files++
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, at := range []int{0, 1, len(good) / 3, len(good) / 2, len(good) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				return err
			}
			code, out, errOut := hallmark("log", "recover", "--dir", source, "--apply")
			rel, _ := filepath.Rel(filepath.Join(source, "log", "control"), path)
			if code != 1 || !strings.Contains(errOut, filepath.ToSlash(rel)) {
				t.Errorf("%s: byte %d: %d %s%s", rel, at, code, out, errOut)
			}
		}
		return os.WriteFile(path, good, 0o600)
	})
	if err != nil || files < 3 {
		t.Fatalf("%d files, %v", files, err)
	}
	now, err := os.ReadFile(filepath.Join(source, "hallmark.db"))
	if err != nil || !bytes.Equal(now, database) {
		t.Errorf("the database was changed: %v", err)
	}
}
