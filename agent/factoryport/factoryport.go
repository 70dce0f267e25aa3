// Package factoryport is the device's side of being made: it answers a programming station until the fuses are burnt.
//
// Stage 2, birth, on the device. It speaks the protocol of wire/programmer.go over any byte stream and drives a Target, which is
// the device itself. What it guarantees: steps come in the protocol's order and once each; nothing is laid down that does not
// hold together (certificate, keys, bundle, release and bytes belong to each other and to this piece); the fuses are burnt only
// after a read-back. It trusts the station as far as a blank device must: who owns the first station owns the device, which is why
// the station's record and the OEM's ledger tell on it afterwards.
package factoryport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Target is the piece being made. Calls come in the order written here.
type Target interface {
	// Hello says what the blank piece is.
	Hello(ctx context.Context) (wire.ChipHello, error)
	// GenerateKeys makes the identity and the attestation key in the device's key store and gives the two public keys (SPKI) and
	// where they live. It may be called again after a cut: the old keys are forgotten.
	GenerateKeys(ctx context.Context) (idevid, attest []byte, origin string, err error)
	// Prove signs digest (SHA-256) with both keys (ECDSA, ASN.1).
	Prove(ctx context.Context, digest [32]byte) (byIDevID, byAttest []byte, err error)
	// Install lays down identity, bundle, release and parameters, durably. All of it was checked.
	Install(ctx context.Context, i wire.Install, r wire.Release) error
	// Write lays down the next bytes of a component. Offsets have no gaps; the digest is checked before ReadBack.
	Write(ctx context.Context, c wire.Component, offset uint64, data []byte) error
	// ReadBack reads all of it from storage again and hashes it.
	ReadBack(ctx context.Context) (wire.ReadBack, error)
	// Fuse burns root digest, counter, life cycle "secured" and debug lock, in this order, and reads them.
	Fuse(ctx context.Context, f wire.FuseRequest) (wire.FuseState, error)
}

// Serve answers the station on conn until it says done. It returns nil only then. Closing conn ends it.
func Serve(ctx context.Context, conn io.ReadWriter, t Target) error {
	s := &session{conn: conn, t: t}
	err := s.run(ctx)
	if err != nil && !errors.Is(err, errHungUp) {
		text := []byte(err.Error())
		// The station hears why, if it still listens; the error itself goes to our caller.
		_ = s.send(wire.PortError, wire.PortFault{Code: "refused", Text: string(bytes.ToValidUTF8(text[:min(len(text), 512)], nil))})
	}
	return err
}

var errHungUp = errors.New("the station hung up")

// session is one piece being made.
type session struct {
	conn io.ReadWriter
	t    Target

	hello   wire.ChipHello
	keys    wire.KeyReply
	device  string
	bundle  wire.Bundle
	release wire.Release
}

func (s *session) run(ctx context.Context) error {
	var err error
	if s.hello, err = s.t.Hello(ctx); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if s.hello.Lifecycle != wire.LifecycleAssembly {
		return fmt.Errorf("this device was made already (life cycle %#x)", s.hello.Lifecycle)
	}
	if err := s.send(wire.PortHello, s.hello); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.makeKeys, s.install, s.payload, s.readBack, s.fuse} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	_, err = s.expect(wire.PortDone)
	return err
}

func (s *session) makeKeys(ctx context.Context) error {
	q, err := recv[wire.KeyRequest](s, wire.PortKeys)
	if err != nil {
		return err
	}
	s.device = q.Device
	if s.keys.IDevID, s.keys.Attest, s.keys.Origin, err = s.t.GenerateKeys(ctx); err != nil {
		return fmt.Errorf("generate keys: %w", err)
	}
	msg, err := wire.PossessionMessage(q, s.hello.ChipUID, s.keys.IDevID, s.keys.Attest)
	if err != nil {
		return err
	}
	if s.keys.ProofIDevID, s.keys.ProofAttest, err = s.t.Prove(ctx, sha256.Sum256(msg)); err != nil {
		return fmt.Errorf("prove possession: %w", err)
	}
	return s.send(wire.PortKeys, s.keys)
}

func (s *session) install(ctx context.Context) error {
	in, err := recv[wire.Install](s, wire.PortInstall)
	if err != nil {
		return err
	}
	if err := s.check(in); err != nil {
		return err
	}
	if err := s.t.Install(ctx, in, s.release); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return s.send(wire.PortOK, nil)
}

