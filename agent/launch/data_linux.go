package launch

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/wire"
)

// dataPrefix goes before the name of data in the name of its descriptor.
const dataPrefix = "data/"

// Data is what a data component says: its bytes, as they were signed, in memory that nobody can change any more. There is one copy, however many programs
// read it; it is there until it is closed and the last of them has ended.
type Data struct {
	name string
	f    *os.File
}

// NewData reads a data component, and verifies what is in memory then.
func NewData(from io.Reader, c wire.Component) (*Data, error) {
	f, err := fill(from, c)
	if err != nil {
		return nil, fmt.Errorf("data %s: %w", c.Name, err)
	}
	if err := f.Chmod(0o444); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Data{c.Name, f}, nil
}

// Give opens it for one program, to read, with a place in it of its own: by a common one they could tell each other something. The file is the caller's to close.
func (d *Data) Give() (Given, error) {
	f, err := reopen(d.f, os.O_RDONLY)
	return Given{dataPrefix + d.name, f}, err
}

// Close gives it up. Who has it open still has it.
func (d *Data) Close() error { return d.f.Close() }

// Memory is how many bytes of it this machine has.
func Memory() (uint64, error) {
	var info unix.Sysinfo_t
	err := unix.Sysinfo(&info)
	return uint64(info.Totalram) * uint64(info.Unit), err //nolint:unconvert // of 32 bits, where the machine is
}
