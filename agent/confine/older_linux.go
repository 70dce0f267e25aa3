//go:build amd64 || arm

package confine

import "golang.org/x/sys/unix"

// older are the forms of forbidden calls that newer architectures do not have.
var older = []uint32{unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN}
