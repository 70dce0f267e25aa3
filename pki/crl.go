package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
)

// crlLife is how long a list may be used; it is made anew after half of that, or when something is revoked.
const crlLife = 24 * time.Hour

type crl struct {
	der  []byte
	made time.Time
}

type crlCache struct {
	mu   sync.Mutex // held while a list is signed, so that each is signed once
	by   map[int]crl
	last int64 // number of the newest list
}

func (c *crlCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.by)
}

func shardOf(serial []byte, n int) int {
	return int(new(big.Int).Mod(new(big.Int).SetBytes(serial), big.NewInt(int64(n))).Int64())
}

// distributionPoint gives the function that names the list a serial number belongs to; nil when none is published.
func (s *Service) distributionPoint() func(serial []byte) string {
	if s.c.CRLBase == "" {
		return nil
	}
	return func(serial []byte) string { return s.shardURL(shardOf(serial, s.c.Shards)) }
}

func (s *Service) shardURL(shard int) string {
	return fmt.Sprintf("%s/crl/%s/%d.crl", s.c.CRLBase, s.ski, shard)
}

// CRL gives the revocation list (DER, RFC 5280 §5) of one shard of the operational CA: serial numbers that are shard modulo the
// number of shards. It is public, so nobody is asked who they are.
func (s *Service) CRL(shard int) ([]byte, error) {
	if shard < 0 || shard >= s.c.Shards {
		return nil, fault.Newf(fault.NotFound, "crl.shard", "no revocation list %d of %d", shard, s.c.Shards)
	}
	now := s.c.Now().UTC()
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if have, ok := s.cache.by[shard]; ok && now.Sub(have.made) < crlLife/2 {
		return have.der, nil
	}
	var entries []x509.RevocationListEntry
	for _, e := range s.c.Revocations.certs(s.ski, now) {
		serial, ok := new(big.Int).SetString(e.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("revoked certificate %s: serial %q", e.ID, e.Serial)
		}
		if shardOf(serial.Bytes(), s.c.Shards) == shard {
			entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: e.At, ReasonCode: e.Reason})
		}
	}
	idp, err := s.issuingPoint(shard)
	if err != nil {
		return nil, err
	}
	s.cache.last = max(s.cache.last+1, now.UnixMilli())
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(s.cache.last), ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(crlLife),
		RevokedCertificateEntries: entries, ExtraExtensions: idp,
	}, s.c.Operational.Cert, s.c.Operational.key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list %d: %w", shard, err)
	}
	s.cache.by[shard] = crl{der: der, made: now}
	return der, nil
}

// issuingPoint is the critical issuingDistributionPoint (RFC 5280 §5.2.5) that keeps one shard from being taken for another.
func (s *Service) issuingPoint(shard int) ([]pkix.Extension, error) {
	if s.c.CRLBase == "" {
		return nil, nil
	}
	type name struct {
		FullName []asn1.RawValue `asn1:"tag:0"`
	}
	value, err := asn1.Marshal(struct {
		Point    name `asn1:"tag:0"`
		OnlyUser bool `asn1:"tag:1"`
	}{name{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s.shardURL(shard))}}}, true})
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: value}}, nil
}
