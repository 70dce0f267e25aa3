//go:build linux && !amd64 && !arm64 && !arm && !riscv64

package confine

import "golang.org/x/sys/unix"

const callMmap = unix.SYS_MMAP

// native is of no use here: there is no filter for this architecture, and NewFilter says so.
func native() []uint32 { return nil }
