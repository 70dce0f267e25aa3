package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/confine"
	"github.com/hallmark-iot/hallmark/wire"
)

// Confine is called first by the main of every program that launches others: in a process that Start has made it confines itself and becomes the
// program, and never returns. In any other it does nothing.
func Confine() {
	become := map[string]func(descriptors) (Report, error){confiner: becomeProgram, wasmHost: hostWASM}[os.Args[0]]
	if become == nil {
		return
	}
	fd, err := descriptorsOf(os.Args)
	if err != nil {
		os.Exit(1) // nobody would hear of it
	}
	if os.Args[0] == confiner {
		runtime.LockOSThread() // what is taken is taken from this thread, which becomes the program
	}
	if layers, err := become(fd); err != nil {
		_ = fd.say(outcome{Layers: layers, Error: err.Error()}) // who would read it has gone
	}
	os.Exit(1)
}

// say tells Start what came of it.
func (fd descriptors) say(o outcome) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd.report, append(b, '\n'))
	return err
}

// maxOrder is more than the arguments and capabilities of a component can be: they are within a release.
const maxOrder = 4 * wire.MaxRelease

// read reads what is to be done.
func (fd descriptors) read() (d order, err error) {
	b := make([]byte, maxOrder)
	n, err := unix.Pread(fd.order, b, 0)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b[:n], &d)
}

// becomeProgram takes away what the program is not to have, says what held, and executes it. The order is that of need: what opens paths comes before
// its user loses the way to them, what needs privileges before they are gone, and the filter of calls is last.
func becomeProgram(fd descriptors) (Report, error) {
	d, err := fd.read()
	if err != nil {
		return Report{}, err
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return Report{}, err
	}
	exe, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Report{}, err
	}
	groups := deviceGroups(d.Capabilities.Devices)
	layers := d.Groups
	err = limit(&layers, d)
	layers.note(wire.LayerLimits, err)
	layers.note(wire.LayerDisk, err) // the rest of it is the agent's: Process.Full
	abi := restrict(&layers, d, self)
	if d.Spaces {
		layers.has(wire.LayerNamespaces)
	} else {
		layers.lacks(wire.LayerNamespaces, "the kernel gives none to the agent: it is neither root nor may it make user namespaces")
	}
	if d.User != 0 {
		layers.note(wire.LayerUser, becomeUser(d.User, groups))
	} else {
		layers.lacks(wire.LayerUser, "the agent is not root, or its container has no such users")
	}
	layers.note(wire.LayerPrivileges, dropPrivileges())
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil { // a change of user has cleared it
		return layers, err
	}
	layers.note(wire.LayerCalls, filter(d, abi))
	if err := layers.without(d.Require); err != nil {
		return layers, err
	}
	if err := fd.say(outcome{Layers: layers}); err != nil {
		return layers, err
	}
	if d.Part {
		return becomePart(exe, layers, d, fd)
	}
	if d.Capabilities.Runtime == wire.RuntimeWASM {
		return layers, execute(exe, []string{wasmHost, os.Args[1]}, nil, d)
	}
	env := []string{"PATH=/usr/bin:/bin"}
	if n := len(d.Given); n > 0 {
		env = append(env, fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_FDNAMES="+strings.Join(d.Given, ":"), fmt.Sprintf("LISTEN_PID=%d", os.Getpid()))
	}
	unix.CloseOnExec(fd.order)
	unix.CloseOnExec(fd.report)
	if !d.Script { // what executes a script reads it there
		unix.CloseOnExec(fd.image)
	}
	return layers, execute(fd.image, append([]string{d.Name}, d.Args...), env, d)
}

// execute becomes the program behind a descriptor; it returns only when that fails.
func execute(fd int, args, env []string, d order) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	if err := limitLast(d); err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&argv[0])), //nolint:gosec // the call takes addresses
		uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0) //nolint:gosec // the same
	return errno
}

