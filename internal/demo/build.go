package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// binaries are the programs the demo starts.
type binaries struct{ hallmark, station, agent string }

const modulePath = "github.com/hallmark-iot/hallmark"

// build finds the programs beside this one, or builds them from the repository; then the firmware.
func (d *demo) build(ctx context.Context) error {
	d.say("Building")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if d.o.programs != "" {
		self = filepath.Join(d.o.programs, "hallmark")
	}
	d.bin = binaries{hallmark: self}
	for _, p := range []struct {
		to   *string
		name string
	}{{&d.bin.station, "hallmark-station"}, {&d.bin.agent, "hallmark-agent"}} {
		beside := filepath.Join(filepath.Dir(self), p.name)
		if _, err := os.Stat(beside); err == nil {
			*p.to = beside
			continue
		}
		if *p.to, err = d.compile(ctx, "./cmd/"+p.name, "", p.name == "hallmark-station"); err != nil {
			return err
		}
	}
	return d.firmware(ctx)
}

func (d *demo) compile(ctx context.Context, pkg, flags string, cgo bool) (string, error) {
	root, err := repository(ctx, filepath.Dir(d.bin.hallmark))
	if err != nil {
		return "", err
	}
	out := filepath.Join(d.dir, "bin", filepath.Base(pkg)+fmt.Sprintf("-%x", sha256.Sum256([]byte(flags)))[:9])
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+flags, "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = os.Environ()
	_, err = exec.LookPath("cc")
	if !cgo || err != nil {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	_, err = output(cmd)
	return out, err
}

// repository finds the source: in the working directory, or where this program lies.
func repository(ctx context.Context, self string) (string, error) {
	for _, dir := range []string{".", self} {
		cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}")
		cmd.Dir = dir
		out, err := output(cmd)
		if path, root, ok := strings.Cut(strings.TrimSpace(out), " "); err == nil && ok && path == modulePath {
			return root, nil
		}
	}
	return "", fmt.Errorf("the demo builds its firmware from the repository of %s with the go command: run it in a checkout, where Go is installed", modulePath)
}

// The releases of the story.
const (
	v1   = "1.0.0"
	v2   = "1.1.0"
	vBad = "1.2.0"
)

func (d *demo) firmware(ctx context.Context) error {
	if d.o.Firmware != "" {
		for v, path := range map[string]string{v1: d.o.Firmware, v2: d.o.FirmwareNext} {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if len(data) == 0 {
				return fmt.Errorf("%s is empty", path)
			}
			d.images[v] = data
		}
		if string(d.images[v1]) == string(d.images[v2]) {
			return errors.New("--firmware and --firmware-next are the same bytes: then there is nothing to update")
		}
	}
	for v, behaviour := range map[string]string{v1: "good", v2: "good", vBad: "sick"} {
		if d.images[v] != nil {
			continue
		}
		path, err := d.compile(ctx, "./internal/demo/firmware", "-X main.version="+v+" -X main.behaviour="+behaviour, false)
		if err != nil {
			return err
		}
		if d.images[v], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	return nil
}

// own reports whether an image is the demo's own program, which answers on its socket.
func (d *demo) own(version string) bool { return d.o.Firmware == "" || version == vBad }

// executable reports whether an image starts as a program (ELF); other files are installed as data.
func executable(image []byte) bool {
	return strings.HasPrefix(string(image[:min(4, len(image))]), "\x7fELF")
}
