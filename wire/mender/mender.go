// Package mender reads and writes artifacts of Mender's, format 3.
//
// Stage 3, field. A component of a release may be such an artifact, for a client of Mender's on the device. It is written and signed where the key is; the release names the bytes that came of it, and the
// server reads them once more.
//
//	artifact = tar of: version, manifest, [manifest.sig], header.tar.gz, data/0000.tar.gz
//	manifest = lines of "SHA-256 (hex), two blanks, name", in the order of names: each payload file (data/0000/NAME, not compressed), header.tar.gz, version
//	header   = tar of: header-info, headers/0000/type-info, headers/0000/meta-data, all JSON
//
// One payload of one file, compressed by gzip, is what is read and written here. The signature is over the manifest: ECDSA on P-256, r ‖ s, in base64.
//
// What it guarantees: every digest of the manifest is that of what is in the artifact, there is nothing else in it, and the JSON in it says no more than is understood here. It holds no payload in memory.
package mender

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strings"
)

// MaxName bounds an artifact's name, bytes.
const MaxName = 128

// Bounds of what is read, bytes.
const (
	maxHeader  = 64 << 10
	maxPayload = 16 << 30
)

const (
	nameVersion  = "version"
	nameManifest = "manifest"
	nameSig      = "manifest.sig"
	nameHeader   = "header.tar.gz"
	nameData     = "data/0000.tar.gz"
	dataPrefix   = "data/0000/"

	nameInfo = "header-info"
	nameType = "headers/0000/type-info"
	nameMeta = "headers/0000/meta-data"

	versionFile = `{"format":"mender","version":3}`
)

// Info is what an artifact says of itself.
type Info struct {
	Payloads []Payload `json:"payloads"`
	Provides struct {
		Name  string `json:"artifact_name"`
		Group string `json:"artifact_group,omitempty"`
	} `json:"artifact_provides"`
	Depends struct {
		DeviceTypes []string `json:"device_type"`
	} `json:"artifact_depends"`
}

// Payload is what the client does with it: rootfs-image, or the name of an update module.
type Payload struct {
	Type string `json:"type"`
}

// TypeInfo says what a device has once the payload is installed.
type TypeInfo struct {
	Type     string            `json:"type"`
	Provides map[string]string `json:"artifact_provides,omitempty"`
	Clears   []string          `json:"clears_artifact_provides,omitempty"`
}

// Artifact is what was read.
type Artifact struct {
	Info      Info
	Type      TypeInfo
	Manifest  []byte // what the signature is over
	Signature []byte // r ‖ s; empty: there is none
	File      string
	Size      uint64 // bytes
	Digest    [32]byte
}

// ErrSignature says that an artifact is not by the key that it should be by.
var ErrSignature = errors.New("mender: signature")

