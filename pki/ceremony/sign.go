package ceremony

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// Asked is a request for a CA that was read and whose key has signed it.
type Asked struct {
	wire.CARequest
	Digest [32]byte // of its payload: what people compare, and what the grant names
}

// OpenRequests reads what a file asks the root to sign: one signed CARequest, or those of a CeremonyRequest.
func OpenRequests(data []byte) ([]Asked, error) {
	envelopes := [][]byte{data}
	if r, err := wire.DecodeCeremonyRequest(data); err == nil {
		envelopes = r.CAs
	}
	out := make([]Asked, 0, len(envelopes))
	for _, env := range envelopes {
		r, payload, err := wire.OpenCARequest(env)
		if err != nil {
			return nil, fmt.Errorf("it asks for no CA: %w", err)
		}
		out = append(out, Asked{CARequest: r, Digest: sha256.Sum256(payload)})
	}
	return out, nil
}

// Grant signs one CA by the root. In a rehearsal the certificate is under the rehearsal's maker, whom nobody believes.
func Grant(root *pki.Authority, a Asked, oem string, now time.Time) ([]byte, error) {
	pub, err := x509.ParsePKIXPublicKey(a.SPKI)
	if err != nil {
		return nil, fmt.Errorf("CA request: %w", err)
	}
	terms := pki.Terms{Life: time.Duration(a.Days) * 24 * time.Hour, CRL: a.CRL}
	cert, err := root.SubOn(terms, profile.Role(a.Role), pki.Name{OEM: oem, Product: a.Product, Unit: a.Unit}, pub, now)
	if err != nil {
		return nil, err
	}
	return wire.EncodeCAGrant(wire.CAGrant{Request: a.Digest[:], Chain: [][]byte{cert.Raw, root.Cert.Raw}})
}

// CheckGrant holds a grant against what was asked: the same key, role and names, under just this root.
func CheckGrant(grant []byte, a Asked, root *x509.Certificate, oem string) (*x509.Certificate, error) {
	g, err := wire.DecodeCAGrant(grant)
	if err != nil {
		return nil, err
	}
	if [32]byte(g.Request) != a.Digest {
		return nil, fmt.Errorf("the grant answers request %x, this is %x", g.Request[:8], a.Digest[:8])
	}
	if !bytes.Equal(g.Chain[len(g.Chain)-1], root.Raw) {
		return nil, errors.New("the grant is under another root")
	}
	cert, err := x509.ParseCertificate(g.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, a.SPKI) {
		return nil, errors.New("the certificate is of another key than was asked for")
	}
	role, err := pki.RoleOf(cert)
	if err != nil || string(role) != a.Role {
		return nil, fmt.Errorf("the certificate is of a CA of role %q, asked for was %q: %w", role, a.Role, err)
	}
	product := ""
	if len(cert.Subject.OrganizationalUnit) == 1 {
		product = cert.Subject.OrganizationalUnit[0]
	}
	if !slices.Equal(cert.Subject.Organization, []string{oem}) || product != a.Product {
		return nil, fmt.Errorf("the certificate is of %v/%s, asked for was %s/%s", cert.Subject.Organization, product, oem, a.Product)
	}
	if a.CRL != "" && !slices.Equal(cert.CRLDistributionPoints, []string{a.CRL}) {
		return nil, fmt.Errorf("the certificate names lists %v, asked for was %s", cert.CRLDistributionPoints, a.CRL)
	}
	trust, err := pki.NewTrust([]*x509.Certificate{root})
	if err != nil {
		return nil, err
	}
	return cert, trust.AddCA(cert)
}

// ChangeApprovers gives the trust bundle that follows current: the same, with other approvers. One who goes is named by the ID of the
// key; the threshold stays.
func ChangeApprovers(current []byte, add [][]byte, remove []string, now time.Time) ([]byte, error) {
	b, err := wire.VerifyBundle(nil, current)
	if err != nil {
		return nil, err
	}
	for _, set := range []*wire.KeySet{&b.Root, &b.Release, &b.Warrant} {
		keys := slices.Clone(set.Keys)
		for _, id := range remove {
			n := len(keys)
			if keys = slices.DeleteFunc(keys, func(spki []byte) bool { return KeyID(spki) == id }); len(keys) == n {
				return nil, fmt.Errorf("key %s is not among the approvers of product %s: see `hallmark bundle show`", id, b.Product)
			}
		}
		set.Keys = append(keys, add...)
	}
	b.Version, b.Issued = b.Version+1, uint64(now.Unix())
	return wire.EncodeBundle(b)
}

// KeyID names a public key (SubjectPublicKeyInfo, DER) as signatures name it, in hex.
func KeyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16])
}

// Fingerprint writes a digest for people to compare: groups of four hex digits.
func Fingerprint(sum [32]byte) string {
	var parts []string
	for p := range slices.Chunk([]byte(hex.EncodeToString(sum[:])), 4) {
		parts = append(parts, string(p))
	}
	return strings.Join(parts, " ")
}

// BundleType is the type under which a trust bundle is signed.
func BundleType(rehearsal bool) wire.Type {
	if rehearsal {
		return wire.Rehearsal(wire.TypeBundle)
	}
	return wire.TypeBundle
}

// SignList signs the list of revoked CAs that r asks for, by the root, which must be the one that r names.
func SignList(root *pki.Authority, r wire.CRLRequest) ([]byte, error) {
	cert := root.Cert
	if !bytes.Equal(r.Issuer, cert.Raw) {
		return nil, errors.New("the list is to be of another CA than this root")
	}
	t := &x509.RevocationList{
		Number:     new(big.Int).SetUint64(r.Number),
		ThisUpdate: time.Unix(int64(r.From), 0).UTC(),
		NextUpdate: time.Unix(int64(r.Until), 0).UTC(),
	}
	for _, e := range r.Revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).SetBytes(e.Serial), RevocationTime: time.Unix(int64(e.At), 0).UTC(), ReasonCode: int(e.Reason),
		})
	}
	der, err := root.SignList(t)
	if err != nil {
		return nil, fmt.Errorf("sign list: %w", err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("signed list does not parse: %w", err)
	}
	return der, list.CheckSignatureFrom(cert)
}
