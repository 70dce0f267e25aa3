// Command testrun runs the tests as a newcomer reads them: a line a package, every failure in full, and at the end what was
// skipped and why, and the counts.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type run struct {
	output                  map[string][]string // of each test still running
	passed, failed, skipped int
	why                     []string // each skipped test and its reason
}

func main() {
	args := append([]string{"test", "-json", "-timeout", "20m"}, os.Args[1:]...)
	if !slices.Contains(args, "./...") {
		args = append(args, "./...")
	}
	cmd := exec.Command("go", args...) //nolint:gosec // the arguments are the developer's own
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
	r := run{output: map[string][]string{}}
	r.read(out)
	err = cmd.Wait()
	r.report()
	if err != nil || r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *run) read(in io.Reader) {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			fmt.Println(sc.Text())
			continue
		}
		r.take(e)
	}
}

func (r *run) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "pass":
		if e.Test != "" {
			r.passed++
		}
	case "skip":
		if e.Test != "" {
			r.skipped++
			r.why = append(r.why, fmt.Sprintf("%s: %s", key, reason(r.output[key])))
		}
	case "fail":
		if e.Test != "" {
			r.failed++
		}
		fmt.Print(strings.Join(r.output[key], ""))
	case "build-fail":
		r.failed++
		for k, lines := range r.output {
			if strings.HasPrefix(k, " ") {
				fmt.Print(strings.Join(lines, ""))
			}
		}
	default:
		return
	}
	if e.Test == "" && e.Action != "skip" {
		fmt.Printf("%-4s %6.1fs %s\n", e.Action, e.Elapsed, e.Package)
	}
	delete(r.output, key)
}

// reason finds what a test said when it skipped.
func reason(output []string) string {
	for _, l := range output {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			return l
		}
	}
	return "no reason given"
}

func (r *run) report() {
	if len(r.why) > 0 {
		fmt.Println("\nThese tests did not run:")
		for _, w := range r.why {
			fmt.Println("  " + w)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}
