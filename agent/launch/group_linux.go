package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// group is a program's control group (cgroup v2): what all of its processes may have together, and what ends them all. A nil group is none.
type group struct {
	path string
	dir  *os.File
}

// leaf is where the agent itself goes: a control group whose processes are counted has none of its own.
const leaf = "hallmark-agent"

// newGroup makes the control group of a program below the agent's own, as far as whoever started the agent left that to it (systemd: Delegate=yes).
func newGroup(d order) (*group, Report) {
	base, err := groupBase()
	if err != nil {
		return nil, noGroup(d, err)
	}
	g := &group{path: filepath.Join(base, d.Group)}
	g.kill() // what an agent that was killed left behind
	if err := os.Remove(g.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, noGroup(d, err)
	}
	if err := os.Mkdir(g.path, 0o750); err != nil {
		return nil, noGroup(d, err)
	}
	var r Report
	for _, c := range []struct {
		layer      wire.Layer
		controller string
		set        map[string]string
	}{
		{wire.LayerMemory, "memory", map[string]string{"memory.max": fmt.Sprint(d.Memory), "memory.oom.group": "1"}},
		{wire.LayerTasks, "pids", map[string]string{"pids.max": fmt.Sprint(d.Tasks)}},
		{wire.LayerCPU, "cpu", map[string]string{"cpu.max": fmt.Sprintf("%d 100000", uint64(d.CPU)*1000)}},
	} {
		r.note(c.layer, g.limit(base, c.controller, c.set))
	}
	if g.dir, err = os.Open(g.path); err != nil {
		g.remove()
		return nil, noGroup(d, err)
	}
	return g, r
}

// noGroup is the report of a program without one.
func noGroup(_ order, err error) (r Report) {
	for _, l := range []wire.Layer{wire.LayerMemory, wire.LayerTasks, wire.LayerCPU} {
		r.lacks(l, "no control group (cgroup v2): %v", err)
	}
	return r
}

// groupBase is the agent's own control group, and has the agent go into a leaf of it where that is needed.
func groupBase() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	at := ""
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			at = path
		}
	}
	mount, err := groupMount()
	if err != nil || at == "" {
		return "", errors.Join(errors.New("there is no hierarchy of version 2"), err)
	}
	if at == "/" {
		return mount, nil // the root may have processes beside groups
	}
	base := filepath.Join(mount, at)
	if filepath.Base(base) == leaf {
		return filepath.Dir(base), nil
	}
	if err := os.Mkdir(filepath.Join(base, leaf), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return base, put(filepath.Join(base, leaf, "cgroup.procs"), "0")
}

// groupMount is where the kernel shows control groups of version 2.
func groupMount() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("cgroup2 is not mounted")
}

func (g *group) limit(base, controller string, set map[string]string) error {
	have, err := os.ReadFile(filepath.Join(base, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+controller+" ") {
		return fmt.Errorf("the controller %q is not given to %s", controller, base)
	}
	if err := put(filepath.Join(base, "cgroup.subtree_control"), "+"+controller); err != nil {
		return err
	}
	for name, value := range set {
		if err := put(filepath.Join(g.path, name), value); err != nil {
			return err
		}
	}
	return nil
}

// put writes a file of the kernel's; there is nothing to make durable.
func put(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// kill ends every process of the group, wherever it has hidden.
func (g *group) kill() {
	if g != nil {
		_ = put(filepath.Join(g.path, "cgroup.kill"), "1") // Linux 5.14; the process group and the namespace are ended beside it
	}
}

// remove ends what is left, and the group.
func (g *group) remove() {
	if g == nil {
		return
	}
	g.kill()
	for range 100 {
		if err := os.Remove(g.path); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond) // the kernel takes leave of the dead
	}
	if g.dir != nil {
		_ = g.dir.Close()
	}
}
