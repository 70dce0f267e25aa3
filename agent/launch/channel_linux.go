package launch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The names of a channel's descriptors begin so: what is read from it, and what is written to it.
const (
	fromPrefix = "from/"
	toPrefix   = "to/"
)

// MaxPacket is what a packet of a channel may have, bytes: a longer one is cut into several.
const MaxPacket = 4096

// Anew is the packet that says that the other end begins anew: what was being talked about is void. Whoever sends it himself lies of himself alone.
var Anew = []byte{0}

// Channel is between two programs: two pipes of packets, one for each direction. They are no sockets, because by a socket a program could hand the other what it has
// open, such as a connection that the other may not have. The agent keeps both ends, so that a channel is there for as long as both programs are in what runs:
// one that is started anew finds it again, and nobody meets its end.
type Channel struct {
	name  string
	pipes [2][2]*os.File // of what each end reads: where it is read, and where it is written
	begun [2]bool
}

// NewChannel makes one.
func NewChannel(name string) (*Channel, error) {
	c := &Channel{name: name}
	for end := range c.pipes {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_DIRECT); err != nil {
			return nil, errors.Join(fmt.Errorf("channel %s: %w", name, err), c.Close())
		}
		c.pipes[end] = [2]*os.File{os.NewFile(uintptr(fd[0]), fromPrefix+name), os.NewFile(uintptr(fd[1]), toPrefix+name)}
	}
	return c, nil
}

// Give opens one end of it for a program that is about to start, and that does not run now. If that end was given before, nothing that was said is left, and the other is told.
// The files are the caller's to close.
func (c *Channel) Give(end int) (given []Given, err error) {
	if c.begun[end] {
		if err := c.anew(end); err != nil {
			return nil, fmt.Errorf("channel %s: %w", c.name, err)
		}
	}
	from, err := reopen(c.pipes[end][0], os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	given = append(given, Given{fromPrefix + c.name, from})
	to, err := reopen(c.pipes[1-end][1], os.O_WRONLY)
	if err != nil {
		return given, err
	}
	given = append(given, Given{toPrefix + c.name, to})
	c.begun[end] = true
	_, err = unix.FcntlInt(to.Fd(), unix.F_SETFL, unix.O_DIRECT) // packets; to open it so is not allowed
	return given, err
}

func (c *Channel) anew(end int) error {
	for _, p := range c.pipes {
		if err := drain(p[0]); err != nil {
			return err
		}
	}
	to, err := reopen(c.pipes[1-end][1], os.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(to.Fd(), unix.F_SETFL, unix.O_DIRECT|unix.O_NONBLOCK)
	if err == nil {
		_, err = unix.Write(int(to.Fd()), Anew)
	}
	return errors.Join(err, to.Close())
}

// drain takes out what nobody has read, without waiting for anybody.
func drain(pipe *os.File) error {
	f, err := reopen(pipe, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, MaxPacket)
	for range 1 << 12 { // somebody may go on writing
		if n, err := unix.Read(int(f.Fd()), b); errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			return nil
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

// reopen opens what f has open once more, so that nobody's flags are another's.
func reopen(f *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Close gives it up.
func (c *Channel) Close() error {
	var faults []error
	for _, p := range c.pipes {
		for _, f := range p {
			if f != nil {
				faults = append(faults, f.Close())
			}
		}
	}
	return errors.Join(faults...)
}
