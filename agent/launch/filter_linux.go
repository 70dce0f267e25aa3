package launch

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/confine"
)

// namespaceFlags are those of clone by which a process gets namespaces, and in a user namespace privileges, of its own.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

const (
	socketKind = 0xf // of the second argument of socket; the rest are flags
	fastOpen   = unix.MSG_FASTOPEN
)

// filter refuses the calls that a program has no use for. abi is the version of Landlock in force, which holds some of them already.
func filter(d order, abi int) error {
	f, err := confine.NewFilter()
	if err != nil {
		return err
	}
	for _, calls := range [][]uint32{confine.Others(), confine.Kernel(), confine.Users(), confine.SharedMemory()} {
		f.Refuse(unix.EPERM, calls...)
	}
	f.Refuse(unix.ENOSYS, unix.SYS_CLONE3) // its flags are out of a filter's sight; C libraries then use clone
	f.RefuseWhen(unix.EPERM, unix.SYS_CLONE, confine.When{Arg: 0, Mask: namespaceFlags, IsNot: true})
	f.RefuseUncounted()
	f.RefuseWhen(unix.EPERM, unix.SYS_IOCTL, confine.When{Arg: 1, Is: unix.TIOCSTI})
	f.RefuseWhen(unix.EPERM, unix.SYS_IOCTL, confine.When{Arg: 1, Is: unix.TIOCLINUX})
	f.RefuseWhen(unix.EPERM, unix.SYS_PRCTL, confine.When{Arg: 0, Is: unix.PR_SET_PDEATHSIG})
	f.RefuseWhen(unix.EPERM, unix.SYS_PRCTL, confine.When{Arg: 0, Is: unix.PR_SET_DUMPABLE}, confine.When{Arg: 1, IsNot: true})
	f.RefuseWhen(unix.EPERM, unix.SYS_PRLIMIT64, confine.When{Arg: 0, IsNot: true}) // another's
	if d.User == 0 {                                                                // the agent's files are its user's too, and Landlock does not look at their modes
		f.Refuse(unix.EPERM, confine.Modes()...)
	}
	if !d.Spaces {
		alone(f, abi)
	}
	sockets(f, d)
	return f.Apply(false)
}

// alone keeps a program that sees other processes from touching them, and in the group in which it is ended.
func alone(f *confine.Filter, abi int) {
	f.Refuse(unix.EPERM, unix.SYS_SETSID, unix.SYS_SETPGID)
	for _, call := range []uint32{
		unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETATTR,
	} {
		f.RefuseWhen(unix.EPERM, call, confine.When{Arg: 0, IsNot: true})
	}
	f.RefuseWhen(unix.EPERM, unix.SYS_SETPRIORITY, confine.When{Arg: 1, IsNot: true})
	f.RefuseWhen(unix.EPERM, unix.SYS_IOPRIO_SET, confine.When{Arg: 1, IsNot: true})
	if abi >= confine.ABIScope {
		return
	}
	self := uint32(os.Getpid())
	for _, call := range []uint32{unix.SYS_KILL, unix.SYS_TGKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO} {
		f.RefuseWhen(unix.EPERM, call, confine.When{Arg: 0, Is: self, IsNot: true})
	}
	f.Refuse(unix.EPERM, unix.SYS_TKILL)
}

// sockets leaves the sockets that were granted: none, or TCP and UDP of the Internet. The health socket is open already, so that nobody needs to make
// one of the machine's: by those, files' permissions are all that is between a program and every service of the device.
func sockets(f *confine.Filter, d order) {
	c := d.Capabilities
	for _, kind := range []uint32{unix.SOCK_DGRAM, unix.SOCK_RAW} { // a datagram of a pair can be sent to anybody
		f.RefuseWhen(unix.EACCES, unix.SYS_SOCKETPAIR, confine.When{Arg: 1, Mask: socketKind, Is: kind})
	}
	if !c.Network() {
		f.Refuse(unix.EACCES, unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN)
		return
	}
	is := func(arg int, mask, value uint32) confine.When { return confine.When{Arg: arg, Mask: mask, Is: value} }
	not := func(arg int, mask, value uint32) confine.When {
		return confine.When{Arg: arg, Mask: mask, Is: value, IsNot: true}
	}
	f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, not(0, 0, unix.AF_INET), not(0, 0, unix.AF_INET6))
	f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, not(1, socketKind, unix.SOCK_STREAM), not(1, socketKind, unix.SOCK_DGRAM))
	// Other protocols that flow, such as MPTCP, are not TCP to Landlock.
	f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, is(1, socketKind, unix.SOCK_STREAM), not(2, 0, 0), not(2, 0, unix.IPPROTO_TCP))
	f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, is(1, socketKind, unix.SOCK_DGRAM), not(2, 0, 0), not(2, 0, unix.IPPROTO_UDP))
	if !c.UDP {
		f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, is(1, socketKind, unix.SOCK_DGRAM))
	}
	if len(c.ConnectTCP)+len(c.BindTCP) == 0 {
		f.RefuseWhen(unix.EACCES, unix.SYS_SOCKET, is(1, socketKind, unix.SOCK_STREAM))
	}
	if len(c.BindTCP) == 0 { // listening without a port is listening on some port
		f.Refuse(unix.EACCES, unix.SYS_LISTEN)
	}
	// A connection that begins with its data passes by Landlock.
	f.RefuseWhen(unix.EACCES, unix.SYS_SENDTO, is(3, fastOpen, fastOpen))
	f.RefuseWhen(unix.EACCES, unix.SYS_SENDMSG, is(2, fastOpen, fastOpen))
	f.RefuseWhen(unix.EACCES, unix.SYS_SENDMMSG, is(3, fastOpen, fastOpen))
}