// limit sets what the process may have, for good. RLIMIT_CORE is 1 and not 0: of one byte nothing is dumped into a file, and only 1 is also heeded by a
// kernel that pipes cores into a program. Tasks are counted by user, so that only a user of its own can be limited.
func limit(layers *Report, d order) error {
	if (d.User != 0 || d.Inner) && !slices.Contains(layers.InForce, wire.LayerTasks) {
		delete(layers.Missing, wire.LayerTasks)
		layers.has(wire.LayerTasks)
	}
	return setLimits(map[int]uint64{
		unix.RLIMIT_FSIZE: d.Disk, unix.RLIMIT_CORE: 1, unix.RLIMIT_NOFILE: 256, unix.RLIMIT_STACK: 8 << 20, unix.RLIMIT_MEMLOCK: 64 << 10,
		unix.RLIMIT_MSGQUEUE: 0, unix.RLIMIT_SIGPENDING: 1024, unix.RLIMIT_RTPRIO: 0, unix.RLIMIT_NICE: 0,
	})
}

// limitLast sets what the confiner itself may be beyond: it has a runtime of its own, which ends as it becomes the program.
func limitLast(d order) error {
	limits := map[int]uint64{unix.RLIMIT_DATA: d.Memory}
	if d.Capabilities.Runtime == wire.RuntimeWASM {
		limits[unix.RLIMIT_DATA] = 2*d.Memory + hostMemory
	}
	if d.User != 0 || d.Inner {
		limits[unix.RLIMIT_NPROC] = uint64(d.Tasks)
	}
	return setLimits(limits)
}

func setLimits(limits map[int]uint64) error {
	for what, most := range limits {
		var have unix.Rlimit
		if err := unix.Prlimit(0, what, nil, &have); err != nil {
			return err
		}
		most = min(most, have.Max)
		if err := unix.Prlimit(0, what, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
			return fmt.Errorf("limit %d to %d: %w", what, most, err)
		}
	}
	return nil
}

// restrict leaves of files and ports what was granted, and what every program has; it gives the version of Landlock that did it.
func restrict(layers *Report, d order, self string) int {
	c := d.Capabilities
	reach := confine.Reach{Connect: c.ConnectTCP, Bind: c.BindTCP, Paths: map[string]uint64{
		"/dev/null": confine.Read | confine.Write, "/dev/zero": confine.Read,
		"/dev/random": confine.Read, "/dev/urandom": confine.Read,
	}}
	if d.Own != "" {
		reach.Paths[d.Own] = confine.Read | confine.Write | confine.Change
	}
	for _, p := range c.Read {
		reach.Paths[p] = confine.Read | confine.Execute
	}
	for _, p := range c.Devices {
		reach.Paths[p] = confine.Read | confine.Write | confine.Control
	}
	if c.Runtime == wire.RuntimeWASM || d.Part {
		maps.Copy(reach.Paths, hostPaths(self))
	}
	abi := confine.ABI()
	if d.Landlock > 0 {
		abi = min(abi, d.Landlock)
	}
	err := confine.Restrict(reach, abi)
	if err != nil {
		abi = 0
	}
	layers.note(wire.LayerFiles, err)
	for layer, since := range map[wire.Layer]int{wire.LayerPorts: confine.ABIPorts, wire.LayerScope: confine.ABIScope} {
		if abi >= since {
			layers.has(layer)
		} else {
			layers.lacks(layer, "the kernel's Landlock has version %d, and this needs %d", abi, since)
		}
	}
	return abi
}

// deviceGroups are the groups to which the granted devices are open: udev's way of giving them.
func deviceGroups(devices []string) (out []int) {
	for _, path := range devices {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil && st.Gid != 0 && !slices.Contains(out, int(st.Gid)) {
			out = append(out, int(st.Gid))
		}
	}
	return out
}

// becomeUser makes this process the user's, with no group but its own and those of its devices.
func becomeUser(user int, groups []int) error {
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(user, user, user); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(user, user, user); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	return nil
}

// dropPrivileges gives up every capability of the kernel, and the ways to new ones; it looks whether they are gone.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for c := range uintptr(64) {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // one that is not there, or not ours to drop: then none of them is ours
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) // looked at below
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	have := [2]unix.CapUserData{}
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if have != none {
		return errors.New("capabilities are left")
	}
	return nil
}

// hostPaths is what the host of a WebAssembly module has to read to start: this program, and where that was linked with libraries, those.
func hostPaths(self string) map[string]uint64 {
	out := map[string]uint64{strings.TrimSuffix(self, " (deleted)"): confine.Read | confine.Execute}
	if linked {
		for _, p := range []string{"/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"} {
			out[p] = confine.Read | confine.Execute
		}
	}
	return out
}
