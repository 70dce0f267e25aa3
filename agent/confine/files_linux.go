package confine

import (
	"errors"
	"fmt"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Access to files that a rule gives.
const (
	Read    uint64 = ll.AccessFSReadFile | ll.AccessFSReadDir
	Execute uint64 = ll.AccessFSExecute
	Write   uint64 = ll.AccessFSWriteFile | ll.AccessFSTruncate
	Control uint64 = ll.AccessFSIoctlDev // of devices
	Change  uint64 = ll.AccessFSRemoveDir | ll.AccessFSRemoveFile | ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeFifo | ll.AccessFSMakeSym | ll.AccessFSRefer

	ofFile = ll.AccessFSExecute | ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev
)

// The first versions of Landlock's interface that can do a thing.
const (
	ABIPorts = 4 // TCP
	ABIScope = 6 // signals and abstract sockets stay within
)

// ABI is the version of Landlock's interface in this kernel; 0: it has none.
func ABI() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// Reach is what is left of files and ports; everything else is closed.
type Reach struct {
	Paths   map[string]uint64 // what may be done at and below it; one that is not there gives nothing
	Connect []uint16          // TCP ports
	Bind    []uint16
}

// handled is what a kernel's version can close.
func handled(abi int) ll.RulesetAttr {
	a := ll.RulesetAttr{HandledAccessFS: 1<<13 - 1}
	for _, since := range []struct {
		abi    int
		access uint64
	}{{2, ll.AccessFSRefer}, {3, ll.AccessFSTruncate}, {5, ll.AccessFSIoctlDev}, {9, ll.AccessFSResolveUnix}} {
		if abi >= since.abi {
			a.HandledAccessFS |= since.access
		}
	}
	if abi >= ABIPorts {
		a.HandledAccessNet = ll.AccessNetBindTCP | ll.AccessNetConnectTCP
	}
	if abi >= ABIScope {
		a.Scoped = ll.ScopeAbstractUnixSocket | ll.ScopeSignal
	}
	return a
}

// Restrict leaves this thread, and what it becomes, no more than r, as far as version abi of Landlock's interface goes, which is ABI's or an older one.
// The thread has to be locked.
func Restrict(r Reach, abi int) error {
	if abi <= 0 {
		return errors.New("landlock: the kernel needs CONFIG_SECURITY_LANDLOCK (Linux 5.13) and landlock in lsm=")
	}
	attr := handled(abi)
	fd, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for path, access := range r.Paths {
		if err := allow(fd, path, access&attr.HandledAccessFS); err != nil {
			return fmt.Errorf("landlock: %s: %w", path, err)
		}
	}
	if attr.HandledAccessNet != 0 {
		for access, ports := range map[uint64][]uint16{ll.AccessNetConnectTCP: r.Connect, ll.AccessNetBindTCP: r.Bind} {
			for _, p := range ports {
				if err := ll.LandlockAddNetPortRule(fd, &ll.NetPortAttr{AllowedAccess: access, Port: uint64(p)}, 0); err != nil {
					return fmt.Errorf("landlock: port %d: %w", p, err)
				}
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := ll.LandlockRestrictSelf(fd, 0); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

func allow(ruleset int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFile
	}
	return ll.LandlockAddPathBeneathRule(ruleset, &ll.PathBeneathAttr{AllowedAccess: access, ParentFd: fd}, 0)
}
