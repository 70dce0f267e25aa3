package factory

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// MasterSpec is what a master is made of.
type MasterSpec struct {
	OEM        string
	Product    string
	Hardware   string
	Revision   uint32 // counts up from 1 for each product and hardware
	Bundle     []byte // trust bundle's envelope
	Release    []byte // envelope, with its threshold of approvers
	Params     wire.DeviceParams
	SBOM       []byte // SHA-256 of the document
	Provenance []byte // SHA-256 of the document
	Payload    Source
	To         [][]byte // HPKE keys of those who may wrap orders of it
	Notes      string
}

// BuiltMaster is a master whose file can be written until it is forgotten.
type BuiltMaster struct {
	Master   wire.Master
	Envelope []byte

	seal    *wire.MasterSealing
	payload payload
}

// Size is how long the file is, bytes.
func (m *BuiltMaster) Size() int64 { return m.seal.Size(m.Envelope) }

// WriteFile writes the file. The components are read again, and must be the same.
func (m *BuiltMaster) WriteFile(ctx context.Context, to io.Writer) error {
	return m.payload.read(ctx, func(r io.Reader) error { return m.seal.Write(to, m.Envelope, r) })
}

func badMaster(format string, args ...any) error {
	f := fault.Newf(fault.Invalid, "master.invalid", format, args...).With("build the master again: `hallmark master build`")
	f.Text = "master: " + strings.TrimPrefix(f.Text, "master: ")
	return f
}

// refusedMaster is a master that is not what it has to be: it may be somebody's attempt.
func refusedMaster(code string, err error, remedy string) error {
	return &fault.Fault{Kind: fault.Denied, Code: "master." + code, Text: "master refused: " + strings.TrimPrefix(err.Error(), "master: "), Remedy: remedy, Cause: err}
}

// BuildMaster puts a development build together: everything is checked against what the release's approvers signed, sealed to those who may wrap it, and signed
// by one of the approvers. No component is in memory whole; they are read three times.
func BuildMaster(ctx context.Context, spec MasterSpec, approver crypto.Signer, now time.Time) (*BuiltMaster, error) {
	h, release, err := spec.header(now)
	if err != nil {
		return nil, err
	}
	p := payload{from: spec.Payload, components: release.Components}
	if err := p.check(ctx, spec.Params.Flash.SlotSize); err != nil {
		return nil, asMaster(err)
	}
	m := &BuiltMaster{payload: p}
	if m.seal, err = wire.SealMaster(h, wire.MasterContent{Bundle: spec.Bundle, Release: spec.Release, Params: spec.Params}, p.size(), spec.To...); err != nil {
		return nil, badMaster("%w", err)
	}
	var sum [32]byte
	if err := p.read(ctx, func(r io.Reader) (err error) {
		sum, err = m.seal.Add(r)
		return err
	}); err != nil {
		return nil, badMaster("%w", err)
	}
	if m.Envelope, err = m.seal.Sign(sum, approver); err != nil {
		return nil, badMaster("%w", err)
	}
	m.Master = m.seal.Master
	b, err := wire.VerifyBundle(nil, spec.Bundle)
	if err == nil {
		_, _, err = wire.VerifyMaster(b, m.Envelope)
	}
	if err != nil {
		return nil, refusedMaster("approver", err, "sign it with the key of one who approves this product's releases")
	}
	return m, nil
}

// asMaster tells of a component in a master what is told of it in an order.
func asMaster(err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Code == "order.invalid" {
		return &fault.Fault{Kind: f.Kind, Code: "master.invalid", Text: "master: " + strings.TrimPrefix(f.Text, "order: "), Remedy: f.Remedy, Cause: err}
	}
	return err
}

