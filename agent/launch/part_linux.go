package launch

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/confine"
	"github.com/hallmark-iot/hallmark/wire"
)

// A part of the agent is its own file, started anew as a process that holds none of the agent's memory or files but those it is given, under the layers
// that programs are under. It starts no program.

// partName goes before a part's name in its arguments.
const partName = "hallmark-part-"

// PartFiles is the first descriptor of the files that a part is given.
const PartFiles = firstGiven

// StartPart starts the part called name, with arguments and files, which stay the caller's. caps says what it may reach; it has no directory.
func StartPart(name string, args []string, caps wire.Capabilities, files []*os.File, o Options) (*Process, error) {
	c := wire.Component{Name: name, Args: args, Health: wire.HealthAlive, Capabilities: &caps}
	d := orderOf(c, "", partUser(name, o), o)
	d.Part = true
	p := &Process{component: c, started: time.Now(), done: make(chan struct{})}
	given := make([]Given, len(files))
	for i, f := range files {
		given[i] = Given{f.Name(), f}
	}
	if err := p.begin(d, o, nil, given); err != nil {
		return nil, fmt.Errorf("start the agent's part %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

// partUser is the user of a part; 0: the agent's, who is not root and can make nobody another. No component has such a name.
func partUser(name string, o Options) int {
	if os.Geteuid() != 0 {
		return 0
	}
	return userOf(o, "/"+name)
}

// Part reports whether this process was started as that part. It then takes from itself what the confiner still needed: to start a program. Main calls it
// after Confine.
func Part(name string) (bool, error) {
	if os.Args[0] != partName+name {
		return false, nil
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return true, err
	}
	f, err := confine.NewFilter()
	if err != nil {
		return true, nil //nolint:nilerr // the report has it: there is no filter for this architecture
	}
	f.Kill(unix.SYS_EXECVE, unix.SYS_EXECVEAT)
	return true, f.Apply(true)
}

// becomePart executes the agent's file once more, as the part. The kernel closes what is not the part's.
func becomePart(exe int, layers Report, d order, fd descriptors) (Report, error) {
	unix.CloseOnExec(fd.order)
	unix.CloseOnExec(fd.report)
	// Names are looked up by Go's own code: the system's would load libraries, and read more files.
	env := []string{"PATH=/usr/bin:/bin", "GODEBUG=netdns=go", "GOGC=50", "GOMEMLIMIT=24MiB"}
	return layers, execute(exe, append([]string{partName + d.Name}, d.Args...), env, d)
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid is the process's number, as this process sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
