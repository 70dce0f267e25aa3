package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// How long an answer may be kept. What is revoked stays so; that something is good is soon old.
const (
	ocspGood    = time.Hour
	ocspRevoked = 24 * time.Hour
)

// Bounds of what a stranger may have us read and keep.
const (
	maxOCSPRequest = 2 << 10
	maxOCSPKept    = 8192
)

// Status is a signed answer about one certificate (RFC 6960).
type Status struct {
	DER   []byte
	Made  time.Time
	Until time.Time // zero: it says that nothing can be said, and may not be kept
}

// responder keeps answers, so that a certificate that many ask about is signed for once.
type responder struct {
	mu    sync.Mutex
	by    map[string]keptStatus // by CertKey and hash, made when they were asked for; guarded by mu
	ahead map[string]keptStatus // the same, made before anybody asked; guarded by mu

	seq    int64     // newest entry that answers were made ahead for; of KeepStatuses alone
	looked time.Time // when it looked at all of them last; of KeepStatuses alone
}

// statusKey names an answer: whose certificate, and by which hash the request named its CA.
func statusKey(ski, serial string, by crypto.Hash) string {
	return fmt.Sprint(ski, "/", serial, " ", by)
}

// keptStatus is an answer with what it was made of.
type keptStatus struct {
	Status
	at int64 // since when it is revoked, Unix ms; 0: it is not
}

// OCSP answers a request about one certificate (RFC 6960). It is public, so nobody is asked who they are. It speaks only of certificates that name a
// responder, or whose product asks for it by now, and of those that are in the store: of a serial number that nobody has issued it says "unknown", never "good". A nonce is not
// answered (RFC 8954 lets a responder leave it out), so that answers can be kept.
func (s *Service) OCSP(ctx context.Context, request []byte) (Status, error) {
	if len(request) > maxOCSPRequest {
		return Status{DER: ocsp.MalformedRequestErrorResponse}, nil
	}
	req, err := ocsp.ParseRequest(request)
	if err != nil || req.SerialNumber == nil || req.SerialNumber.Sign() <= 0 || req.SerialNumber.BitLen() > 160 {
		return Status{DER: ocsp.MalformedRequestErrorResponse}, nil
	}
	ca := s.responsible(req)
	if ca == nil {
		return Status{DER: ocsp.UnauthorizedErrorResponse}, nil
	}
	key := statusKey(ca.SKI(), req.SerialNumber.Text(16), req.HashAlgorithm)
	if made, ok := s.madeAhead(key); ok {
		return made, nil
	}
	st, cert, err := s.standing(ctx, ca, req.SerialNumber)
	if fault.KindOf(err) == fault.Unavailable {
		return Status{DER: ocsp.TryLaterErrorResponse}, nil
	}
	if err != nil {
		return Status{}, err
	}
	if cert != nil {
		if told, err := s.toldOf(ctx, cert); err != nil || !told {
			return Status{DER: ocsp.UnauthorizedErrorResponse}, err
		}
	}
	if st.Status == ocsp.Unknown { // not kept: it may be issued in a moment, and there is no end of such numbers
		return s.signStatus(ca, st, req.HashAlgorithm)
	}
	at := int64(0)
	if st.Status == ocsp.Revoked {
		at = st.RevokedAt.UnixMilli()
	}
	s.responder.mu.Lock()
	kept, ok := s.responder.by[key]
	s.responder.mu.Unlock()
	if now := s.c.Now(); ok && kept.at == at && now.Before(kept.Made.Add(kept.Until.Sub(kept.Made)/2)) {
		return kept.Status, nil
	}
	made, err := s.signStatus(ca, st, req.HashAlgorithm)
	if err != nil {
		return Status{}, err
	}
	s.responder.mu.Lock()
	defer s.responder.mu.Unlock()
	if s.responder.by == nil || len(s.responder.by) >= maxOCSPKept {
		s.responder.by = map[string]keptStatus{}
	}
	s.responder.by[key] = keptStatus{made, at}
	return made, nil
}

// responsible finds the CA that a request is about, by the hashes of its name and key.
func (s *Service) responsible(req *ocsp.Request) *Authority {
	for _, a := range s.c.Held.All() {
		if a.Role != profile.Operational {
			continue
		}
		name, key, err := ocspNames(a.Cert, req.HashAlgorithm)
		if err == nil && bytes.Equal(name, req.IssuerNameHash) && bytes.Equal(key, req.IssuerKeyHash) {
			return a
		}
	}
	return nil
}

func ocspNames(ca *x509.Certificate, by crypto.Hash) (name, key []byte, err error) {
	if by != crypto.SHA1 && by != crypto.SHA256 { // how RFC 6960 names a CA's key: nothing is believed for it
		return nil, nil, fmt.Errorf("hash %v", by)
	}
	var info struct {
		Alg pkix.AlgorithmIdentifier
		Key asn1.BitString
	}
	if _, err := asn1.Unmarshal(ca.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil, nil, err
	}
	sum := func(b []byte) []byte {
		h := by.New()
		_, _ = h.Write(b) // a hash takes everything
		return h.Sum(nil)
	}
	return sum(ca.RawSubject), sum(info.Key.RightAlign()), nil
}

