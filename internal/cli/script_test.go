package cli_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what scripts can do besides running programs.
func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"serve": serve, "served": served, "witness": runWitness, "exits": exits, "told": told, "station-begin": stationBegin, "station-make": stationMake, "field": field, "fleet": madeFleet, "outsider": outsider, "hsm": hsm, "apart": apart, "printed": printedBeside,
	}
}

// hsm makes tokens of SoftHSM, with PIN 1234, and names its library: hsm LABEL….
func hsm(ts *testscript.TestScript, neg bool, args []string) {
	const library = "/usr/lib/softhsm/libsofthsm2.so"
	if neg || len(args) == 0 {
		ts.Fatalf("usage: hsm LABEL…")
	}
	dir := ts.MkAbs("tokens")
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.WriteFile(ts.MkAbs("softhsm2.conf"), []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("pin"), []byte("1234\n"), 0o600))
	ts.Setenv("SOFTHSM2_CONF", ts.MkAbs("softhsm2.conf"))
	ts.Setenv("MODULE", library)
	for _, label := range args {
		ts.Check(ts.Exec("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "87654321"))
	}
}

// serverEnv is what a server is started with.
func serverEnv(ts *testscript.TestScript) []string {
	return append(os.Environ(), "HALLMARK_PASSPHRASE=pass", "SOFTHSM2_CONF="+ts.Getenv("SOFTHSM2_CONF"))
}

// apart runs a program without a server's address and, where the machine lets us, without any network: apart PROGRAM ARG….
func apart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: apart PROGRAM ARG…")
	}
	url, token := ts.Getenv("HALLMARK_URL"), ts.Getenv("HALLMARK_TOKEN")
	ts.Setenv("HALLMARK_URL", "")
	ts.Setenv("HALLMARK_TOKEN", "")
	if exec.Command("unshare", "-rn", "true").Run() == nil {
		args = append([]string{"unshare", "-rn"}, args...)
	}
	err := ts.Exec(args[0], args[1:]...)
	ts.Setenv("HALLMARK_URL", url)
	ts.Setenv("HALLMARK_TOKEN", token)
	ts.Check(err)
}

// printedBeside sets a variable to what the last command has printed beside a label, without blanks: printed NAME LABEL….
func printedBeside(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: printed NAME LABEL…")
	}
	label := strings.Join(args[1:], " ")
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if rest, ok := strings.CutPrefix(line, label+" "); ok {
			ts.Setenv(args[0], strings.Join(strings.Fields(rest), ""))
			return
		}
	}
	ts.Fatalf("nothing is printed beside %q", label)
}

// told waits until the ledger's list of facts of a kind has a line like a pattern: told LOG KIND PATTERN. A fact has its place in a moment; the list
// is left in stdout.
func told(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: told LOG KIND PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[2])
	ts.Check(err)
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		ts.Check(ts.Exec("hallmark", "fact", "list", "--log", args[0], "--kind", args[1]))
		if pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no %s in the %s log is like %s", args[1], args[0], args[2])
		}
	}
}

// exits runs a program and checks its exit code: exits CODE PROGRAM ARG…; stdout and stderr are left in files of these names.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = string(rune('0' + exit.ExitCode()%10))
	} else if err != nil {
		got = err.Error()
	}
	if got != args[0] {
		ts.Fatalf("%v: exit code %s, want %s", args[1:], got, args[0])
	}
}

// outsider checks a chain of custody with the program that shares nothing with ours: outsider TRUST FILE. What it says is stdout's.
func outsider(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: outsider TRUST FILE")
	}
	program := ts.MkAbs("outsider.exe")
	build := exec.Command("go", "build", "-o", program, "../../examples/verify")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("%v: %s", err, out)
	}
	ts.Check(ts.Exec(program, ts.MkAbs(args[0]), ts.MkAbs(args[1])))
}

// runWitness runs a witness over a directory until the script ends, and names its address: witness DIR.
func runWitness(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: witness DIR")
	}
	cmd := exec.Command("hallmark", "witness", "serve", "--dir", ts.MkAbs(args[0]), "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "HALLMARK_PASSPHRASE=pass")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if url, ok := strings.CutPrefix(sc.Text(), "serves  "); ok {
			ts.Setenv("WITNESS_URL", url)
			return
		}
	}
	ts.Fatalf("the witness ended")
}

// serve runs a server over a data directory until the script ends, and names it and its administrator for the commands that follow:
// serve DIR.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serve DIR")
	}
	dir := ts.MkAbs(args[0])
	cmd := exec.Command("hallmark", "serve", "--dir", dir)
	cmd.Env = serverEnv(ts)
	log, err := os.Create(filepath.Join(dir, "server.log"))
	ts.Check(err)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = log.Close()
	})
	var said []string
	for sc := bufio.NewScanner(out); len(said) < 4 && sc.Scan(); {
		said = append(said, sc.Text())
	}
	if len(said) < 4 {
		text, _ := os.ReadFile(log.Name())
		ts.Fatalf("the server ended: %q\n%s", said, text)
	}
	ts.Setenv("HALLMARK_URL", strings.TrimSpace(strings.TrimPrefix(said[0], "console and API")))
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	ts.Check(err)
	ts.Setenv("HALLMARK_TOKEN", strings.TrimSpace(string(token)))
	ts.Check(os.WriteFile(ts.MkAbs("serve.out"), []byte(strings.Join(said, "\n")+"\n"), 0o600))
}

// served runs a server over a data directory until it answers, and ends it in good order: served DIR.
func served(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: served DIR")
	}
	cmd := exec.Command("hallmark", "serve", "--dir", ts.MkAbs(args[0]))
	cmd.Env = serverEnv(ts)
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	answers := bufio.NewScanner(out).Scan()
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil || !answers {
		ts.Fatalf("the server ended with %v\n%s", err, log.String())
	}
}
