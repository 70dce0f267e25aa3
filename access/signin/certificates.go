package signin

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// UseCertificate is the use of a machine's key: not a secret of ours, but the SHA-256 of a certificate's public key
// (SubjectPublicKeyInfo), which the machine proves in the TLS handshake. No CA is asked: the key is pinned.
const UseCertificate Use = "certificate"

// MaxCertificate bounds a certificate that is bound, in bytes of PEM.
const MaxCertificate = 16 << 10

const minRSA = 2048 // bits

// parseCertificate reads one certificate in PEM, and nothing besides.
func parseCertificate(text []byte) (*x509.Certificate, error) {
	if len(text) > MaxCertificate {
		return nil, fmt.Errorf("it is longer than %d bytes", MaxCertificate)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no certificate in PEM")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("there is more than one certificate or key in it")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch k := cert.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits: at least %d", k.N.BitLen(), minRSA)
		}
	default:
		return nil, fmt.Errorf("a key of kind %s", cert.PublicKeyAlgorithm)
	}
	return cert, nil
}

// BindCertificate has a machine be known by its certificate's key, until the certificate expires, it is revoked or the machine ends.
func (c *Service) BindCertificate(ctx context.Context, caller access.Caller, member string, text []byte) (Credential, error) {
	m, err := c.member(ctx, caller, member)
	if err != nil {
		return Credential{}, err
	}
	if m.Kind != access.Machine {
		return Credential{}, fault.New(fault.Invalid, "certificate.machine", fmt.Sprintf("%s is no machine", member), "people sign in with passkeys, or their organisation")
	}
	cert, err := parseCertificate(text)
	if err != nil {
		return Credential{}, fault.New(fault.Invalid, "certificate.malformed", "the certificate: "+err.Error(), "give one certificate in PEM, with a key of ECDSA, Ed25519, or RSA of 2048 bits")
	}
	now := c.now().UTC()
	if now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
		return Credential{}, fault.New(fault.Invalid, "certificate.dates", fmt.Sprintf("the certificate is valid from %s to %s",
			cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339)), "bind one that is valid now")
	}
	if err := c.opens(ctx, caller, m); err != nil {
		return Credential{}, err
	}
	cred := Credential{Hash: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Use: UseCertificate, Caller: member, Created: now, Expires: cert.NotAfter.UTC()}
	if last := now.Add(10 * MaxLife); last.Before(cred.Expires) {
		cred.Expires = last
	}
	data, err := json.Marshal(map[string]string{
		"member": member, "what": "certificate bound", "key_sha256": hex.EncodeToString(cred.Hash[:]), "expires": cred.Expires.Format(time.RFC3339),
	})
	if err != nil {
		return Credential{}, err
	}
	err = c.store.PutCredential(ctx, cred, ledger.New(ledger.KindAccessChanged, now, caller.ID, member, nil, data))
	if errors.Is(err, ErrCredentialExists) {
		return Credential{}, fault.New(fault.Conflict, "certificate.known", "that key is bound already", "a key is one machine's: make another, or revoke the binding")
	}
	return cred, err
}

// Certificate finds the machine of a certificate that a TLS handshake has just proven, or has when the connection was made. It is asked
// at every request, so that what ends meanwhile ends for open connections too.
func (c *Service) Certificate(ctx context.Context, cert *x509.Certificate) (access.Caller, error) {
	cred, m, err := c.store.Credential(ctx, sha256.Sum256(cert.RawSubjectPublicKeyInfo))
	if err != nil && !errors.Is(err, ErrNoCredential) {
		return access.Caller{}, err
	}
	now := c.now()
	if err != nil || cred.Use != UseCertificate || m.Kind != access.Machine || !now.Before(cred.Expires) || now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
		return access.Caller{}, fault.New(fault.Denied, "access.unknown-certificate", "the certificate's key is unknown, expired or revoked",
			"have an administrator bind it: hallmark member bind")
	}
	return c.callerOf(ctx, m, "mtls")
}