// toldOf says whether anybody is told how a certificate stands: it says so itself, or its product does by now.
func (s *Service) toldOf(ctx context.Context, cert *x509.Certificate) (bool, error) {
	if len(cert.OCSPServer) > 0 {
		return true, nil
	}
	product, err := productOf(cert.Raw)
	if err != nil || s.c.OCSP == nil {
		return false, err
	}
	return s.c.OCSP(ctx, product)
}

// standing says how a certificate of ca stands; without one, that nobody has issued it.
func (s *Service) standing(ctx context.Context, ca *Authority, number *big.Int) (ocsp.Response, *x509.Certificate, error) {
	now := s.c.Now()
	st := ocsp.Response{Status: ocsp.Unknown, SerialNumber: number, ThisUpdate: now.Add(-profile.Backdate), NextUpdate: now.Add(profile.Backdate)}
	c, err := s.c.Store.Certificate(ctx, ca.SKI()+"/"+number.Text(16))
	if fault.KindOf(err) == fault.NotFound {
		return st, nil, nil
	}
	if err != nil {
		return st, nil, err
	}
	cert, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return st, nil, fmt.Errorf("stored certificate %s: %w", c.Key, err)
	}
	revoked, at, reason, err := s.c.Revocations.why(cert, c.Device, now)
	if err != nil {
		return st, nil, err
	}
	st.Status, st.NextUpdate = ocsp.Good, now.Add(ocspGood)
	if revoked {
		st.Status, st.RevokedAt, st.RevocationReason, st.NextUpdate = ocsp.Revoked, at, reason, now.Add(ocspRevoked)
	}
	return st, cert, nil
}

// why says whether a certificate is revoked now, since when and for what; an error says that the list is too old to tell.
func (r *Revocations) why(cert *x509.Certificate, device string, now time.Time) (revoked bool, at time.Time, reason int, err error) {
	err = r.Check(cert, device, now)
	if fault.KindOf(err) != fault.Denied {
		return false, time.Time{}, 0, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	issuer, ms := fmt.Sprintf("%x", cert.AuthorityKeyId), now.UnixMilli()
	var all []whole
	if e, ok := r.one(issuer, cert.SerialNumber); ok {
		all = append(all, whole{e.at, e.reason})
	}
	if v, ok := r.devices[device]; ok {
		all = append(all, v)
	}
	if v, ok := r.issuers[issuer]; ok {
		all = append(all, v)
	}
	first := whole{at: ms}
	for _, v := range all {
		if v.at <= first.at {
			first = v
		}
	}
	return true, time.UnixMilli(first.at).UTC(), int(first.reason), nil
}

// signStatus signs an answer. The CA's key is given all of it, not its digest, because it may be where what is signed is read: package ocsp gives
// a digest only, so it writes the answer twice, first to learn what is to be signed.
func (s *Service) signStatus(ca *Authority, st ocsp.Response, by crypto.Hash) (Status, error) {
	st.IssuerHash = by
	for range 3 { // the two may fall into two minutes
		draft := &stencil{pub: ca.key.Public()}
		der, err := ocsp.CreateResponse(ca.Cert, ca.Cert, st, draft)
		if err != nil {
			return Status{}, fmt.Errorf("write status: %w", err)
		}
		parsed, err := ocsp.ParseResponse(der, nil)
		if err != nil {
			return Status{}, fmt.Errorf("status does not parse: %w", err)
		}
		sig, err := crypto.SignMessage(ca.key, rand.Reader, parsed.TBSResponseData, HashFor(ca.key.Public()))
		if err != nil {
			return Status{}, fmt.Errorf("sign status: %w", err)
		}
		final := &stencil{pub: ca.key.Public(), sig: sig, want: draft.seen}
		if der, err = ocsp.CreateResponse(ca.Cert, ca.Cert, st, final); errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return Status{}, fmt.Errorf("write status: %w", err)
		}
		if _, err := ocsp.ParseResponse(der, ca.Cert); err != nil {
			return Status{}, fmt.Errorf("signed status does not verify: %w", err)
		}
		return Status{DER: der, Made: s.c.Now(), Until: st.NextUpdate}, nil
	}
	return Status{}, errMoved
}

var errMoved = errors.New("the status changed while it was signed")

// stencil stands in for a key: it takes the digest that a signature is asked over, and gives one that was made elsewhere.
type stencil struct {
	pub             crypto.PublicKey
	seen, want, sig []byte
}

func (s *stencil) Public() crypto.PublicKey { return s.pub }

func (s *stencil) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	if s.want != nil && !bytes.Equal(s.want, digest) {
		return nil, errMoved
	}
	s.seen = bytes.Clone(digest)
	if s.sig == nil {
		return []byte{0x30, 0}, nil
	}
	return s.sig, nil
}
