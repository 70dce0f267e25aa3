package factory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// MaxDocument bounds an SBOM or a provenance document, bytes.
const MaxDocument = 64 << 20

// DocumentKind is what a document of a build says.
type DocumentKind string

// The documents that a master names.
const (
	SBOM       DocumentKind = "sbom"       // what is in it
	Provenance DocumentKind = "provenance" // where it was built from what
)

// Document is one that a master names.
type Document struct {
	Digest string `json:"digest" doc:"SHA-256, hex: what the master's approver signed for"`
	Size   int64  `json:"size,omitempty" doc:"bytes; none: it is not here"`
}

// KeptMaster is a master that was given to this instance.
type KeptMaster struct {
	MasterRef
	Version    string    `json:"version"`
	Counter    uint32    `json:"counter" doc:"security counter of the release"`
	Release    string    `json:"release" doc:"digest, hex"`
	Bundle     string    `json:"bundle" doc:"SHA-256 of the trust bundle that devices leave with, hex"`
	Trust      uint64    `json:"trust" doc:"its version"`
	SBOM       Document  `json:"sbom"`
	Provenance Document  `json:"provenance"`
	Size       uint64    `json:"size" doc:"of its components, bytes"`
	Notes      string    `json:"notes,omitempty"`
	Built      time.Time `json:"built" doc:"as its approver says"`
	Created    time.Time `json:"created" doc:"when it was given to this instance"`
	By         string    `json:"by"`
	WhyNot     string    `json:"why_not,omitempty" doc:"why nothing is ordered of it now; none: it may be"`

	Head  []byte     `json:"-"` // how its file begins, up to the first chunk
	Newer *MasterRef `json:"-"` // of its product and hardware, of which orders were made last; nil: none
}

// Masters keeps masters. Every write is durable when it returns nil.
type Masters interface {
	// KeepMaster keeps one that is not here yet, by its digest; one that is stays as it is.
	KeepMaster(ctx context.Context, m KeptMaster) error
	// Master gives one with its head; ErrNotFound for a digest that is not here.
	Master(ctx context.Context, digest string) (KeptMaster, error)
	// Masters gives those of a product, all with an empty one, newest first, from behind the one with the digest after on, at most limit, without heads.
	Masters(ctx context.Context, product, after string, limit int) ([]KeptMaster, error)
	// KeepDocument remembers how long a document of a master is that is here now.
	KeepDocument(ctx context.Context, digest string, kind DocumentKind, size int64) error
}

// Documents keeps bytes by their SHA-256.
type Documents interface {
	// Put stores what r gives, whole and durable or not at all. More than limit bytes, none, and what reading fails with are errors.
	Put(ctx context.Context, r io.Reader, limit int64) (digest [32]byte, size int64, err error)
	// Open gives bytes that have been verified.
	Open(ctx context.Context, digest [32]byte) (io.ReadSeekCloser, error)
}

// TakeMaster keeps a master of a product that orders may be made of, by how its file begins: what follows the head in begin is not looked at, because an order's
// bytes are those of the release. bundle is the product's trust bundle in force (envelope). The same again changes nothing.
func (s *Service) TakeMaster(ctx context.Context, caller access.Caller, product string, begin, bundle []byte) (KeptMaster, error) {
	if err := s.MayOrder(ctx, caller, "", product); err != nil {
		return KeptMaster{}, err
	}
	head, err := masterHead(begin)
	if err != nil {
		return KeptMaster{}, err
	}
	m, err := OpenMaster(s.c.OEM, bundle, head, s.c.SealKeys.Private)
	if err == nil && m.Header.Product != product {
		err = refusedMaster("product", fmt.Errorf("it is for product %s, not %s", m.Header.Product, product), "take it in for its own product")
	}
	if err == nil {
		err = s.keep(ctx, caller, m, begin)
	}
	if err != nil {
		return KeptMaster{}, err
	}
	return s.kept(ctx, m.Ref().Digest)
}

