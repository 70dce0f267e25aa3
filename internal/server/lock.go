package server

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Lock takes the data directory for this process, until unlock or the process's end, however it comes. Two servers over one
// directory would both sign the logs.
func (l Layout) Lock() (unlock func() error, err error) {
	d, err := os.Open(l.Dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("data directory %s is in use by another hallmark: stop that one, or use another directory", l.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d.Close, nil
}