// header checks what comes in, and that it belongs together, before anything is read.
func (spec MasterSpec) header(now time.Time) (wire.MasterHeader, wire.Release, error) {
	none := func(err error) (wire.MasterHeader, wire.Release, error) {
		return wire.MasterHeader{}, wire.Release{}, err
	}
	b, err := wire.VerifyBundle(nil, spec.Bundle)
	if err != nil {
		return none(badMaster("trust bundle: %w", err))
	}
	r, digest, err := wire.VerifyRelease(b, spec.Release)
	if err != nil {
		return none(badMaster("release: %w", err))
	}
	switch {
	case b.Product != spec.Product || r.Product != spec.Product:
		return none(badMaster("the trust bundle is for product %q, the release for %q, and not both for %q", b.Product, r.Product, spec.Product))
	case !r.RunsOn(spec.Hardware):
		return none(badMaster("release %s is not for hardware %q", r.ID, spec.Hardware))
	case r.SBOM != nil && !bytes.Equal(r.SBOM, spec.SBOM):
		return none(badMaster("the SBOM is not the one that the release's approvers signed for"))
	case r.Provenance != nil && !bytes.Equal(r.Provenance, spec.Provenance):
		return none(badMaster("the provenance is not the one that the release's approvers signed for"))
	case len(spec.To) == 0:
		return none(badMaster("it is sealed to nobody: say who may wrap orders of it"))
	}
	params, err := wire.Marshal(spec.Params)
	if err != nil {
		return none(err)
	}
	bundle, par := sha256.Sum256(spec.Bundle), sha256.Sum256(params)
	return wire.MasterHeader{
		OEM: spec.OEM, Product: spec.Product, Hardware: spec.Hardware, Revision: spec.Revision, Version: r.Version, Counter: r.Counter, Release: digest[:],
		Bundle: bundle[:], Trust: b.Version, Params: par[:], SBOM: spec.SBOM, Provenance: spec.Provenance, Parts: wire.PartsOf(r), Created: uint64(max(now.Unix(), 0)), Notes: spec.Notes,
	}, r, nil
}

// CheckMaster reads a master's file to its end, and holds it against the digest in what is signed. Who signed it is for wire.VerifyMaster: nothing here is
// secret, and no key is needed.
func CheckMaster(file io.Reader) (wire.SealedHead, wire.Master, error) {
	const remedy = "ask who built it for the file again"
	head, err := wire.ReadSealedHead(file)
	if err != nil {
		return head, wire.Master{}, refusedMaster("changed", err, remedy)
	}
	m, err := wire.ReadMaster(head.Envelope)
	if err != nil {
		return head, m, refusedMaster("changed", err, remedy)
	}
	sum := wire.NewSealedSum(head.Content)
	for c := wire.NewChunks(file, head.Chunks); ; {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return head, m, refusedMaster("changed", err, remedy)
		}
		sum.Add(chunk)
	}
	if got := sum.Sum(); !bytes.Equal(got[:], m.Sealed) {
		return head, m, refusedMaster("changed", errors.New("its sealed content is not what was signed"), remedy)
	}
	return head, m, nil
}

// OpenedMaster is a master that was verified and opened: what an order of it is made of.
type OpenedMaster struct {
	Header  wire.MasterHeader
	Signer  []byte // SPKI of the approver
	Digest  [32]byte
	Bundle  []byte
	Release []byte
	Params  wire.DeviceParams

	chunk *wire.ChunkOpener
	parts []wire.Component
	head  wire.SealedHead
}

// Unsealer gives the private HPKE key of a wire.SealKeyID; ErrNotFound for one that is not here.
type Unsealer func(id []byte) ([]byte, error)

