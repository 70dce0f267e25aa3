// Package memfile makes files that have no name and lie in memory alone.
//
// Stage 3, field, on the device. What is to run, or to be read, is copied into one, sealed, and looked at as it lies there: what was verified is what is executed
// or read. It trusts the kernel.
package memfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// New makes one, which may be executed also where the kernel wants to be told so (Linux 6.3, vm.memfd_noexec). No program that is started inherits it.
func New(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Seal has its bytes stay as they are, for good.
func Seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	return err
}
