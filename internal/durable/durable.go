// Package durable writes files that are there, whole, after the power fails.
//
// Under all stages. The one place where state is written to files: to a temporary name, synced, renamed, and the directory
// synced. It trusts the file system to rename atomically.
package durable

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile makes path hold data, or leaves it as it was. Missing directories are made, as private as perm.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Write is WriteFile for what is too large to be in memory: fill writes it. When fill fails, path is left as it was.
func Write(path string, perm os.FileMode, fill func(w io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	if err := MkdirAll(dir, perm|(perm&0o444)>>2); err != nil { // who may read the file may enter its directory
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Chmod(perm); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// MkdirAll makes a directory and syncs the one it is in.
func MkdirAll(dir string, perm os.FileMode) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file, want a directory", dir)
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return SyncDir(filepath.Dir(dir))
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Files is a directory of files by slash-separated path.
type Files struct{ Dir string }

func (f Files) path(name string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", fmt.Errorf("file name %q leaves its directory", name)
	}
	return filepath.Join(f.Dir, filepath.FromSlash(name)), nil
}

// Put writes a public file.
func (f Files) Put(_ context.Context, name string, data []byte) error {
	p, err := f.path(name)
	if err != nil {
		return err
	}
	return WriteFile(p, data, 0o644)
}

// String says where they are.
func (f Files) String() string { return f.Dir }

// Swap writes a public file if it still holds old; nil is no file. Who swaps, also in another process, waits for each other.
func (f Files) Swap(ctx context.Context, name string, old, data []byte) (done bool, err error) {
	p, err := f.path(name)
	if err != nil {
		return false, err
	}
	if err := MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return false, err
	}
	d, err := os.Open(filepath.Dir(p))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }() // which unlocks
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock %s: %w", d.Name(), err)
	}
	now, err := f.Get(ctx, name)
	if err != nil || (now == nil) != (old == nil) || !bytes.Equal(now, old) {
		return false, err
	}
	return true, f.Put(ctx, name, data)
}

// Drop removes the directory dir and what is in it; there need be none.
func (f Files) Drop(_ context.Context, dir string) error {
	p, err := f.path(dir)
	if err != nil {
		return err
	}
	if p == filepath.Clean(f.Dir) {
		return errors.New("refusing to remove the whole directory")
	}
	return os.RemoveAll(p)
}

// Get reads a file; nil, nil when there is none.
func (f Files) Get(_ context.Context, name string) ([]byte, error) {
	p, err := f.path(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(p)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// File is one private file, written whole.
type File struct{ Path string }

// Save replaces its content.
func (f File) Save(_ context.Context, data []byte) error { return WriteFile(f.Path, data, 0o600) }

// Load reads it; nil, nil when there is none.
func (f File) Load(_ context.Context) ([]byte, error) {
	data, err := os.ReadFile(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
