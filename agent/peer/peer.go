// Package peer verifies the server for a device that may not know the time.
//
// Stage 3, field, on the device. What a device without a clock takes for the time is never later than the time, and may be far behind it
// (agent.clock). So a certificate that has run out by that has run out; one that "is not valid yet" says only that the device is behind.
// Names, chains and key usages are verified as ever. It trusts the anchors it is given.
package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// Expect makes conf believe the server named host, by conf.RootCAs alone, at the time that now gives.
func Expect(conf *tls.Config, host string, now func() time.Time) {
	conf.Time = now
	conf.InsecureSkipVerify = true // VerifyConnection does all of it, but for the beginning of validity
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verify(s.PeerCertificates, conf.RootCAs, host, now()); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
		}
		return nil
	}
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) error {
	if len(chain) == 0 || roots == nil || host == "" { // nil would mean the system's anchors, and no name any name
		return errors.New("no certificate, anchors or name to verify")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host, CurrentTime: Since(now, chain...)})
	return err
}

// Since gives now, or when the last of certs began, if that is later: it has begun, whatever now is.
func Since(now time.Time, certs ...*x509.Certificate) time.Time {
	for _, c := range certs {
		if c.NotBefore.After(now) {
			now = c.NotBefore
		}
	}
	return now
}
