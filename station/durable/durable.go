// Package durable writes the station's state so that a power cut leaves the old or the new, and says nothing is written before it is.
//
// Stage 2, birth, at the programming centre. It trusts the file system to keep what fsync acknowledged. Log is an append-only file of
// checksummed frames: a torn last frame was never acknowledged and is cut off when the log is opened; damage anywhere else is
// an error, because what was acknowledged must not be forgotten.
package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// WriteFile replaces path by data, whole or not at all, readable by the owner only.
func WriteFile(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Abort()
		return err
	}
	return f.Commit()
}

// File is a file on its way: it has its name when Commit returns nil, and never before it is whole.
type File struct {
	f    *os.File
	path string
}

// Create begins a file that is to be at path, in place of one that may be there. Commit or Abort it.
func Create(path string) (*File, error) {
	err := step()
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return &File{f: f, path: path}, nil
}

// Write implements io.Writer.
func (f *File) Write(data []byte) (int, error) {
	if err := write(f.f, data); err != nil {
		return 0, fmt.Errorf("write %s: %w", f.path, err)
	}
	return len(data), nil
}

// Commit makes the file durable and gives it its name. After an error there is what there was before.
func (f *File) Commit() error {
	err := f.commit()
	if err != nil {
		_ = os.Remove(f.f.Name())
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return SyncDir(filepath.Dir(f.path))
}

func (f *File) commit() error {
	err := step()
	if err == nil {
		err = f.f.Sync()
	}
	if err = errors.Join(err, f.f.Close()); err != nil {
		return err
	}
	if err := step(); err != nil {
		return err
	}
	return os.Rename(f.f.Name(), f.path)
}

// Abort gives the file up.
func (f *File) Abort() {
	_ = f.f.Close()
	_ = os.Remove(f.f.Name()) // what stays behind has no name that anybody reads
}

// Remove takes a file away, if it is there.
func Remove(path string) error {
	if err := step(); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	if err := step(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// Log is an append-only file: frames of length (uint32), CRC-32C of the length, CRC-32C of the data, data. The length has a sum of
// its own, so that a damaged one does not pass for a torn end. One process may hold it open.
type Log struct {
	f    *os.File
	path string
	max  int

	mu      sync.Mutex // guards what follows
	turn    sync.Cond  // a sync has ended
	end     int64      // where the next frame goes
	written uint64     // frames put
	durable uint64     // of these, how many a sync has covered
	syncing bool
	broken  error // after a failure nothing more is written: what the file holds is not known
}

// OpenLog opens or creates the log, calls each for every frame in it, and cuts off a torn end. Frames have at most limit bytes.
func OpenLog(path string, limit int, each func(frame []byte) error) (*Log, error) {
	if err := step(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	l := &Log{f: f, path: path, max: limit}
	l.turn.L = &l.mu
	if err := l.load(each); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func (l *Log) load(each func([]byte) error) error {
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	size, at := st.Size(), int64(0)
	for at < size {
		frame, torn, err := l.frame(at, size)
		if torn {
			return l.cut(at)
		}
		if err != nil {
			return err
		}
		if err := each(frame); err != nil {
			return fmt.Errorf("frame at %d: %w", at, err)
		}
		at += headLen + int64(len(frame))
	}
	l.end = at
	_, err = l.f.Seek(at, io.SeekStart)
	return err
}

// Each calls each for every frame there is, also while others append.
func (l *Log) Each(each func(frame []byte) error) error {
	l.mu.Lock()
	end := l.end
	l.mu.Unlock()
	for at := int64(0); at < end; {
		frame, torn, err := l.frame(at, end)
		if err == nil && torn {
			err = fmt.Errorf("frame at %d: the file is damaged", at)
		}
		if err == nil {
			err = each(frame)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", l.path, err)
		}
		at += headLen + int64(len(frame))
	}
	return nil
}

// frame reads the frame at offset at. One that reaches past the end, or a bad one that is the very last, is torn.
func (l *Log) frame(at, size int64) (data []byte, torn bool, err error) {
	if size-at < headLen {
		return nil, true, nil
	}
	var head [headLen]byte
	if _, err := l.f.ReadAt(head[:], at); err != nil {
		return nil, false, err
	}
	if sum(head[:4]) != binary.BigEndian.Uint32(head[4:8]) {
		if at+headLen == size {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("frame at %d: the file is damaged", at)
	}
	n := int64(binary.BigEndian.Uint32(head[:4]))
	if n > int64(l.max) {
		return nil, false, fmt.Errorf("frame of %d bytes at %d: the file is damaged", n, at)
	}
	if n > size-at-headLen {
		return nil, true, nil
	}
	data = make([]byte, n)
	if _, err := l.f.ReadAt(data, at+headLen); err != nil {
		return nil, false, err
	}
	if sum(data) != binary.BigEndian.Uint32(head[8:]) {
		if at+headLen+n == size {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("frame at %d: the file is damaged", at)
	}
	return data, false, nil
}

func (l *Log) cut(at int64) error {
	if err := step(); err != nil {
		return err
	}
	if err := l.f.Truncate(at); err != nil {
		return err
	}
	l.end = at
	if _, err := l.f.Seek(at, io.SeekStart); err != nil {
		return err
	}
	return l.f.Sync()
}

const headLen = 12

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Append writes one frame; it is durable on nil. After an error the log takes no more: reopen it.
func (l *Log) Append(data []byte) error {
	n, err := l.Put(data)
	if err != nil {
		return err
	}
	return l.Wait(n)
}

// Put writes one frame behind the others and gives its number, for Wait. Nothing may be told of it, or done because of it, before.
func (l *Log) Put(data []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, fmt.Errorf("append to %s: failed before: %w", l.path, l.broken)
	}
	if len(data) > l.max {
		return 0, fmt.Errorf("append to %s: %d bytes, at most %d", l.path, len(data), l.max)
	}
	buf := make([]byte, headLen, headLen+len(data))
	binary.BigEndian.PutUint32(buf[:4], uint32(len(data)))
	binary.BigEndian.PutUint32(buf[4:8], sum(buf[:4]))
	binary.BigEndian.PutUint32(buf[8:], sum(data))
	if err := write(l.f, append(buf, data...)); err != nil {
		l.broken = err
		return 0, fmt.Errorf("append to %s: %w", l.path, err)
	}
	l.end += headLen + int64(len(data))
	l.written++
	return l.written, nil
}

// Wait returns when frame n is durable. Who waits meanwhile shares one sync.
func (l *Log) Wait(n uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.durable < n && l.broken == nil {
		if l.syncing {
			l.turn.Wait()
			continue
		}
		l.sync()
	}
	if l.durable < n {
		return fmt.Errorf("append to %s: %w", l.path, l.broken)
	}
	return nil
}

// sync covers what was written before it began. The caller holds mu, which is let go meanwhile.
func (l *Log) sync() {
	upTo := l.written
	l.syncing = true
	l.mu.Unlock()
	err := step()
	if err == nil {
		err = l.f.Sync()
	}
	if err == nil {
		err = step() // durable, and nobody told
	}
	l.mu.Lock()
	l.syncing = false
	if err != nil {
		l.broken = err
	} else {
		l.durable = upTo
	}
	l.turn.Broadcast()
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
