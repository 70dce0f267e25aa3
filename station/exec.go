package station

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxSaid bounds what a command may write.
const maxSaid = 1 << 20

// said is what a command said, by key.
type said map[string]string

// saying is the head of the lines that are for us.
const saying = "hallmark:"

// parseSaid reads a command's output. It has said each of keys once, and nothing else.
func parseSaid(out []byte, keys ...string) (said, error) {
	s := said{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\r\n")
		rest, ours := strings.CutPrefix(line, saying)
		if !ours {
			continue
		}
		for w := range strings.FieldsSeq(rest) {
			k, v, ok := strings.Cut(w, "=")
			if _, twice := s[k]; !ok || twice {
				return nil, fmt.Errorf("it said %.100q: want each of %v once, as KEY=VALUE", line, keys)
			}
			s[k] = v
		}
	}
	for _, k := range keys {
		if _, there := s[k]; !there || len(s) != len(keys) {
			return nil, fmt.Errorf("it said %d things: want each of %v once, on lines that begin with %q", len(s), keys, saying)
		}
	}
	if len(keys) == 0 && len(s) > 0 {
		return nil, errors.New("it said something, and was not asked")
	}
	return s, nil
}

// number reads a number, decimal or with 0x.
func (s said) number(key string) (uint32, error) {
	n, err := strconv.ParseUint(s[key], 0, 32)
	if err != nil || strings.ContainsAny(s[key], "_+-") {
		return 0, fmt.Errorf("%s=%.40q is no number", key, s[key])
	}
	return uint32(n), nil
}

// bytes reads lower-case hex of least to most bytes.
func (s said) bytes(key string, least, most int) ([]byte, error) {
	b, err := hex.DecodeString(s[key])
	if err != nil || len(b) < least || len(b) > most || hex.EncodeToString(b) != s[key] {
		return nil, fmt.Errorf("%s=%.80q: want %d to %d bytes of lower-case hex", key, s[key], least, most)
	}
	return b, nil
}

// bounded keeps the first bytes of what is written, and tells whether there were more.
type bounded struct {
	bytes.Buffer
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxSaid {
		b.over = true
		return len(p), nil // it is not cut off by a full pipe: what it does to the chip goes on
	}
	return b.Buffer.Write(p)
}

// command runs one of the fixture's commands. With a limit it is ended, with all that it started, when its time is over or ctx is.
func command(ctx context.Context, argv []string, limit time.Duration, with ...string) ([]byte, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	args, r := make([]string, len(argv)-1), strings.NewReplacer(with...)
	for i, a := range argv[1:] {
		args[i] = r.Replace(a)
	}
	cmd := exec.CommandContext(ctx, argv[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = stopWait
	out := &bounded{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("%s did not end within %s", argv[0], limit)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %q", argv[0], err, tail(out.Bytes()))
	case out.over:
		return nil, fmt.Errorf("%s wrote more than %d bytes", argv[0], maxSaid)
	}
	return out.Bytes(), nil
}

// tail is the end of what a command wrote, where the reason is.
func tail(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return bytes.ToValidUTF8(b[max(0, len(b)-200):], nil)
}

// handover makes the directory in which files go to and from a probe's commands. What is in it is in memory, and is removed by the result.
func (f *Fixture) handover() (dir string, remove func() error, err error) {
	if dir, err = os.MkdirTemp(f.Scratch, "hallmark-"); err != nil {
		return "", nil, fmt.Errorf("fixture: a directory in memory: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}
