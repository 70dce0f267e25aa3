package isolated

import (
	"fmt"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/confine"
)

// Confine takes from this process, for good, everything but the directory dir and the sockets that it has open: other files and the network
// (Landlock), other programs, other processes, signals to them and new sockets (seccomp), and from others the way to look into it (no core, no debugger). What the
// kernel cannot do is an error: a key store that is not confined does not start.
func Confine(dir string) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		return err
	}
	if err := landlock.V1.RestrictPaths(landlock.RWDirs(dir)); err != nil {
		return fmt.Errorf("landlock: %w: the kernel needs CONFIG_SECURITY_LANDLOCK (Linux 5.13) and landlock in lsm=", err)
	}
	// What newer kernels know of as well: to cut a file, signals, ports. An older one does without.
	if err := landlock.V11.BestEffort().Restrict(landlock.RWDirs(dir)); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return filter()
}

// forbidden are what a key store never does: to start a program, to reach another process or machine, to change what it may. They end it.
func forbidden() []uint32 {
	own := []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
		unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_OPEN, unix.SYS_PRLIMIT64,
	}
	return slices.Concat(own, confine.Modes(), confine.Others(), confine.Kernel(), confine.Users(), confine.SharedMemory())
}

// filter has the kernel end the process at a call that is forbidden, in all of its threads.
func filter() error {
	f, err := confine.NewFilter()
	if err != nil {
		return err
	}
	f.Kill(forbidden()...)
	// A thread of this process is signalled: Go's runtime does so to its own.
	f.KillWhen(unix.SYS_TGKILL, confine.When{Arg: 0, Is: uint32(os.Getpid()), IsNot: true})
	return f.Apply(true)
}
