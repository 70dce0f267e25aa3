//go:build !nowasm

package launch

import (
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// dataFiles are the data that a module reads, as files of one folder.
type dataFiles map[string]*os.File

// dataOf gives those among the descriptors that this process was given.
func dataOf(given []string) dataFiles {
	out := dataFiles{}
	for i, name := range given {
		if data, ok := strings.CutPrefix(name, dataPrefix); ok {
			out[data] = os.NewFile(uintptr(firstGiven+i), data)
		}
	}
	return out
}

// Open implements fs.FS.
func (d dataFiles) Open(name string) (fs.File, error) {
	if name == "." {
		return &dataFolder{files: d, rest: slices.Sorted(maps.Keys(d))}, nil
	}
	f := d[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return dataFile{io.NewSectionReader(f, 0, info.Size()), named{info, name}}, nil
}

// dataFile is one of them, opened once.
type dataFile struct {
	*io.SectionReader
	info fs.FileInfo
}

func (f dataFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f dataFile) Close() error               { return nil }

// named is a file by the name that a module knows.
type named struct {
	fs.FileInfo
	name string
}

func (n named) Name() string { return n.name }

// dataFolder lists them.
type dataFolder struct {
	files dataFiles
	rest  []string
}

func (d *dataFolder) Stat() (fs.FileInfo, error) { return d, nil }
func (d *dataFolder) Read([]byte) (int, error)   { return 0, fs.ErrInvalid }
func (d *dataFolder) Close() error               { return nil }

// ReadDir implements fs.ReadDirFile.
func (d *dataFolder) ReadDir(n int) (out []fs.DirEntry, err error) {
	if n > 0 && len(d.rest) == 0 {
		return nil, io.EOF
	}
	for len(d.rest) > 0 && (n <= 0 || len(out) < n) {
		f, err := d.files.Open(d.rest[0])
		if err != nil {
			return out, err
		}
		info, err := f.Stat()
		if err != nil {
			return out, err
		}
		out, d.rest = append(out, fs.FileInfoToDirEntry(info)), d.rest[1:]
	}
	return out, nil
}

// The folder says of itself.
func (d *dataFolder) Name() string       { return "data" }
func (d *dataFolder) Size() int64        { return 0 }
func (d *dataFolder) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (d *dataFolder) ModTime() time.Time { return time.Time{} }
func (d *dataFolder) IsDir() bool        { return true }
func (d *dataFolder) Sys() any           { return nil }
