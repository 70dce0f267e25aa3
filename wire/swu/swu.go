// Package swu reads and writes updates as SWUpdate installs them.
//
// Stage 3, field. An image of a release may be such a file. It is written and signed where the key is; the release names the bytes that came of it, and the server reads them once more.
//
//	update = cpio archive with check sums (070702) of: sw-description, [sw-description.sig], the files that it names, in its order
//
// sw-description is JSON, which SWUpdate takes beside libconfig, and only what Description can say, in one encoding: a reader that knew less than SWUpdate would believe something else. So an update that others wrote
// is refused here, however well SWUpdate installs it. sw-description.sig is a detached CMS signature of it, which is not this package's to judge.
//
// What it guarantees: each file that is read has the SHA-256 digest by which sw-description names it, there is no other file, and nothing behind the archive. It holds no file in memory.
package swu

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
)

// Bounds of what is read.
const (
	MaxDescription = 64 << 10 // bytes; its signature has the same
	MaxImages      = 16       // of all sets together
	maxFile        = 1<<32 - 1
)

const (
	description = "sw-description"
	signature   = "sw-description.sig"
)

// Description is what an update says of itself.
type Description struct {
	Version  string             `json:"version"`
	Hardware []string           `json:"hardware-compatibility"` // revisions that SWUpdate is told with -H
	Stable   map[string]OneMode `json:"stable,omitempty"`       // images by the name of the mode, such as a and b of two banks
	Images   []Image            `json:"images,omitempty"`       // without a mode; one of the two is there
}

// OneMode is what is installed in one mode (`swupdate -e stable,MODE`).
type OneMode struct {
	Images []Image `json:"images"`
}

// Image is a file, and where it is laid.
type Image struct {
	Filename string `json:"filename"`
	Device   string `json:"device"`
	Type     string `json:"type"`               // raw: as it is
	SHA256   string `json:"sha256"`             // hex
	Directly bool   `json:"installed-directly"` // while it is read, without a copy of it
}

// File is a file of an update, as it was found.
type File struct {
	Name   string
	Size   uint64 // bytes
	Digest [32]byte
}

