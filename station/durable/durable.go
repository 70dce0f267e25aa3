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
)

// WriteFile replaces path by data, whole or not at all, readable by the owner only.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
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
	f      *os.File
	path   string
	max    int
	broken error // after a failed append nothing more is written: what the file holds is not known
}

// OpenLog opens or creates the log, calls each for every frame in it, and cuts off a torn end. Frames have at most limit bytes.
func OpenLog(path string, limit int, each func(frame []byte) error) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	l := &Log{f: f, path: path, max: limit}
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
	_, err = l.f.Seek(at, io.SeekStart)
	return err
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
	if err := l.f.Truncate(at); err != nil {
		return err
	}
	if _, err := l.f.Seek(at, io.SeekStart); err != nil {
		return err
	}
	return l.f.Sync()
}

const headLen = 12

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Append writes one frame; it is durable on nil. After an error the log takes no more: reopen it.
func (l *Log) Append(data []byte) error {
	if l.broken != nil {
		return fmt.Errorf("append to %s: failed before: %w", l.path, l.broken)
	}
	if len(data) > l.max {
		return fmt.Errorf("append to %s: %d bytes, at most %d", l.path, len(data), l.max)
	}
	buf := make([]byte, headLen, headLen+len(data))
	binary.BigEndian.PutUint32(buf[:4], uint32(len(data)))
	binary.BigEndian.PutUint32(buf[4:8], sum(buf[:4]))
	binary.BigEndian.PutUint32(buf[8:], sum(data))
	_, err := l.f.Write(append(buf, data...))
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		l.broken = err
		return fmt.Errorf("append to %s: %w", l.path, err)
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