// check holds the parts of an installation against each other and against this piece.
func (s *session) check(in wire.Install) error {
	cert, err := x509.ParseCertificate(in.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	id, err := idevid.Parse(cert)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if id.Kind != idevid.IDevID || id.DeviceID != in.Device || in.Device != s.device || id.Product != in.Product ||
		id.HWRev != in.Hardware || in.Hardware != s.hello.Hardware {
		return fmt.Errorf("certificate: it names %s/%s %s, this piece is to be %s", id.Product, id.HWRev, id.DeviceID, s.device)
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, s.keys.IDevID) {
		return errors.New("certificate: it is not for this piece's key")
	}
	ca, err := x509.ParseCertificate(in.Chain[0])
	if err != nil {
		return fmt.Errorf("order CA: %w", err)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if s.bundle, err = wire.VerifyBundle(nil, in.Bundle); err != nil {
		return fmt.Errorf("trust bundle: %w", err)
	}
	if s.bundle.Product != in.Product {
		return fmt.Errorf("trust bundle: it is for product %q", s.bundle.Product)
	}
	if s.release, _, err = wire.VerifyRelease(s.bundle, in.Release); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if !s.release.RunsOn(in.Hardware) {
		return fmt.Errorf("release: not for hardware %q", in.Hardware)
	}
	return nil
}

func (s *session) payload(ctx context.Context) error {
	for _, c := range s.release.Components {
		digest := sha256.New()
		for at := uint64(0); at < c.Size; {
			k, err := recv[wire.Chunk](s, wire.PortChunk)
			if err != nil {
				return err
			}
			if k.Component != c.Name || k.Offset != at || uint64(len(k.Data)) > c.Size-at {
				return fmt.Errorf("chunk of %q at %d, want %q at %d", k.Component, k.Offset, c.Name, at)
			}
			digest.Write(k.Data)
			if err := s.t.Write(ctx, c, at, k.Data); err != nil {
				return fmt.Errorf("write %s at %d: %w", c.Name, at, err)
			}
			at += uint64(len(k.Data))
		}
		if !bytes.Equal(digest.Sum(nil), c.Digest) {
			return fmt.Errorf("component %q is not the release's", c.Name)
		}
	}
	return nil
}

func (s *session) readBack(ctx context.Context) error {
	if _, err := s.expect(wire.PortReadBack); err != nil {
		return err
	}
	back, err := s.t.ReadBack(ctx)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return s.send(wire.PortReadBack, back)
}

func (s *session) fuse(ctx context.Context) error {
	q, err := recv[wire.FuseRequest](s, wire.PortFuse)
	if err != nil {
		return err
	}
	root, err := wire.RootDigest(s.bundle)
	if err != nil {
		return err
	}
	if !bytes.Equal(root[:], q.Root) || q.Counter > s.release.Counter {
		return errors.New("fuses: root digest or counter do not belong to what was installed")
	}
	state, err := s.t.Fuse(ctx, q)
	if err != nil {
		return fmt.Errorf("burn the fuses: %w", err)
	}
	return s.send(wire.PortFused, state)
}

func (s *session) send(kind string, body any) error {
	b, err := wire.EncodePortFrame(kind, body)
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("%w: %w", errHungUp, err)
	}
	return nil
}

func (s *session) expect(kind string) (wire.PortFrame, error) {
	var head [4]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return wire.PortFrame{}, fmt.Errorf("%w while %s was awaited: %w", errHungUp, kind, err)
	}
	n, err := wire.PortFrameLen(head)
	if err != nil {
		return wire.PortFrame{}, err
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(s.conn, buf); err != nil {
		return wire.PortFrame{}, fmt.Errorf("%w in the middle of a frame: %w", errHungUp, err)
	}
	f, err := wire.DecodePortFrame(buf)
	if err != nil {
		return f, err
	}
	if f.Kind != kind {
		return f, fmt.Errorf("the station says %q, want %q", f.Kind, kind)
	}
	if (kind == wire.PortReadBack || kind == wire.PortDone) && len(f.Body) != 0 {
		return f, fmt.Errorf("the station says %q with a body", kind)
	}
	return f, nil
}

func recv[T wire.PortBody](s *session, kind string) (T, error) {
	f, err := s.expect(kind)
	if err != nil {
		var none T
		return none, err
	}
	return wire.DecodePortBody[T](f)
}
