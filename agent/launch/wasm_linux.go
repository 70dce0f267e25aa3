//go:build !nowasm

package launch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/confine"
)

// A WebAssembly module is a command of WASI preview 1. What comes on the health socket is written to its standard input, a line a question, and the line
// that it writes to its standard output is the answer; standard error is its log. It has its directory as ".", what it may read under its own path, the
// clock and random numbers. It is compiled and run in a process of its own, confined like any program, and which in the end cannot even start others.

const (
	hasWASM  = true
	wasmHost = "hallmark-wasm"

	// hostMemory is what the host itself may need beside twice the module's memory, which is copied as it grows.
	hostMemory = 256 << 20

	pageSize = 64 << 10 // of WebAssembly
)

// hostWASM runs the module that Start has given this process; it returns only when that cannot be.
func hostWASM(fd descriptors) (Report, error) {
	d, err := fd.read()
	if err != nil {
		return Report{}, err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Report{}, err
	}
	f, err := confine.NewFilter()
	if err != nil {
		return Report{}, err
	}
	f.Kill(unix.SYS_EXECVE, unix.SYS_EXECVEAT)
	if err := f.Apply(true); err != nil {
		return Report{}, err
	}
	code, err := readImage(fd.image, d.Size)
	if err != nil {
		return Report{}, err
	}
	ctx := context.Background()
	// A loop has to come back now and then (CloseOnContextDone): else the collector of this process waits for it for ever, and with it what would end it.
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryLimitPages(uint32(min(d.Memory/pageSize, 1<<16))))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, runtime); err != nil {
		return Report{}, err
	}
	module, err := runtime.CompileModule(ctx, code)
	if err != nil {
		return Report{}, fmt.Errorf("it is no WebAssembly module: %w", err)
	}
	var l net.Listener
	if i := slices.Index(d.Given, health); i >= 0 {
		socket := os.NewFile(uintptr(firstGiven+i), health)
		if l, err = net.FileListener(socket); err != nil {
			return Report{}, err
		}
		_ = socket.Close() // the listener has its own
	}
	_ = unix.Close(fd.report) // it is the program from here on
	os.Exit(runModule(ctx, runtime, module, d, l))
	return Report{}, nil
}

func readImage(fd int, size uint64) ([]byte, error) {
	code := make([]byte, size)
	_, err := io.ReadFull(io.NewSectionReader(os.NewFile(uintptr(fd), "image"), 0, int64(size)), code)
	return code, err
}

// runModule runs the module to its end, and gives its exit status.
func runModule(ctx context.Context, runtime wazero.Runtime, module wazero.CompiledModule, d order, l net.Listener) int {
	in, questions, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	answers, out, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	if l != nil {
		m := &asked{questions: questions, answers: bufio.NewReaderSize(answers, maxAnswer), patience: d.Thinking}
		attendAll(d.Given, m)
		go func() { os.Exit(fail(converse(l, m))) }()
	} else {
		_ = questions.Close()                              // nobody asks
		go func() { _, _ = io.Copy(os.Stdout, answers) }() // what it says is a log
	}
	files, err := filesOf(d)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx) // one that can be done, or loops are not asked
	defer cancel()
	_, err = runtime.InstantiateModule(ctx, module, wazero.NewModuleConfig().WithArgs(append([]string{d.Name}, d.Args...)...).WithName(d.Name).
		WithStdin(in).WithStdout(out).WithStderr(os.Stderr).WithFSConfig(files).WithSysWalltime().WithSysNanotime().WithSysNanosleep().
		WithRandSource(randomness{}))
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		return int(exit.ExitCode())
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

// filesOf is what the module sees of files: its own directory as its root, and what it may read under its own path.
func filesOf(d order) (wazero.FSConfig, error) {
	files, single := wazero.NewFSConfig().WithDirMount(".", "/"), map[string]someFiles{}
	if data := dataOf(d.Given); len(data) > 0 {
		files = files.WithFSMount(data, "/data")
	}
	for _, p := range d.Capabilities.Read {
		info, err := os.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.IsDir():
			files = files.WithReadOnlyDirMount(p, p)
		default:
			dir := path.Dir(p)
			single[dir] = someFiles{append(single[dir].names, path.Base(p)), dir, os.DirFS(dir)}
		}
	}
	for dir, some := range single {
		files = files.WithFSMount(some, dir)
	}
	return files, nil
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "wasm:", err)
	return 1
}