// keep remembers an opened master. Documents that came with its release are here already.
func (s *Service) keep(ctx context.Context, caller access.Caller, m *OpenedMaster, begin []byte) error {
	h := m.Header
	k := KeptMaster{
		MasterRef: m.Ref(), Version: h.Version, Counter: h.Counter, Release: hex.EncodeToString(h.Release), Bundle: hex.EncodeToString(h.Bundle), Trust: h.Trust,
		Size: sizeOfParts(h.Parts), Notes: h.Notes, Built: time.Unix(int64(h.Created), 0).UTC(), Created: s.c.Now().UTC().Truncate(time.Millisecond), By: caller.ID,
		Head: bytes.Clone(begin[:m.head.Size]),
	}
	for _, d := range []struct {
		sum []byte
		to  *Document
	}{{h.SBOM, &k.SBOM}, {h.Provenance, &k.Provenance}} {
		*d.to = Document{Digest: hex.EncodeToString(d.sum), Size: s.sizeOf(ctx, [32]byte(d.sum))}
	}
	return s.c.Masters.KeepMaster(ctx, k)
}

func sizeOfParts(parts []wire.MasterPart) (n uint64) {
	for _, p := range parts {
		n += p.Size
	}
	return n
}

// sizeOf is how long a document is; 0: it is not here, or not as it was.
func (s *Service) sizeOf(ctx context.Context, digest [32]byte) int64 {
	f, err := s.c.Documents.Open(ctx, digest)
	if err != nil {
		return 0
	}
	n, err := f.Seek(0, io.SeekEnd)
	if errors.Join(err, f.Close()) != nil {
		return 0
	}
	return n
}

// kept reads one, and says whether orders may be made of it.
func (s *Service) kept(ctx context.Context, digest string) (KeptMaster, error) {
	m, err := s.c.Masters.Master(ctx, digest)
	if errors.Is(err, ErrNotFound) {
		return m, unknownMaster(digest)
	}
	if err != nil {
		return m, err
	}
	m.WhyNot, err = s.whyNot(ctx, m)
	return m, err
}

func unknownMaster(digest string) error {
	return fault.New(fault.NotFound, "master.unknown", fmt.Sprintf("no master %.64q was given to this instance", digest), "take it in: `hallmark master take FILE`")
}

// whyNot says why nothing is ordered of a master now; empty: it may be.
func (s *Service) whyNot(ctx context.Context, m KeptMaster) (string, error) {
	if m.Newer != nil {
		if old := m.Follows(*m.Newer); old != nil {
			return old.Error(), nil //nolint:nilerr // why not is what was asked
		}
	}
	bundle, err := hex.DecodeString(m.Bundle)
	if err != nil || len(bundle) != 32 {
		return "", fmt.Errorf("stored master %s: trust bundle %q", m.Digest, m.Bundle)
	}
	release, err := hex.DecodeString(m.Release)
	if err != nil || len(release) != 32 {
		return "", fmt.Errorf("stored master %s: release %q", m.Digest, m.Release)
	}
	k, missing, err := s.stock(ctx, m.Product, [32]byte(bundle), [32]byte(release))
	if errors.Is(err, ErrNotFound) {
		return missing + " was never published here", nil
	}
	if err != nil {
		return "", err
	}
	_, _, late, never := k.judge(m.Product, m.Hardware)
	switch {
	case never != nil:
		return never.Error(), nil //nolint:nilerr // why not is what was asked
	case late != nil:
		return late.Error(), nil
	}
	return "", nil
}

// Master gives one that was given to this instance.
func (s *Service) Master(ctx context.Context, caller access.Caller, digest string) (KeptMaster, error) {
	m, err := s.kept(ctx, digest)
	if denied := s.c.Guard.Check(ctx, caller, access.OrderRead, resource("", m.Product)); denied != nil {
		return KeptMaster{}, denied
	}
	return m, err
}