// Update is what was read.
type Update struct {
	Description Description
	Signed      []byte // sw-description as it is: what the signature is over
	Signature   []byte // empty: there is none
	Files       []File
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// images are all of a description, in the order of its modes.
func (d Description) images() []Image {
	out := slices.Clone(d.Images)
	for _, name := range slices.Sorted(maps.Keys(d.Stable)) {
		out = append(out, d.Stable[name].Images...)
	}
	return out
}

// files are the names of a description's files and the digest of each, once.
func (d Description) files() (names []string, digests map[string]string, err error) {
	digests = map[string]string{}
	all := d.images()
	switch {
	case d.Version == "" || len(d.Version) > 64 || len(d.Hardware) == 0:
		return nil, nil, errors.New("swu: a description without version or hardware revisions")
	case (len(d.Images) == 0) == (len(d.Stable) == 0) || len(all) == 0 || len(all) > MaxImages:
		return nil, nil, fmt.Errorf("swu: %d images: want 1 to %d, all with a mode or all without", len(all), MaxImages)
	}
	for _, m := range all {
		if !fileName.MatchString(m.Filename) || m.Filename == description || m.Filename == signature {
			return nil, nil, fmt.Errorf("swu: file name %q: want letters, digits, dots and dashes, at most 64", m.Filename)
		}
		if sum, err := hex.DecodeString(m.SHA256); err != nil || len(sum) != sha256.Size || m.Device == "" || m.Type != "raw" {
			return nil, nil, fmt.Errorf("swu: file %s: want a device, type raw and a SHA-256 digest", m.Filename)
		}
		switch have, ok := digests[m.Filename]; {
		case !ok:
			names, digests[m.Filename] = append(names, m.Filename), m.SHA256
		case have != m.SHA256:
			return nil, nil, fmt.Errorf("swu: file %s has two digests", m.Filename)
		}
	}
	return names, digests, nil
}

type document struct {
	Software Description `json:"software"`
}

func (d Description) encode() ([]byte, error) {
	if _, _, err := d.files(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(document{d})
	if err == nil && len(b) > MaxDescription {
		err = fmt.Errorf("swu: a description of %d bytes, at most %d", len(b), MaxDescription)
	}
	return b, err
}

// decode takes the one encoding of what a Description can say: SWUpdate would understand what is left out here.
func decode(b []byte) (Description, error) {
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		return Description{}, fmt.Errorf("swu: sw-description is not JSON as it is written here (`hallmark artifact write --as swu`): %w", err)
	}
	again, err := doc.Software.encode()
	if err != nil {
		return Description{}, err
	}
	if !bytes.Equal(again, b) {
		return Description{}, errors.New("swu: sw-description says more than is understood here, or says it in another way: write it by `hallmark artifact write --as swu`")
	}
	return doc.Software, nil
}

// Source is a file to be written; it is read twice.
type Source struct {
	Name string
	io.ReadSeeker
}

// Write writes an update: the digests of d's images are those of the files, whatever they were. sign makes a detached CMS signature of sw-description.
func Write(w io.Writer, d Description, sign func(description []byte) ([]byte, error), files ...Source) error {
	heads := map[string]head{}
	for _, f := range files {
		h, err := measure(f)
		if err != nil {
			return fmt.Errorf("swu: file %s: %w", f.Name, err)
		}
		heads[f.Name] = h
	}
	fill := func(list []Image) []Image {
		list = slices.Clone(list)
		for i, m := range list {
			list[i].SHA256 = fmt.Sprintf("%x", heads[m.Filename].digest)
		}
		return list
	}
	d.Images = fill(d.Images)
	modes := map[string]OneMode{}
	for name, m := range d.Stable {
		modes[name] = OneMode{fill(m.Images)}
	}
	d.Stable = modes
	b, err := d.encode()
	if err != nil {
		return err
	}
	names, _, err := d.files()
	if err != nil {
		return err
	}
	if len(names) != len(files) {
		return fmt.Errorf("swu: %d files, and the description names %d", len(files), len(names))
	}
	sig, err := sign(b)
	if err != nil {
		return err
	}
	out := writer{w: w}
	out.bytes(description, b)
	out.bytes(signature, sig)
	for _, name := range names {
		i := slices.IndexFunc(files, func(f Source) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("swu: the description names file %s, which is not there", name)
		}
		out.file(heads[name], files[i])
	}
	out.end()
	return out.err
}

// Read reads an update to its end.
func Read(r io.Reader) (Update, error) {
	in := reader{r: r}
	var u Update
	var err error
	if u.Signed, err = in.small(description); err != nil {
		return Update{}, err
	}
	if u.Description, err = decode(u.Signed); err != nil {
		return Update{}, err
	}
	names, digests, err := u.Description.files()
	if err != nil {
		return Update{}, err
	}
	h, err := in.next()
	if err == nil && h.name == signature {
		if u.Signature, err = in.all(h); err == nil {
			h, err = in.next()
		}
	}
	for _, name := range names {
		if err != nil {
			return Update{}, err
		}
		if h.name != name {
			return Update{}, fmt.Errorf("swu: file %q where the description has %q", h.name, name)
		}
		f, bad := in.measured(h)
		if bad != nil {
			return Update{}, bad
		}
		if hex.EncodeToString(f.Digest[:]) != digests[name] {
			return Update{}, fmt.Errorf("swu: file %s has digest %x, and the description says %s", name, f.Digest, digests[name])
		}
		u.Files = append(u.Files, f)
		h, err = in.next()
	}
	if err != nil {
		return Update{}, err
	}
	if h.name != trailer {
		return Update{}, fmt.Errorf("swu: file %q, which the description does not name", h.name)
	}
	return u, in.nothing()
}
