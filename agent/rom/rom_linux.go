// Package rom has one stage of a start give way to the next: in the same process, which becomes the other's.
//
// Stage 3, field, on the device. The boot manager's code is copied into memory that cannot change any more, hashed as it lies there, and that memory is
// what the kernel executes: what was judged and measured is what runs. Nothing of the stage before is left but two descriptors: what it hands over
// (boot.Handoff), and the file that the next reset begins with. What to start, and what of, is agent/boot's to say. It trusts the kernel.
package rom

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/memfile"
)

// MaxImage bounds a boot manager's file, bytes.
const MaxImage = 256 << 20

// inherited is the variable that says which descriptors a boot manager was given: the handoff's, and that of the file it came from.
const inherited = "HALLMARK_STAGE"

// Image is a boot manager's code in sealed memory.
type Image struct {
	Digest [32]byte // SHA-256
	file   *os.File
}

// Seal copies the file at path. It is Close's, or Become's, to give up.
func Seal(path string) (*Image, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("boot manager: %w", err)
	}
	defer from.Close()
	f, err := memfile.New("hallmark-agent")
	if err != nil {
		return nil, fmt.Errorf("boot manager: %w", err)
	}
	i := &Image{file: f}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{io.LimitReader(from, MaxImage+1)}, make([]byte, 64<<10))
	if err == nil && (n == 0 || n > MaxImage) {
		err = fmt.Errorf("%s has %d bytes: want 1 to %d", path, n, MaxImage)
	}
	if err == nil {
		err = errors.Join(f.Chmod(0o555), memfile.Seal(f))
	}
	h := sha256.New()
	if err == nil {
		_, err = io.Copy(h, io.NewSectionReader(f, 0, n))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("boot manager: %w", err), f.Close())
	}
	i.Digest = [32]byte(h.Sum(nil))
	return i, nil
}

// Close gives the memory back.
func (i *Image) Close() error { return i.file.Close() }

// Become is the end of this program and the beginning of the boot manager, with the same arguments. It only returns with an error.
func (i *Image) Become(h boot.Handoff) error {
	data, err := h.Encode()
	if err != nil {
		return err
	}
	over, err := memfile.New("handoff")
	if err != nil {
		return err
	}
	defer over.Close()
	if _, err := over.Write(data); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	for _, f := range []*os.File{over, self} {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil { // the only two that are inherited
			return err
		}
	}
	return execute(i.file, append(os.Environ(), fmt.Sprintf("%s=%d,%d", inherited, over.Fd(), self.Fd())))
}

// execute becomes f. The kernel closes every descriptor that is not meant to be inherited.
func execute(f *os.File, env []string) error {
	return fmt.Errorf("start: %w", syscall.Exec("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.Args, env))
}

// Stage is what a boot manager has of the stage before it.
type Stage struct {
	Handoff boot.Handoff
	first   *os.File
}

// Handed reports whether this process begins as another stage than the first: what was called was another program's file.
func Handed() bool {
	_, ok := os.LookupEnv(inherited)
	return ok
}

// Inherited gives it; nil in a process that begins as the first stage. It is there once.
func Inherited() (*Stage, error) {
	word, ok := os.LookupEnv(inherited)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(inherited); err != nil {
		return nil, err
	}
	a, b, _ := strings.Cut(word, ",")
	var files [2]*os.File
	for i, n := range []string{a, b} {
		fd, err := strconv.ParseUint(n, 10, 31)
		if err != nil || fd <= 2 {
			return nil, fmt.Errorf("%s=%q: want two descriptors: it is set by the stage before, and by nobody else", inherited, word)
		}
		unix.CloseOnExec(int(fd))
		files[i] = os.NewFile(uintptr(fd), inherited)
	}
	data, err := io.ReadAll(io.NewSectionReader(files[0], 0, boot.MaxHandoff+1))
	if err = errors.Join(err, files[0].Close()); err != nil {
		return nil, fmt.Errorf("handoff: %w", err)
	}
	h, err := boot.DecodeHandoff(data)
	if err != nil {
		return nil, err
	}
	name(files[1])
	return &Stage{Handoff: h, first: files[1]}, nil
}

// name has the process go by the program's name, and not by the number of the descriptor that it was executed from.
func name(first *os.File) {
	from, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(first.Fd())))
	if err != nil {
		return
	}
	if f, err := os.OpenFile("/proc/self/comm", os.O_WRONLY, 0); err == nil { // it is for who lists processes
		_, _ = f.WriteString(from[strings.LastIndexByte(from, '/')+1:])
		_ = f.Close()
	}
}

// Reset plays a reset where the machine's own is not to be had: this process becomes the first stage again. It only returns with an error.
func (s *Stage) Reset() error { return execute(s.first, os.Environ()) }
