package station

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

// source reads a file that somebody brought, and remembers when it was the reading that failed and not the file.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// why gives the reading's own error instead of what came of it.
func (s *source) why(err error) error {
	if err == nil || s.err == nil {
		return err
	}
	return &fault.Fault{
		Kind: fault.Unavailable, Code: "order.read", Text: "the order's file cannot be read to its end: " + s.err.Error(),
		Remedy: "nothing was kept; see whether the stick sits well and import again", Cause: s.err,
	}
}

// keep checks the payload as it comes and writes the file. The order's file is last: an order whose file is there is whole. head is what was read of
// it already.
func (s *Station) keep(j *job, o *opened, head []byte, in *source, now time.Time) error {
	dir := s.orderDir(o.order.Header.ID)
	f, err := durable.Create(filepath.Join(dir, orderName))
	if err != nil {
		return err
	}
	if err := o.copy(f, head, in); err != nil {
		f.Abort()
		return err
	}
	if err = j.touch(now); err == nil {
		err = durable.WriteFile(filepath.Join(dir, envelopeName), o.envelope)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		f.Abort()
		return err
	}
	return f.Commit()
}

// copy writes what it reads; what fails is the file's fault only if neither reading nor writing failed.
func (o *opened) copy(f *durable.File, head []byte, in *source) error {
	out := &sink{w: bufio.NewWriterSize(f, 1<<18)}
	_, err := out.Write(head)
	if err == nil {
		err = o.checkPayload(wire.NewChunks(io.TeeReader(in, out), o.sealed.Chunks))
	}
	if err == nil {
		err = out.w.Flush()
	}
	if out.err != nil {
		return out.err
	}
	return in.why(err)
}

// sink remembers when it was the writing that failed.
type sink struct {
	w   *bufio.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// sweep takes away what imports that were cut left behind: it may be as large as an order, and has no name that anybody reads.
func (s *Station) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "orders", "*", "."+orderName+".*"))
	for _, path := range left {
		err = errors.Join(err, durable.Remove(path))
	}
	return err
}

// keptFile opens the file of an order that was imported.
func (s *Station) keptFile(id string) (*os.File, error) {
	if !wire.ValidName(id) {
		return nil, fault.New(fault.Invalid, "order.invalid", fmt.Sprintf("order %q: not a name", id), "name it as the order's file does")
	}
	f, err := os.Open(filepath.Join(s.orderDir(id), orderName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("this station holds no open order %q", id), "import its file first")
	}
	if err != nil {
		return nil, fmt.Errorf("station: %w", err)
	}
	return f, nil
}

// replayed refuses a file for an order of which another is kept. Where what is kept does not even begin like one, an import writes it anew.
func (s *Station) replayed(o *opened) error {
	id := o.order.Header.ID
	f, err := s.keptFile(id)
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := wire.ReadSealedHead(bufio.NewReader(f))
	if err == nil && !bytes.Equal(old.Envelope, o.envelope) {
		err = refused("replayed", fmt.Errorf("another order %q was imported before", id))
	} else {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// checkKept checks the payload of the order's own file: the disk is not believed.
func (o *opened) checkKept() error {
	err := o.checkPayload(o.fromKept())
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		f.Remedy = "the station's copy is damaged: import the order's file again"
	}
	return err
}

// fromKept reads the chunks of the order's own file, also several times at once.
func (o *opened) fromKept() *wire.Chunks {
	const end = 1 << 62
	return wire.NewChunks(bufio.NewReader(io.NewSectionReader(o.kept, o.sealed.Size, end)), o.sealed.Chunks)
}

// checkPayload holds the sealed chunks against what was signed, and each component's bytes against the release, so that a device never gets
// the beginning of a wrong one.
func (o *opened) checkPayload(in *wire.Chunks) error {
	sum := wire.NewSealedSum(o.sealed.Content)
	check := &componentCheck{digest: sha256.New()}
	err := o.chunks(in, sum.Add, check.take)
	if check.err != nil {
		return refused("content", check.err)
	}
	if err != nil {
		return refused("changed", err)
	}
	if got := sum.Sum(); !bytes.Equal(got[:], o.order.Sealed) {
		return refused("changed", errors.New("the sealed content is not the one that was signed"))
	}
	if check.done != len(o.release.Components) {
		return refused("content", errors.New("the payload ends before its last component"))
	}
	return nil
}

// componentCheck hashes one component after another.
type componentCheck struct {
	digest hash.Hash
	done   int
	err    error // a component is wrong
}

func (k *componentCheck) take(c wire.Component, offset uint64, data []byte) error {
	k.digest.Write(data)
	if offset+uint64(len(data)) < c.Size {
		return nil
	}
	if !bytes.Equal(k.digest.Sum(nil), c.Digest) {
		k.err = fmt.Errorf("component %q has another digest than the release says", c.Name)
		return k.err
	}
	k.digest.Reset()
	k.done++
	return nil
}

// chunks walks the payload to its end: chunks of the file, shown to sealed if that is not nil, cut again at the borders of components.
func (o *opened) chunks(in *wire.Chunks, sealed func([]byte), each func(c wire.Component, offset uint64, data []byte) error) error {
	next, offset := 0, uint64(0)
	for i := 0; ; i++ {
		chunk, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if sealed != nil {
			sealed(chunk)
		}
		data, err := o.chunk.Open(i, chunk)
		if err != nil {
			return err
		}
		for len(data) > 0 {
			if next == len(o.release.Components) {
				return errors.New("the payload is longer than its components")
			}
			c := o.release.Components[next]
			n := min(uint64(len(data)), c.Size-offset)
			if err := each(c, offset, data[:n]); err != nil {
				return err
			}
			data, offset = data[n:], offset+n
			if offset == c.Size {
				next, offset = next+1, 0
			}
		}
	}
}