// OpenMaster verifies the head of a master against the trust bundle that is believed here, and opens it. The bundle in the master must be that one: what is
// put on devices is what was signed, and not an older state of who is believed.
func OpenMaster(oem string, trusted []byte, head wire.SealedHead, keys Unsealer) (*OpenedMaster, error) {
	b, err := wire.VerifyBundle(nil, trusted)
	if err != nil {
		return nil, fmt.Errorf("the trust bundle that is believed: %w", err)
	}
	m, signer, err := wire.VerifyMaster(b, head.Envelope)
	if err != nil {
		return nil, refusedMaster("approver", err, "have it built and signed by one who approves this product's releases")
	}
	h, sum := m.Header, sha256.Sum256(trusted)
	switch {
	case h.OEM != oem:
		return nil, refusedMaster("oem", fmt.Errorf("it is of maker %q, and this is %q", h.OEM, oem), "take a master of this maker")
	case !bytes.Equal(h.Bundle, sum[:]):
		return nil, refusedMaster("bundle", fmt.Errorf("it was built with trust bundle %d, and %d is believed here", h.Trust, b.Version), "build the master anew, with the trust bundle in force")
	}
	o := &OpenedMaster{Header: h, Signer: signer, Digest: sha256.Sum256(head.Envelope), head: head}
	content, err := o.open(m, keys)
	if err != nil {
		return nil, err
	}
	r, digest, err := wire.VerifyRelease(b, content.Release)
	if err == nil && (!bytes.Equal(digest[:], h.Release) || r.Version != h.Version || r.Counter != h.Counter || !r.RunsOn(h.Hardware)) {
		err = errors.New("the release in it is not the one that was signed")
	}
	if err != nil {
		return nil, refusedMaster("release", err, "build the master anew, of a release with enough approvers")
	}
	o.Bundle, o.Release, o.Params, o.parts = content.Bundle, content.Release, content.Params, r.Components
	return o, nil
}

// open finds a key that is here among those that the master is sealed to.
func (o *OpenedMaster) open(m wire.Master, keys Unsealer) (wire.MasterContent, error) {
	for _, k := range m.Keys {
		private, err := keys(k.Key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return wire.MasterContent{}, err
		}
		content, chunk, err := m.Open(k.Key, private, o.head.Content, o.head.Chunks)
		clear(private)
		if err != nil {
			return wire.MasterContent{}, refusedMaster("changed", err, "ask who built it for the file again")
		}
		o.chunk = chunk
		return content, nil
	}
	return wire.MasterContent{}, refusedMaster("sealed", errors.New("it is sealed for others"), "have it built for this one too: `hallmark master build --to FILE`")
}

// Spec fills in what the master says of an order: trust bundle, release, parameters; product and hardware must be its own.
func (o *OpenedMaster) Spec(spec OrderSpec) (OrderSpec, error) {
	if spec.Product != o.Header.Product || spec.Hardware != o.Header.Hardware {
		return spec, refusedMaster("product", fmt.Errorf("it is for %s %s, and the order for %s %s", o.Header.Product, o.Header.Hardware, spec.Product, spec.Hardware), "take the master of what is ordered")
	}
	spec.Bundle, spec.Release, spec.Params = o.Bundle, o.Release, o.Params
	return spec, nil
}

// Source reads components out of the master's file, which CheckMaster read.
func (o *OpenedMaster) Source(file io.ReaderAt) Source {
	return func(_ context.Context, name string) (io.ReadCloser, error) {
		at := uint64(0)
		for _, c := range o.parts {
			if c.Name == name {
				return o.reader(file, at, c.Size), nil
			}
			at += c.Size
		}
		return nil, fmt.Errorf("component %q is not in the master", name)
	}
}

// reader reads size bytes of the payload from at on. Chunks before the one that at is in are not read: all of them are full, with 5 bytes of head (RFC 8949 §3).
func (o *OpenedMaster) reader(file io.ReaderAt, at, size uint64) io.ReadCloser {
	const sealedChunk, end = 5 + wire.OrderChunk + 16, 1 << 62
	first := int(at / wire.OrderChunk)
	in := io.NewSectionReader(file, o.head.Size+int64(first)*sealedChunk, end)
	return io.NopCloser(&masterReader{o: o, in: wire.NewChunks(bufio.NewReader(in), o.head.Chunks-first), next: first, skip: int(at % wire.OrderChunk), left: size})
}

// masterReader reads part of the payload, chunk by chunk.
type masterReader struct {
	o     *OpenedMaster
	in    *wire.Chunks
	next  int // chunk
	skip  int // of the first chunk, bytes
	left  uint64
	plain []byte
}

