package confine

import "golang.org/x/sys/unix"

// Others are calls that reach into other processes, whatever permissions say.
func Others() []uint32 {
	return []uint32{
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_KCMP,
		unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES, unix.SYS_PERF_EVENT_OPEN,
	}
}

// Kernel are calls that change the machine and not the process, or that a program has no use for and attacks on kernels have.
func Kernel() []uint32 {
	return append([]uint32{
		unix.SYS_BPF, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
		unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_OPEN_TREE_ATTR, unix.SYS_QUOTACTL,
		unix.SYS_QUOTACTL_FD, unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_PERSONALITY,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY,
		unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_FANOTIFY_INIT, unix.SYS_VHANGUP,
		unix.SYS_CAPSET, unix.SYS_LISTNS,
	}, native()...)
}

// Users are calls by which a process becomes another user.
func Users() []uint32 {
	return []uint32{
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
		unix.SYS_SETFSUID, unix.SYS_SETFSGID,
	}
}

// SharedMemory are calls that give memory that no limit of the process counts, or that other processes see.
func SharedMemory() []uint32 {
	return []uint32{
		unix.SYS_MEMFD_CREATE, unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_MSGGET, unix.SYS_SEMGET, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
	}
}

// RefuseUncounted refuses the maps that RLIMIT_DATA does not count: shared memory without a file, and maps that grow like a stack.
func (f *Filter) RefuseUncounted() {
	const flags = 3 // the argument
	f.RefuseWhen(unix.EPERM, callMmap, When{Arg: flags, Mask: unix.MAP_SHARED | unix.MAP_ANONYMOUS, Is: unix.MAP_SHARED | unix.MAP_ANONYMOUS})
	f.RefuseWhen(unix.EPERM, callMmap, When{Arg: flags, Mask: unix.MAP_GROWSDOWN, Is: unix.MAP_GROWSDOWN})
}

// Modes are calls that change by a path whose a file is and who may use it: Landlock does not look at them.
func Modes() []uint32 {
	return append([]uint32{unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWNAT}, older...)
}
