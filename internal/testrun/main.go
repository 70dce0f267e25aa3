// Command testrun runs the tests as a newcomer reads them: a line a package with its time, every failure in full, and at the
// end which tests did not run and why, the slowest ones, and the counts.
//
// Under all stages. It only starts `go test -json` and reads it (go doc test2json). Unknown never reads as good here either:
// a package that fails without a failing test, a build that fails, a line it cannot read, or no test at all are failures;
// and where CI is set, so is a test that did not run because a program it needs is not installed.
//
//	testrun [-race-list FILE] [arguments of go test]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	r := newReport(os.Stdout)
	r.strict = os.Getenv("CI") != ""
	var race []string
	if len(args) >= 2 && args[0] == "-race-list" {
		list, err := os.ReadFile(args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "testrun:", err)
			return 1
		}
		race, args = packagesIn(string(list)), args[2:]
	}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "./") }) {
		args = append(args, "./...")
	}
	err := r.pass(ctx, "", args)
	if len(race) > 0 {
		if _, missing := exec.LookPath("cc"); missing != nil {
			r.skip("the race detector over "+strings.Join(race, " "), "cc is not installed")
		} else {
			fmt.Fprintln(r.out, "\nAgain, with the race detector:")
			err = errors.Join(err, r.pass(ctx, "race", append([]string{"-race", "-short"}, race...)))
		}
	}
	r.close()
	if err != nil || r.failed > 0 || r.passed == 0 {
		return 1
	}
	return 0
}

// packagesIn reads one package pattern a line; # begins a comment.
func packagesIn(list string) []string {
	var out []string
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// pass runs go test once. Its error is that go test could not be run, or ended badly.
func (r *report) pass(ctx context.Context, label string, args []string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-timeout", "30m"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		return err
	}
	r.label = label
	return errors.Join(r.read(out), cmd.Wait())
}

func (r *report) read(in io.Reader) error {
	br := bufio.NewReader(in)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprint(r.out, string(line))
			} else {
				r.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
