package mender

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Read reads an artifact to its end.
func Read(r io.Reader) (Artifact, error) {
	t := tar.NewReader(r)
	version, err := small(t, nameVersion)
	if err != nil {
		return Artifact{}, err
	}
	if string(version) != versionFile {
		return Artifact{}, errors.New("mender: not an artifact of format 3")
	}
	var a Artifact
	if a.Manifest, err = small(t, nameManifest); err != nil {
		return Artifact{}, err
	}
	h, err := next(t)
	if err == nil && h.Name == nameSig {
		var text []byte
		if text, err = content(t, h); err == nil {
			if a.Signature, err = base64.StdEncoding.Strict().DecodeString(string(text)); err != nil {
				err = fmt.Errorf("%w: %w", ErrSignature, err)
			}
		}
		if err == nil {
			h, err = next(t)
		}
	}
	if err != nil {
		return Artifact{}, err
	}
	if h.Name != nameHeader {
		return Artifact{}, fmt.Errorf("mender: file %q where %s should be", h.Name, nameHeader)
	}
	header, err := content(t, h)
	if err != nil {
		return Artifact{}, err
	}
	if err := a.readHeader(header); err != nil {
		return Artifact{}, err
	}
	if h, err = next(t); err != nil {
		return Artifact{}, err
	}
	if h.Name != nameData {
		return Artifact{}, fmt.Errorf("mender: file %q where %s should be", h.Name, nameData)
	}
	if err := a.readPayload(t); err != nil {
		return Artifact{}, err
	}
	if err := end(t, r); err != nil {
		return Artifact{}, err
	}
	if err := check(a.Info, a.Type, a.File); err != nil {
		return Artifact{}, err
	}
	if !bytes.Equal(a.Manifest, manifestOf(a.File, a.Digest, sha256.Sum256(header))) {
		return Artifact{}, errors.New("mender: the manifest has other digests than what is in the artifact, or names something else")
	}
	return a, nil
}

func (a *Artifact) readHeader(header []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(header))
	if err != nil {
		return fmt.Errorf("mender: header: %w", err)
	}
	in := io.LimitReader(z, 4*maxHeader) // a bomb ends in the middle
	t := tar.NewReader(in)
	for _, part := range []struct {
		name string
		into any
	}{{nameInfo, &a.Info}, {nameType, &a.Type}} {
		data, err := small(t, part.name)
		if err != nil {
			return err
		}
		if err := strict(data, part.into); err != nil {
			return fmt.Errorf("mender: %s: %w", part.name, err)
		}
	}
	if h, err := next(t); err == nil { // what an update module is told beside it: nothing
		if h.Name != nameMeta || h.Size != 0 {
			return fmt.Errorf("mender: file %q in the header, of %d bytes, is not understood here", h.Name, h.Size)
		}
	} else if !errors.Is(err, errEnd) {
		return err
	} else {
		return nil
	}
	return end(t, in)
}

// strict reads JSON whose members are all known, and are written as here: a reader that takes members in any case, or twice, would believe something else than one that does not.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("it says more than is understood here, or in another way")
	}
	return nil
}

func (a *Artifact) readPayload(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("mender: payload: %w", err)
	}
	t := tar.NewReader(z)
	h, err := next(t)
	if err != nil {
		return err
	}
	if h.Size == 0 || h.Size > maxPayload {
		return fmt.Errorf("mender: a payload of %d bytes, at most %d", h.Size, int64(maxPayload))
	}
	sum := sha256.New()
	n, err := io.CopyN(sum, t, h.Size)
	if err != nil {
		return fmt.Errorf("mender: payload: %w", err)
	}
	a.File, a.Size, a.Digest = h.Name, uint64(n), [32]byte(sum.Sum(nil))
	if err := end(t, z); err != nil {
		return err
	}
	if n, _ := io.Copy(io.Discard, r); n != 0 {
		return errors.New("mender: something behind the payload")
	}
	return nil
}

var errEnd = errors.New("mender: the artifact ends too early")

// next is the next file of a tar; only files are in it.
func next(t *tar.Reader) (*tar.Header, error) {
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		return nil, errEnd
	}
	if err != nil {
		return nil, fmt.Errorf("mender: %w", err)
	}
	if h.Typeflag != tar.TypeReg || h.PAXRecords != nil {
		return nil, fmt.Errorf("mender: %q is no plain file", h.Name)
	}
	return h, nil
}

func content(t *tar.Reader, h *tar.Header) ([]byte, error) {
	if h.Size > maxHeader {
		return nil, fmt.Errorf("mender: %s of %d bytes, at most %d", h.Name, h.Size, maxHeader)
	}
	b, err := io.ReadAll(t)
	if err != nil {
		return nil, fmt.Errorf("mender: %s: %w", h.Name, err)
	}
	return b, nil
}

func small(t *tar.Reader, name string) ([]byte, error) {
	h, err := next(t)
	if err != nil {
		return nil, err
	}
	if h.Name != name {
		return nil, fmt.Errorf("mender: file %q where %s should be", h.Name, name)
	}
	return content(t, h)
}

// end: nothing follows but the zeros that fill a tar.
func end(t *tar.Reader, r io.Reader) error {
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("mender: something that does not belong there"), err)
	}
	rest, err := io.ReadAll(io.LimitReader(r, 16<<10))
	if err != nil {
		return fmt.Errorf("mender: %w", err)
	}
	if len(bytes.Trim(rest, "\x00")) != 0 || len(rest) == 16<<10 {
		return errors.New("mender: something behind the end")
	}
	return nil
}

// Head is what a client has to be told of an artifact before it fetches it.
type Head struct {
	Name        string   // artifact_name
	DeviceTypes []string // that take it
}

// ReadHead reads the beginning of an artifact of format 3, up to its header-info, whatever is behind it: artifacts with scripts, several payloads or another compression of those are no other to a
// server. It checks no digest: the bytes are known by their own. An error says that it is no such artifact, or one that no client would take.
func ReadHead(r io.Reader) (Head, error) {
	t := tar.NewReader(r)
	version, err := small(t, nameVersion)
	if err != nil {
		return Head{}, err
	}
	var v struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(version, &v); err != nil || v.Format != "mender" || v.Version != 3 {
		return Head{}, errors.New("mender: not an artifact of format 3")
	}
	for {
		h, err := next(t)
		if err != nil {
			return Head{}, err
		}
		switch h.Name {
		case nameManifest, nameSig, "manifest-augment":
			continue
		case nameHeader:
			z, err := gzip.NewReader(t)
			if err != nil {
				return Head{}, fmt.Errorf("mender: header: %w", err)
			}
			return headOf(z)
		case strings.TrimSuffix(nameHeader, ".gz"):
			return headOf(t)
		}
		return Head{}, fmt.Errorf("mender: file %q before the header", h.Name)
	}
}

func headOf(r io.Reader) (Head, error) {
	data, err := small(tar.NewReader(io.LimitReader(r, 4*maxHeader)), nameInfo) // a bomb ends in the middle
	if err != nil {
		return Head{}, err
	}
	var i Info
	if err := json.Unmarshal(data, &i); err != nil {
		return Head{}, fmt.Errorf("mender: %s: %w", nameInfo, err)
	}
	h := Head{Name: i.Provides.Name, DeviceTypes: i.Depends.DeviceTypes}
	if h.Name == "" || len(h.Name) > MaxName || len(h.DeviceTypes) == 0 {
		return Head{}, fmt.Errorf("mender: %s: a name of at most %d bytes and types of devices are needed", nameInfo, MaxName)
	}
	return h, nil
}