// randomness is the kernel's.
type randomness struct{}

func (randomness) Read(b []byte) (int, error) { return unix.Getrandom(b, 0) }

// someFiles shows of a folder those files.
type someFiles struct {
	names []string
	dir   string
	fs.FS
}

func (s someFiles) Open(name string) (fs.File, error) {
	if name == "." {
		return folder(s.dir), nil
	}
	if !slices.Contains(s.names, name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return s.FS.Open(name)
}

// folder is one of which nothing is told: the process may not open it.
type folder string

func (f folder) Stat() (fs.FileInfo, error)         { return os.Stat(string(f)) }
func (f folder) Read([]byte) (int, error)           { return 0, fs.ErrInvalid }
func (f folder) ReadDir(int) ([]fs.DirEntry, error) { return nil, fs.ErrPermission }
func (f folder) Close() error                       { return nil }

// asked is a module that is asked one question after another, by whoever has one.
type asked struct {
	mu        sync.Mutex // held from a question to its answer
	questions io.Writer
	answers   *bufio.Reader
	patience  time.Duration
}

// ask gives the module's answer, a line. An error is the module's.
func (a *asked) ask(question string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, failed := make(chan string, 1), make(chan error, 1)
	go func() {
		if _, err := io.WriteString(a.questions, question); err != nil {
			failed <- err
			return
		}
		line, err := a.answers.ReadSlice('\n') // no longer than an answer may be
		if err != nil {
			failed <- fmt.Errorf("no whole answer to %q: %w", verb(question), err)
			return
		}
		said <- string(line)
	}()
	select {
	case line := <-said:
		return line, nil
	case err := <-failed:
		return "", err
	case <-time.After(a.patience):
		return "", fmt.Errorf("no answer to %q in %v", verb(question), a.patience)
	}
}

// converse brings the questions to the module and its answers back, one at a time, until the module does not answer as it has to.
func converse(l net.Listener, module *asked) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if err := converseOnce(conn, module); err != nil {
			return err
		}
	}
}

// converseOnce has one question answered. An error is of the module; who asks badly is hung up on.
func converseOnce(conn net.Conn, module *asked) error {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(answer)) != nil {
		return nil
	}
	question, err := bufio.NewReader(io.LimitReader(conn, maxQuestion)).ReadString('\n')
	if err != nil {
		return nil // who asks has gone, or asks without end
	}
	if strings.HasPrefix(question, "isolate ") { // it talks to nobody who is not in its release
		_, _ = io.WriteString(conn, "ok\n")
		return nil
	}
	line, err := module.ask(question)
	if err == nil {
		_, _ = io.WriteString(conn, line) // who asked may have given up
	}
	return err
}

// attend brings the packets of a channel to the module, a line each, and its answers back: "ok TEXT" is sent, "ok" alone is not, and what begins otherwise is its log's.
func attend(name string, from io.Reader, to io.Writer, module *asked) error {
	packet := make([]byte, MaxPacket)
	for {
		n, err := from.Read(packet)
		if err != nil {
			return err
		}
		text := strings.TrimRight(string(packet[:n]), "\n")
		if bytes.Equal(packet[:n], Anew) {
			text = ""
		}
		line, err := module.ask(strings.TrimRight("channel "+name+" "+strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\n", " "), " ") + "\n")
		if err != nil {
			return err
		}
		word, reply, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case word != "ok":
			fmt.Fprintf(os.Stderr, "channel %s: %s", name, line)
		case reply != "":
			if _, err := io.WriteString(to, reply); err != nil {
				return err
			}
		}
	}
}

// attendAll attends to each channel that this process was given.
func attendAll(given []string, module *asked) {
	for i, name := range given {
		channel, ok := strings.CutPrefix(name, fromPrefix)
		to := slices.Index(given, toPrefix+channel)
		if !ok || to < 0 {
			continue
		}
		go func() {
			from, to := os.NewFile(uintptr(firstGiven+i), name), os.NewFile(uintptr(firstGiven+to), channel)
			os.Exit(fail(attend(channel, from, to, module)))
		}()
	}
}
