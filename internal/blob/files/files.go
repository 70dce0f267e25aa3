// Package files is a place for blobs in a directory.
//
// Under all stages. What it guarantees: a file is in its place whole and durable, or not at all. It trusts the file system to rename atomically.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/release"
)

// Dir is a directory of blobs. It implements blob.Place and is safe for concurrent use.
type Dir struct{ dir string }

// mode of a file: who backs the directory up may read it.
const mode = 0o640

// Open makes the directory if need be.
func Open(dir string) (Dir, error) {
	d := Dir{dir}
	if err := durable.MkdirAll(d.uploads(), 0o750); err != nil {
		return d, fmt.Errorf("blobs: %w", err)
	}
	return d, nil
}

// uploads is where files are until they are whole.
func (d Dir) uploads() string { return filepath.Join(d.dir, "new") }

func (d Dir) path(name string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", fmt.Errorf("file name %q leaves its directory", name)
	}
	return filepath.Join(d.dir, filepath.FromSlash(name)), nil
}

// Put implements blob.Place. A file that is there already may be damaged, so the new one replaces it.
func (d Dir) Put(_ context.Context, r io.Reader, name func() (string, error)) (err error) {
	f, err := os.CreateTemp(d.uploads(), "upload-*")
	if err != nil {
		return d.explain(err)
	}
	defer func() {
		if err != nil {
			err = d.explain(errors.Join(err, remove(f.Name())))
		}
	}()
	_, err = io.Copy(f, r)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	to, err := name()
	if err != nil {
		return err
	}
	path, err := d.path(to)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// Write implements blob.Place.
func (d Dir) Write(_ context.Context, name string, data []byte) error {
	path, err := d.path(name)
	if err != nil {
		return err
	}
	return d.explain(durable.WriteFile(path, data, mode))
}

// explain says of a disk that is full what to do.
func (d Dir) explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Newf(fault.Unavailable, "artifact.space", "there is no room left for artifacts: %w", err).With("make room where the instance keeps blobs/, and upload it again")
	}
	return err
}

// Read implements blob.Place.
func (d Dir) Read(_ context.Context, name string) ([]byte, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	return data, found(err)
}

// Open implements blob.Place.
func (d Dir) Open(_ context.Context, name string) (blob.Object, error) {
	path, err := d.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, found(err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return file{f, info.Size()}, nil
}

func found(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return release.ErrNotFound
	}
	return err
}

// Delete implements blob.Place.
func (d Dir) Delete(_ context.Context, name string) error {
	path, err := d.path(name)
	if err != nil {
		return err
	}
	return remove(path)
}

// Clear implements blob.Place. A file that is gone meanwhile was placed, or cleared by another node. What is written to counts as begun when that was.
func (d Dir) Clear(ctx context.Context, before time.Time) error {
	left, err := os.ReadDir(d.uploads())
	if err != nil {
		return err
	}
	for _, f := range left {
		info, err := f.Info()
		if errors.Is(err, os.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
			continue
		}
		if err := errors.Join(ctx.Err(), err, remove(filepath.Join(d.uploads(), f.Name()))); err != nil {
			return err
		}
	}
	return nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// file is an open blob.
type file struct {
	f    *os.File
	size int64
}

// ReadAt implements blob.Object.
func (f file) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Size implements blob.Object.
func (f file) Size() int64 { return f.size }

// File implements blob.Object.
func (f file) File() *os.File { return f.f }

// Close implements blob.Object.
func (f file) Close() error { return f.f.Close() }
