package confine

import "golang.org/x/sys/unix"

const callMmap = unix.SYS_MMAP

// native are the calls of Kernel that not every architecture has.
func native() []uint32 {
	return []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_MEMFD_SECRET, unix.SYS_LOOKUP_DCOOKIE}
}
