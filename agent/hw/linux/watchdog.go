package linux

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watchdog resets the machine when nobody calls Kick for its time.
type Watchdog struct {
	f    *os.File
	Time time.Duration // what the driver made of what was asked for
}

// OpenWatchdog arms the watchdog at path. From then on the machine is reset unless it is kicked, or told goodbye by Stop.
func OpenWatchdog(path string, after time.Duration) (*Watchdog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	w := &Watchdog{f: f}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(after/time.Second)); err != nil {
		return nil, errors.Join(fmt.Errorf("watchdog %s: %s: %w", path, after, err), w.Stop())
	}
	seconds, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watchdog %s: %w", path, err), w.Stop())
	}
	w.Time = time.Duration(seconds) * time.Second
	return w, nil
}

// Kick says that all is well.
func (w *Watchdog) Kick() error {
	_, err := w.f.Write([]byte{0})
	return err
}

// Stop disarms it, with the magic letter; a driver that is built to stay armed stays armed.
func (w *Watchdog) Stop() error {
	_, err := w.f.WriteString("V")
	return errors.Join(err, w.f.Close())
}