var (
	fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	kindName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

// Options are what an artifact is made with.
type Options struct {
	Name        string   // artifact_name: what the client reports
	Version     string   // of the software, among what it provides
	DeviceTypes []string // of devices that take it
	Type        string   // rootfs-image, or an update module
	File        string   // the payload's name
}

func (o Options) header() (Info, TypeInfo, error) {
	var i Info
	i.Payloads = []Payload{{o.Type}}
	i.Provides.Name, i.Depends.DeviceTypes = o.Name, o.DeviceTypes
	software := "rootfs-image"
	if o.Type != software {
		software += "." + o.Type
	}
	t := TypeInfo{Type: o.Type, Provides: map[string]string{software + ".version": o.Version}, Clears: []string{software + ".*"}}
	return i, t, check(i, t, o.File)
}

func check(i Info, t TypeInfo, file string) error {
	switch {
	case len(i.Payloads) != 1 || !kindName.MatchString(i.Payloads[0].Type) || t.Type != i.Payloads[0].Type:
		return errors.New("mender: want one payload, of a type that is said twice alike")
	case i.Provides.Name == "" || len(i.Provides.Name) > MaxName || len(i.Depends.DeviceTypes) == 0:
		return errors.New("mender: no artifact name or device type")
	case !fileName.MatchString(file):
		return fmt.Errorf("mender: file name %q: want letters, digits, dots and dashes, at most 64", file)
	}
	return nil
}

// Version is that of the software, of whatever kind, that a device has with it; empty: it says none, or several.
func (t TypeInfo) Version() string {
	version := ""
	for k, v := range t.Provides {
		if !strings.HasSuffix(k, ".version") {
			continue
		}
		if version != "" && version != v {
			return ""
		}
		version = v
	}
	return version
}

// Write writes an artifact of one file, which is read twice. key signs it: P-256.
func Write(w io.Writer, o Options, key crypto.Signer, file io.ReadSeeker) error {
	info, typ, err := o.header()
	if err != nil {
		return err
	}
	header, err := headerTar(info, typ)
	if err != nil {
		return err
	}
	sum, size := sha256.New(), counter(0)
	plain, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	if plain == 0 || plain > maxPayload {
		return fmt.Errorf("mender: a payload of %d bytes, at most %d", plain, int64(maxPayload))
	}
	if err := payload(&size, o.File, plain, file); err != nil {
		return err
	}
	manifest := manifestOf(o.File, [32]byte(sum.Sum(nil)), sha256.Sum256(header))
	sig, err := sign(key, manifest)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{nameVersion, []byte(versionFile)}, {nameManifest, manifest}, {nameSig, []byte(base64.StdEncoding.EncodeToString(sig))}, {nameHeader, header}} {
		if err := add(t, f.name, f.data); err != nil {
			return err
		}
	}
	if err := t.WriteHeader(entry(nameData, int64(size))); err != nil {
		return err
	}
	if err := payload(t, o.File, plain, file); err != nil {
		return err
	}
	return t.Close()
}

// counter counts what is written.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func entry(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatGNU}
}

func add(t *tar.Writer, name string, data []byte) error {
	if err := t.WriteHeader(entry(name, int64(len(data)))); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

// payload writes data/0000.tar.gz: the same bytes each time.
func payload(w io.Writer, name string, size int64, file io.ReadSeeker) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	if err := t.WriteHeader(entry(name, size)); err != nil {
		return err
	}
	if _, err := io.CopyN(t, file, size); err != nil {
		return err
	}
	return errors.Join(t.Close(), z.Close())
}

func headerTar(i Info, t TypeInfo) ([]byte, error) {
	info, err := json.Marshal(i)
	if err != nil {
		return nil, err
	}
	typ, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err = errors.Join(add(w, nameInfo, info), add(w, nameType, typ), add(w, nameMeta, nil), w.Close(), z.Close())
	if err == nil && b.Len() > maxHeader {
		err = fmt.Errorf("mender: a header of %d bytes, at most %d", b.Len(), maxHeader)
	}
	return b.Bytes(), err
}

func manifestOf(file string, data, header [32]byte) []byte {
	return fmt.Appendf(nil, "%x  %s%s\n%x  %s\n%x  %s\n", data, dataPrefix, file, header, nameHeader, sha256.Sum256([]byte(versionFile)), nameVersion)
}

// point is a signature as ASN.1 has it.
type point struct{ R, S *big.Int }

func sign(key crypto.Signer, manifest []byte) ([]byte, error) {
	if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return nil, fmt.Errorf("mender: a key of type %T: artifacts are signed by P-256 here", key.Public())
	}
	sum := sha256.Sum256(manifest)
	der, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var p point
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) != 0 || p.R.BitLen() > 256 || p.S.BitLen() > 256 || p.R.Sign() < 0 || p.S.Sign() < 0 {
		return nil, fmt.Errorf("mender: the key gave no signature of P-256's: %w", err)
	}
	out := make([]byte, 64)
	p.R.FillBytes(out[:32])
	p.S.FillBytes(out[32:])
	return out, nil
}

// Verify checks the signature by pub.
func (a Artifact) Verify(pub crypto.PublicKey) error {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return fmt.Errorf("mender: a key of type %T: artifacts are signed by P-256 here", pub)
	}
	sum := sha256.Sum256(a.Manifest)
	if len(a.Signature) != 64 || !ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(a.Signature[:32]), new(big.Int).SetBytes(a.Signature[32:])) {
		return fmt.Errorf("%w: there is none by this key", ErrSignature)
	}
	return nil
}
