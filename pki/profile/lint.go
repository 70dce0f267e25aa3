package profile

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Lint says everything that keeps c from being signed, or from leaving, as a certificate of role. It runs over the template
// before the signature and over the parsed certificate after it, so that neither we nor the encoder can slip.
func Lint(role Role, c *x509.Certificate, issuer *x509.Certificate) error {
	p, ok := Of(role)
	if !ok {
		return fmt.Errorf("lint: no profile %q", role)
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("lint "+string(role)+": "+format, args...))
	}
	if c.SerialNumber == nil || c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() < 64 || c.SerialNumber.BitLen() > 159 {
		bad("serial number must be positive, of 64 to 159 bits")
	}
	if !c.BasicConstraintsValid || c.IsCA != p.CA {
		bad("CA is %v, profile says %v", c.IsCA, p.CA)
	}
	if p.CA && (c.MaxPathLen != p.PathLen || (p.PathLen == 0 && !c.MaxPathLenZero)) {
		bad("path length %d, profile says %d", c.MaxPathLen, p.PathLen)
	}
	if c.KeyUsage != p.KeyUsage {
		bad("key usage %b, profile says %b", c.KeyUsage, p.KeyUsage)
	}
	if !slices.Equal(c.ExtKeyUsage, p.EKU) || len(c.UnknownExtKeyUsage) != 0 {
		bad("extended key usage %v, profile says %v", c.ExtKeyUsage, p.EKU)
	}
	if !p.Names(c) {
		bad("policies %v, profile says %v", c.Policies, p.Policies)
	}
	lintTime(p, c, issuer, bad)
	lintNames(role, c, bad)
	if len(c.Raw) > 0 {
		lintSigned(role, c, issuer, bad)
	}
	return errors.Join(errs...)
}

func lintTime(p Profile, c, issuer *x509.Certificate, bad func(string, ...any)) {
	switch {
	case p.Life == 0 && !c.NotAfter.Equal(idevid.NoExpiry()):
		bad("notAfter %s, profile says 99991231235959Z", c.NotAfter)
	case p.Life != 0 && (!c.NotAfter.After(c.NotBefore) || c.NotAfter.Sub(c.NotBefore) > p.Life+2*Backdate):
		bad("valid from %s to %s, profile allows %s", c.NotBefore, c.NotAfter, p.Life)
	}
	if issuer != nil && c.NotAfter.After(issuer.NotAfter) {
		bad("outlives its issuer, which ends %s", issuer.NotAfter.Format(time.DateOnly))
	}
}

func lintNames(role Role, c *x509.Certificate, bad func(string, ...any)) {
	names := len(c.DNSNames) + len(c.IPAddresses)
	if len(c.EmailAddresses)+len(c.URIs) != 0 || (role != Server && names != 0) || (role == Server && names == 0) {
		bad("%d DNS names and addresses", names)
	}
	for _, n := range c.DNSNames {
		if !hostname(n) {
			bad("DNS name %q is not one host's", n)
		}
	}
	for _, u := range c.CRLDistributionPoints {
		if v, err := url.Parse(u); err != nil || v.Scheme != "http" {
			bad("distribution point %q is not an http URL", u)
		}
	}
}