func (r *masterReader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(r.plain) == 0 {
		sealed, err := r.in.Next()
		if errors.Is(err, io.EOF) {
			err = wire.ErrFileEnds
		}
		if err != nil {
			return 0, fmt.Errorf("master: %w", err)
		}
		if r.plain, err = r.o.chunk.Open(r.next, sealed); err != nil {
			return 0, fmt.Errorf("master: %w", err)
		}
		if len(r.plain) <= r.skip {
			return 0, fmt.Errorf("master: chunk %d is too short", r.next)
		}
		r.plain = r.plain[r.skip:]
		r.next, r.skip = r.next+1, 0
	}
	n := copy(b, r.plain[:min(uint64(len(r.plain)), r.left)])
	r.plain, r.left = r.plain[n:], r.left-uint64(n)
	return n, nil
}

// MasterRef is which master an order was made of.
type MasterRef struct {
	Product  string `json:"product"`
	Hardware string `json:"hardware"`
	Revision uint32 `json:"revision"`
	Digest   string `json:"digest" doc:"SHA-256 of the signed master, hex"`
}

// Ref names the master.
func (o *OpenedMaster) Ref() MasterRef {
	return MasterRef{Product: o.Header.Product, Hardware: o.Header.Hardware, Revision: o.Header.Revision, Digest: hex.EncodeToString(o.Digest[:])}
}

// Follows says why an order of m is refused where one of before, of the same product and hardware, was made. Old masters are signed like new ones: without
// this, who has one could have devices made with parameters that were given up. Two masters of one revision are somebody's mistake, or attempt.
func (m MasterRef) Follows(before MasterRef) error {
	switch {
	case m.Revision < before.Revision:
		return refusedMaster("old", fmt.Errorf("revision %d of %s %s, and orders were made of revision %d", m.Revision, m.Product, m.Hardware, before.Revision),
			"take the newer master; where the older is meant, build it again under a higher revision")
	case m.Revision == before.Revision && m.Digest != before.Digest:
		return refusedMaster("twice", fmt.Errorf("there is another revision %d of %s %s, of which orders were made", m.Revision, m.Product, m.Hardware),
			"find out who built two; build the one that is meant again under a higher revision")
	}
	return nil
}

// MasterUsed is the data of an order.mastered fact. What a desk says of its masters is its word: it is noted with the order, and makes no other master an old one.
type MasterUsed struct {
	MasterRef
	Desk string `json:"desk,omitempty"` // whose word it is; empty: this instance verified the master
}

// OldMasterError says that a master does not follow the one that is known.
type OldMasterError struct{ Known MasterRef }

func (e *OldMasterError) Error() string { return fmt.Sprintf("master %d is known", e.Known.Revision) }

// ReleaseOfMaster reads which release a master claims to be of, so that it can be looked up; hex. begin is how the file begins.
func ReleaseOfMaster(begin []byte) (string, error) {
	h, err := masterHead(begin)
	if err != nil {
		return "", err
	}
	m, err := wire.ReadMaster(h.Envelope)
	if err != nil {
		return "", badMaster("%w", err)
	}
	return hex.EncodeToString(m.Header.Release), nil
}

// masterHead reads how a master's file begins; what follows is not looked at.
func masterHead(data []byte) (wire.SealedHead, error) {
	h, err := wire.ReadSealedHead(bytes.NewReader(data))
	if err != nil {
		return h, badMaster("%w", err)
	}
	return h, nil
}

// ofMaster has a spec say what its master does, if it has one, and keeps the master. Its trust bundle is the one in force, and its release was published; the master
// must be of both.
func (s *Service) ofMaster(ctx context.Context, caller access.Caller, spec OrderSpec) (OrderSpec, *MasterRef, error) {
	if len(spec.Master) == 0 {
		return spec, nil, nil
	}
	head, err := masterHead(spec.Master)
	if err != nil {
		return spec, nil, err
	}
	m, err := OpenMaster(s.c.OEM, spec.Bundle, head, s.c.SealKeys.Private)
	if err != nil {
		return spec, nil, err
	}
	if spec, err = m.Spec(spec); err == nil {
		err = s.keep(ctx, caller, m, spec.Master)
	}
	if err != nil {
		return spec, nil, err
	}
	ref := m.Ref()
	return spec, &ref, nil
}
