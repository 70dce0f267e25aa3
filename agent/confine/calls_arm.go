package confine

import "golang.org/x/sys/unix"

const callMmap = unix.SYS_MMAP2

// native are the calls of Kernel that not every architecture has: the calls that take a user's number of 32 bits are others here.
func native() []uint32 {
	return []uint32{
		unix.SYS_KEXEC_FILE_LOAD, unix.SYS_SETUID32, unix.SYS_SETGID32, unix.SYS_SETREUID32, unix.SYS_SETREGID32, unix.SYS_SETRESUID32, unix.SYS_SETRESGID32,
		unix.SYS_SETGROUPS32, unix.SYS_SETFSUID32, unix.SYS_SETFSGID32, unix.SYS_CLOCK_SETTIME64, unix.SYS_CLOCK_ADJTIME64,
	}
}