// Masters gives those of a product, all with an empty one, newest first, from behind the one with the digest after on.
func (s *Service) Masters(ctx context.Context, caller access.Caller, product, after string, limit int) ([]KeptMaster, error) {
	if err := s.c.Guard.Check(ctx, caller, access.OrderRead, resource("", product)); err != nil {
		return nil, err
	}
	all, err := s.c.Masters.Masters(ctx, product, after, limit)
	if err != nil {
		return nil, err
	}
	for i, m := range all {
		if all[i].WhyNot, err = s.whyNot(ctx, m); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// document names one of a master's, and its digest.
func (s *Service) document(ctx context.Context, caller access.Caller, action access.Action, master string, kind DocumentKind) ([32]byte, error) {
	m, err := s.c.Masters.Master(ctx, master)
	if errors.Is(err, ErrNotFound) {
		err = unknownMaster(master)
	}
	if denied := s.c.Guard.Check(ctx, caller, action, resource("", m.Product)); denied != nil {
		err = denied
	}
	if err != nil {
		return [32]byte{}, err
	}
	d, ok := map[DocumentKind]Document{SBOM: m.SBOM, Provenance: m.Provenance}[kind]
	if !ok {
		return [32]byte{}, fault.New(fault.NotFound, "master.document", fmt.Sprintf("a master names no document %.32q", kind), "ask for sbom or provenance")
	}
	sum, err := hex.DecodeString(d.Digest)
	if err != nil || len(sum) != sha256.Size {
		return [32]byte{}, fmt.Errorf("stored master %s: %s %q", m.Digest, kind, d.Digest)
	}
	return [32]byte(sum), nil
}

// GiveDocument keeps a document that a master names, and no other bytes. The same again changes nothing.
func (s *Service) GiveDocument(ctx context.Context, caller access.Caller, master string, kind DocumentKind, r io.Reader) (KeptMaster, error) {
	want, err := s.document(ctx, caller, access.OrderCreate, master, kind)
	if err != nil {
		return KeptMaster{}, err
	}
	_, size, err := s.c.Documents.Put(ctx, &heldAgainst{r: r, kind: kind, want: want, sum: sha256.New(), left: MaxDocument}, MaxDocument)
	if err != nil {
		return KeptMaster{}, err
	}
	if err := s.c.Masters.KeepDocument(ctx, master, kind, size); err != nil {
		return KeptMaster{}, err
	}
	return s.kept(ctx, master)
}

// OpenDocument gives a document that a master names, verified.
func (s *Service) OpenDocument(ctx context.Context, caller access.Caller, master string, kind DocumentKind) (io.ReadSeekCloser, error) {
	digest, err := s.document(ctx, caller, access.OrderRead, master, kind)
	if err != nil {
		return nil, err
	}
	f, err := s.c.Documents.Open(ctx, digest)
	if err != nil {
		return nil, &fault.Fault{
			Kind: fault.NotFound, Code: "master.document", Text: fmt.Sprintf("the %s of master %s is not here, or not as it was", kind, master),
			Remedy: "give it: `hallmark master take FILE --" + string(kind) + " FILE`", Cause: err,
		}
	}
	return f, nil
}

// heldAgainst ends with an error where what it gave is not what it should be, so that nothing else is ever stored.
type heldAgainst struct {
	r    io.Reader
	kind DocumentKind
	want [32]byte
	sum  hash.Hash
	left int64
}

func (h *heldAgainst) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	h.sum.Write(b[:n])
	if h.left -= int64(n); h.left < 0 {
		return n, fault.New(fault.Invalid, "master.document", fmt.Sprintf("the %s has more than %d bytes", h.kind, MaxDocument), "name a shorter one in the master")
	}
	if errors.Is(err, io.EOF) && [32]byte(h.sum.Sum(nil)) != h.want {
		return n, fault.New(fault.Invalid, "master.document", fmt.Sprintf("this is not the %s that the master names, which has the digest %x", h.kind, h.want), "give the file that the master was built with")
	}
	return n, err
}
