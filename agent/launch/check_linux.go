package launch

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hallmark-iot/hallmark/wire"
)

// Check says whether this device could start c as it asks to be: before anything of it is written, and again at each start.
func Check(c wire.Component, o Options) error {
	if !filepath.IsLocal(c.Name) || strings.ContainsAny(c.Name, "/\x00") || strings.HasPrefix(c.Name, ".") {
		return fmt.Errorf("component %q: its name is no file's name", c.Name)
	}
	if o.Self == "" {
		return errors.New("there is nothing here to confine it by: Options.Self")
	}
	if c.WASM() && !hasWASM {
		return errors.New("runtime wasm: this agent was built without it")
	}
	if c.Capabilities == nil {
		return nil
	}
	closed, err := resolved(o.Dir)
	if err != nil {
		return err
	}
	for _, path := range append(append([]string{}, c.Capabilities.Read...), c.Capabilities.Devices...) {
		at, err := resolved(path)
		if err != nil {
			return fmt.Errorf("capability %s: %w", path, err)
		}
		if within(at, closed) || within(closed, at) {
			return fmt.Errorf("capability %s: the agent's own files are granted to nobody", path)
		}
	}
	for _, path := range c.Capabilities.Devices {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeCharDevice == 0 {
			return fmt.Errorf("capability %s: it is no character device", path)
		}
	}
	return nil
}

// resolved is where a path leads; one that is not there leads to itself.
func resolved(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return at, err
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// The users of programs: a range that neither distributions nor systemd give to anybody (systemd, "Users, Groups, UIDs and GIDs").
const (
	firstUser = 0x70000000
	users     = 1 << 27
)

// userOf is the number of a program's user and group: the same at each start and in each release, by the device, where it has its files, and the
// component's name. Two boards that say they are one device are two all the same: what ends the programs of one must not end the other's.
func userOf(o Options, component string) int {
	dir, err := filepath.Abs(o.Dir)
	if err != nil { // there is no directory to be relative to
		dir = o.Dir
	}
	sum := sha256.Sum256([]byte(o.Device + "\x00" + dir + "\x00" + component))
	return firstUser + int(binary.BigEndian.Uint32(sum[:])%users)
}

// programs is the folder of the programs' directories.
const programs = "programs"

// ownDirectory makes the directory of a program, its own and nobody else's, and gives the user it belongs to; 0: the agent's, who is not root and
// can make nobody another.
func ownDirectory(c wire.Component, o Options) (dir string, uid int, err error) {
	above, err := filepath.Abs(filepath.Join(o.Dir, programs))
	if err != nil {
		return "", 0, err
	}
	dir = filepath.Join(above, c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", 0, err
	}
	if os.Geteuid() != 0 {
		return dir, 0, nil
	}
	uid = userOf(o, c.Name)
	info, err := os.Lstat(dir)
	if err != nil {
		return "", 0, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == uint32(uid) && st.Gid == uint32(uid) {
		return dir, uid, nil
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid) //nolint:gosec // no program of it runs now that could change the way there
	})
	if errors.Is(err, syscall.EINVAL) { // a container that has no such users
		return dir, 0, nil
	}
	return dir, uid, err
}

// Erase removes what the programs of a device have kept; it is gone for good when it returns. None of them may run.
func Erase(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, programs)); err != nil {
		return err
	}
	above, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) { // nothing was ever kept
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(above.Sync(), above.Close())
}
