package swu

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// The archive is cpio's "new ASCII format with check sums": for each file 110 bytes of head, all in hex digits, its name, and its bytes, each filled up to four.
const (
	archiveMagic = "070702"
	headSize     = 110
	trailer      = "TRAILER!!!"
	regular      = 0o100644
	fields       = 13
	maxName      = 128
	maxPadding   = 8 << 10 // behind the archive: what cpio fills its last block with
)

// head is of one file.
type head struct {
	name   string
	size   uint64
	sum    uint32 // of all bytes, as numbers
	digest [32]byte
}

func fill(n uint64) int { return int((4 - n%4) % 4) }

// summer adds bytes up.
type summer uint32

func (s *summer) Write(b []byte) (int, error) {
	for _, c := range b {
		*s += summer(c)
	}
	return len(b), nil
}

// measure reads a file for what its head says, and goes back to its beginning.
func measure(f Source) (head, error) {
	var sum summer
	d := sha256.New()
	n, err := io.Copy(io.MultiWriter(&sum, d), f)
	if err != nil {
		return head{}, err
	}
	if n == 0 || n > maxFile {
		return head{}, fmt.Errorf("%d bytes: want 1 to %d", n, uint64(maxFile))
	}
	_, err = f.Seek(0, io.SeekStart)
	return head{f.Name, uint64(n), uint32(sum), [32]byte(d.Sum(nil))}, err
}

// writer keeps the first error.
type writer struct {
	w    io.Writer
	next uint64
	err  error
}

func (w *writer) put(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
	}
}

func (w *writer) head(h head, mode, links uint64) {
	w.next++
	if h.name == trailer {
		w.next = 0
	}
	line := []byte(archiveMagic)
	for _, v := range [fields]uint64{w.next, mode, 0, 0, links, 0, h.size, 0, 0, 0, 0, uint64(len(h.name) + 1), uint64(h.sum)} {
		line = fmt.Appendf(line, "%08X", v)
	}
	line = append(append(line, h.name...), 0)
	w.put(append(line, make([]byte, fill(uint64(len(line))))...))
}

func (w *writer) bytes(name string, b []byte) {
	f := Source{name, bytes.NewReader(b)}
	h, err := measure(f)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("swu: %s: %w", name, err)
	}
	w.file(h, f)
}

func (w *writer) file(h head, f Source) {
	w.head(h, regular, 1)
	if w.err != nil {
		return
	}
	n, err := io.Copy(w.w, f)
	if err == nil && uint64(n) != h.size {
		err = fmt.Errorf("swu: file %s changed while it was read", h.name)
	}
	w.err = err
	w.put(make([]byte, fill(h.size)))
}

func (w *writer) end() { w.head(head{name: trailer}, 0, 1) }

// reader reads one file after another.
type reader struct{ r io.Reader }

func (r *reader) skip(n int) error {
	b := make([]byte, n)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return cut(err)
	}
	if !bytes.Equal(b, make([]byte, n)) {
		return errors.New("swu: something between two files of the archive")
	}
	return nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("swu: the archive ends in the middle")
	}
	return err
}

func (r *reader) next() (head, error) {
	b := make([]byte, headSize)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return head{}, cut(err)
	}
	if string(b[:len(archiveMagic)]) != archiveMagic {
		return head{}, errors.New("swu: this is no cpio archive with check sums (070702), or its files do not follow one another")
	}
	var v [fields]uint64
	for i := range v {
		at := len(archiveMagic) + 8*i
		n, err := strconv.ParseUint(string(b[at:at+8]), 16, 32)
		if err != nil {
			return head{}, fmt.Errorf("swu: a number of the archive: %w", err)
		}
		v[i] = n
	}
	h := head{size: v[6], sum: uint32(v[12])}
	if v[11] < 2 || v[11] > maxName {
		return head{}, fmt.Errorf("swu: a name of %d bytes", v[11])
	}
	name := make([]byte, v[11])
	if _, err := io.ReadFull(r.r, name); err != nil {
		return head{}, cut(err)
	}
	if i := bytes.IndexByte(name, 0); i != len(name)-1 {
		return head{}, errors.New("swu: a name that does not end where it should")
	}
	h.name = string(name[:len(name)-1])
	if kind := v[1] & 0o170000; h.name != trailer && kind != 0o100000 {
		return head{}, fmt.Errorf("swu: %q is no regular file", h.name)
	}
	if h.name == trailer && h.size != 0 {
		return head{}, errors.New("swu: an end that has bytes")
	}
	return h, r.skip(fill(headSize + v[11]))
}

// measured reads the file of a head.
func (r *reader) measured(h head) (File, error) {
	var sum summer
	d := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(&sum, d), r.r, int64(h.size)); err != nil {
		return File{}, cut(err)
	}
	if uint32(sum) != h.sum {
		return File{}, fmt.Errorf("swu: file %s has another check sum than the archive says", h.name)
	}
	return File{h.name, h.size, [32]byte(d.Sum(nil))}, r.skip(fill(h.size))
}

// all reads a small file.
func (r *reader) all(h head) ([]byte, error) {
	if h.size == 0 || h.size > MaxDescription {
		return nil, fmt.Errorf("swu: %s of %d bytes, at most %d", h.name, h.size, MaxDescription)
	}
	b := make([]byte, h.size)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return nil, cut(err)
	}
	var sum summer
	if _, _ = sum.Write(b); uint32(sum) != h.sum {
		return nil, fmt.Errorf("swu: %s has another check sum than the archive says", h.name)
	}
	return b, r.skip(fill(h.size))
}

// small reads the file of that name, which has to come now.
func (r *reader) small(name string) ([]byte, error) {
	h, err := r.next()
	if err != nil {
		return nil, err
	}
	if h.name != name {
		return nil, fmt.Errorf("swu: file %q where %s should be", h.name, name)
	}
	return r.all(h)
}

// nothing is what may follow an archive: zeros, to fill a block.
func (r *reader) nothing() error {
	b, err := io.ReadAll(io.LimitReader(r.r, maxPadding+1))
	if err != nil {
		return err
	}
	if len(b) > maxPadding || len(bytes.Trim(b, "\x00")) != 0 {
		return errors.New("swu: something behind the archive")
	}
	return nil
}
