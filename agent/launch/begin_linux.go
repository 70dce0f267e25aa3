package launch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/memfile"
	"github.com/hallmark-iot/hallmark/wire"
)

// order is what the confiner is told: one JSON object on its first descriptor.
type order struct {
	Name    string       `json:"name"`
	Args    []string     `json:"args,omitempty"`
	Size    uint64       `json:"size"`
	Own     string       `json:"own"`             // its directory
	User    int          `json:"user"`            // 0: stays the agent's
	Part    bool         `json:"part"`            // it is the agent's own file, and has no directory
	Script  bool         `json:"script"`          // another program executes it
	Given   []string     `json:"given,omitempty"` // names of the descriptors that the program finds open
	Spaces  bool         `json:"spaces"`          // it was started in namespaces of its own
	Inner   bool         `json:"inner"`           // a user namespace is one of them
	Memory  uint64       `json:"memory"`          // bytes
	Tasks   uint32       `json:"tasks"`           // processes and threads
	CPU     uint32       `json:"cpu"`             // percent of a core
	Disk    uint64       `json:"disk"`            // bytes in its directory
	Group   string       `json:"group"`           // name of its control group
	Groups  Report       `json:"groups"`          // what that holds
	Require []wire.Layer `json:"require,omitempty"`

	Thinking time.Duration `json:"thinking"` // how long a module may take for an answer
	Landlock int           `json:"landlock"` // version of its interface to use at most; 0: the kernel's

	Capabilities wire.Capabilities `json:"capabilities"`
}

func orderOf(c wire.Component, own string, uid int, o Options) order {
	d := order{
		Name: c.Name, Args: c.Args, Size: c.Size, Own: own, User: uid, Memory: c.MemoryLimit(), Tasks: c.TaskLimit(), CPU: c.CPULimit(), Disk: c.DiskLimit(),
		Require: o.Require, Group: fmt.Sprintf("hallmark-%x-%s", userOf(o, c.Name), c.Name),
	}
	d.Thinking, d.Landlock = cmp.Or(o.thinking, thinking), o.older
	if c.Capabilities != nil {
		d.Capabilities = *c.Capabilities
	}
	return d
}

// thinking is how long a WebAssembly module may take for an answer: then it is ended, because nothing else would end a loop. The agent has given up
// long before.
const thinking = 10 * time.Second

// confiner is the name by which the agent starts itself to confine a program.
const confiner = "hallmark-confine"

// firstGiven is the first of the program's descriptors, by systemd's protocol.
const firstGiven = 3

// descriptors are the confiner's own descriptors. They lie behind those that the program finds open, so that none of these has to be moved.
type descriptors struct{ order, report, image int }

func descriptorsBehind(given int) descriptors {
	first := firstGiven + given
	return descriptors{order: first, report: first + 1, image: first + 2}
}

// descriptorsOf gives those of this process, which was told how many are the program's.
func descriptorsOf(args []string) (descriptors, error) {
	if len(args) != 2 {
		return descriptors{}, errors.New("it was not started by an agent")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 || n > maxGiven {
		return descriptors{}, fmt.Errorf("%q descriptors", args[1])
	}
	return descriptorsBehind(n), nil
}

// maxGiven is more than a program can be given.
const maxGiven = 3*wire.MaxGranted + 1

// Given is a descriptor that a program finds open, by a name of its own.
type Given struct {
	Name string
	File *os.File // stays the caller's
}

// patience is how long a program may take to be confined.
const patience = 20 * time.Second

// begin starts the confiner, and waits until it has become the program. What the kernel does not let the agent do, namespaces or a control group, is
// left out in the next attempt, and told in the report.
func (p *Process) begin(d order, o Options, image *os.File, given []Given) error {
	for _, g := range given {
		d.Given = append(d.Given, g.Name)
	}
	g, groups := newGroup(d)
	var err error
	for _, with := range []struct {
		spaces bool
		group  *group
	}{{true, g}, {true, nil}, {false, g}, {false, nil}} {
		if with.spaces && o.older > 0 {
			continue
		}
		d.Spaces, d.Inner, d.Groups = with.spaces, with.spaces && os.Geteuid() != 0, groups
		if with.group == nil && g != nil {
			d.Groups = noGroup(d, err)
		}
		if err = p.attempt(d, o, image, given, with.group); refusedByKernel(err) {
			continue
		}
		p.group = with.group
		break
	}
	if p.group == nil || err != nil {
		p.group = nil
		g.remove()
	}
	return err
}

// errClone is a process that the kernel did not make; not what came of one.
var errClone = errors.New("no process")

func refusedByKernel(err error) bool {
	return errors.Is(err, errClone) && slices.ContainsFunc([]error{
		unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EINVAL, unix.ENOSYS, unix.EUSERS, unix.EBUSY, unix.EOPNOTSUPP, unix.ENODEV,
	}, func(e error) bool { return errors.Is(err, e) })
}

func (p *Process) attempt(d order, o Options, image *os.File, given []Given, g *group) error {
	said, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	orders, err := ordered(d)
	if err != nil {
		return errors.Join(err, report.Close())
	}
	cmd := exec.Command(o.Self) //nolint:noctx // its life is Stop's, not a context's
	cmd.Args = []string{confiner, strconv.Itoa(len(given))}
	for _, g := range given {
		cmd.ExtraFiles = append(cmd.ExtraFiles, g.File)
	}
	if cmd.ExtraFiles = append(cmd.ExtraFiles, orders, report); image != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, image)
	}
	// Never a file of the agent's itself: a pipe takes nothing from whoever holds it.
	cmd.Dir, cmd.Stdout, cmd.Stderr = cmp.Or(d.Own, "/"), struct{ io.Writer }{o.Output}, struct{ io.Writer }{o.Output}
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.WaitDelay = linger
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if d.Spaces {
		spaces(cmd.SysProcAttr, d)
	}
	if g != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.dir.Fd())
	}
	err = cmd.Start()
	err = errors.Join(err, orders.Close(), report.Close())
	if err != nil {
		return fmt.Errorf("%w: %w", errClone, err)
	}
	p.cmd = cmd
	if p.layers, err = become(said); err == nil {
		return nil
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // what is wrong has been said
	return err
}

// spaces asks for namespaces: its own processes, System V objects and, without any granted, its own network, in which there is nobody. Who is not
// root needs a user namespace for it, in which it is the user it is.
func spaces(a *syscall.SysProcAttr, d order) {
	a.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !d.Capabilities.Network() {
		a.Cloneflags |= unix.CLONE_NEWNET
	}
	if d.Inner {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
}

// ordered gives a descriptor from which d can be read.
func ordered(d order) (*os.File, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	f, err := memfile.New("order")
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// outcome is what the confiner says, once: before it becomes the program, or instead.
type outcome struct {
	Layers Report `json:"layers"`
	Error  string `json:"error,omitempty"`
}

// become waits until the confiner is the program: it then holds the pipe no more.
func become(said *os.File) (Report, error) {
	if err := said.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return Report{}, err
	}
	b, err := io.ReadAll(io.LimitReader(said, 64<<10))
	if err != nil {
		return Report{}, fmt.Errorf("it was not confined in time: %w", err)
	}
	var last outcome
	for line := range strings.Lines(string(b)) {
		last = outcome{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			return Report{}, fmt.Errorf("the confiner's report: %w", err)
		}
		if last.Error != "" {
			return last.Layers, errors.New(last.Error)
		}
	}
	if last.Layers.InForce == nil {
		return Report{}, fmt.Errorf("it was not confined: %s, started as %s, is no program that confines", runtime.GOOS, confiner)
	}
	return last.Layers, nil
}
