package rekey

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// refused is all that who cannot show a voucher is told: not whether there is such a device, nor whether it has one.
func refused() error {
	return fault.New(fault.Denied, "voucher.refused", "no voucher of that device with that secret", "look for a slip of the finger, or ask for a new voucher")
}

// looked bounds the vouchers of a device that a secret is held against.
const looked = 8

// admitted is a device that showed its voucher.
type admitted struct {
	v    Voucher
	sub  Subject
	born wire.Record
	id   idevid.Identity // as its new certificate will have it
}

// admit finds the voucher that a secret belongs to. What is wrong with a voucher is told to who knows its secret only.
func (s *Service) admit(ctx context.Context, id, password string) (admitted, error) {
	plain, wrong := wire.ParseVoucher(id, password)
	if !wire.ValidDeviceID(id) {
		return admitted{}, refused()
	}
	vs, err := s.c.Store.Vouchers(ctx, Query{Device: id, Limit: looked})
	if err != nil {
		return admitted{}, err
	}
	now := s.c.Now().UTC()
	hash, found, open := wire.VoucherHash(id, plain), -1, -1
	for i := range vs {
		if vs[i] = vs[i].at(now); vs[i].State == Open {
			open = i
		}
		if subtle.ConstantTimeCompare(hash[:], vs[i].Hash[:]) == 1 && wrong == nil {
			found = i
		}
	}
	if found < 0 {
		if open >= 0 {
			if err := s.guessed(ctx, vs[open], now); err != nil {
				return admitted{}, err
			}
		}
		return admitted{}, refused()
	}
	v := vs[found]
	if v.State != Open && v.State != Used {
		return admitted{}, fault.New(fault.Denied, "voucher.ended", fmt.Sprintf("the voucher is %s, since %s", v.State, v.Ended.UTC().Format(time.RFC3339)), "ask for a new one")
	}
	sub, err := s.c.Store.Subject(ctx, id)
	if err != nil {
		return admitted{}, err
	}
	if err := standing(id, sub); err != nil {
		return admitted{}, err
	}
	born, err := bornOf(id, sub)
	if err != nil {
		return admitted{}, err
	}
	leaf, err := x509.ParseCertificate(born.Certificate)
	if err != nil {
		return admitted{}, fmt.Errorf("stored production record of device %s: %w", id, err)
	}
	name, err := idevid.Parse(leaf)
	if err != nil {
		return admitted{}, fmt.Errorf("stored production record of device %s: %w", id, err)
	}
	if name.OEM == "" { // of a certificate that leaves it to its CA
		name.OEM, _ = idevid.SubjectOEM(leaf)
	}
	return admitted{v: v, sub: sub, born: born, id: name}, nil
}

// guessed counts a wrong secret.
func (s *Service) guessed(ctx context.Context, v Voucher, now time.Time) error {
	data, err := json.Marshal(GuessedData{Voucher: v.ID, Device: v.Device, Tries: s.c.Limits.Attempts})
	if err != nil {
		return err
	}
	f := ledger.New(ledger.KindVoucherGuessed, now, access.Internal("rekey").ID, v.Device, nil, data)
	return s.c.Store.Missed(ctx, v.ID, Miss{Guess: true, Most: s.c.Limits.Attempts, At: now, Fact: f})
}

// otherChip counts a try with the right secret and another chip.
func (s *Service) otherChip(ctx context.Context, v Voucher, now time.Time) error {
	f, err := ended(v, "locked", "", access.DeviceCaller(v.Device).ID, now)
	if err != nil {
		return err
	}
	return s.c.Store.Missed(ctx, v.ID, Miss{Most: s.c.Limits.Attempts, At: now, Fact: f})
}

func (s *Service) check(ctx context.Context, id string) error {
	return s.c.Guard.Check(ctx, access.DeviceCaller(id), access.DeviceEnrol, access.Resource{Type: "device", ID: id})
}

// Kit tells a device that shows its voucher what its flash held. Once the voucher is used, its issuers are those of the certificate that was given for it.
func (s *Service) Kit(ctx context.Context, id, password string) (wire.RecoveryKit, error) {
	if err := s.check(ctx, id); err != nil {
		return wire.RecoveryKit{}, err
	}
	a, err := s.admit(ctx, id, password)
	if err != nil {
		return wire.RecoveryKit{}, err
	}
	model, err := s.c.Model(ctx, a.sub.Product)
	if err != nil {
		return wire.RecoveryKit{}, err
	}
	k := wire.RecoveryKit{Device: id, Product: a.id.Product, Hardware: a.id.HWRev, OEM: a.id.OEM, Model: model}
	if a.v.State != Used {
		_, k.Issuers, err = s.c.Rekeyer.Authority(ctx, a.sub.Product, s.c.Now())
		return k, err
	}
	cert, err := s.given(ctx, a.v)
	if err != nil {
		return wire.RecoveryKit{}, err
	}
	path := s.c.PKI.Trust().Above(cert)
	if len(path) < 2 {
		return wire.RecoveryKit{}, fault.New(fault.Unavailable, "voucher.issuer", "the CA of the new certificate is not known here yet", "ask again")
	}
	for _, ca := range path[:len(path)-1] {
		k.Issuers = append(k.Issuers, ca.Raw)
	}
	return k, nil
}

func (s *Service) given(ctx context.Context, v Voucher) (*x509.Certificate, error) {
	kept, err := s.c.PKI.Stored(ctx, v.Cert)
	if err != nil {
		return nil, fmt.Errorf("certificate of voucher %s: %w", v.ID, err)
	}
	return x509.ParseCertificate(kept.DER)
}

// Recover gives a device that shows its voucher a new factory identity, for the key of its request (PKCS#10, DER), which holds a wire.RekeyClaim. From then
// on its former keys are nobody's. The same keys with the same voucher get the same certificate.
func (s *Service) Recover(ctx context.Context, id, password string, csr []byte) (*x509.Certificate, error) {
	if err := s.check(ctx, id); err != nil {
		return nil, err
	}
	a, err := s.admit(ctx, id, password)
	if err != nil {
		return nil, err
	}
	req, err := pkcs10.Parse(csr, a.id, true)
	if err != nil {
		return nil, err
	}
	claim, err := claimOf(req.CSR)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "voucher.claim", "certificate request of device %s: %w", id, err).With("the device asks again with the keys that the voucher is for")
	}
	now := s.c.Now().UTC()
	if claim.Device != id || subtle.ConstantTimeCompare(claim.ChipUID, a.v.Chip) != 1 {
		if a.v.State == Open {
			if err := s.otherChip(ctx, a.v, now); err != nil {
				return nil, err
			}
		}
		return nil, fault.New(fault.Denied, "voucher.chip", "the voucher of device "+id+" is for another chip than the one that asks", "bring it to the device it is for")
	}
	identity := sha256.Sum256(req.CSR.RawSubjectPublicKeyInfo)
	keys := KeysDigest(identity, claim)
	if a.v.State == Used {
		if a.v.Keys != keys || !bytes.Equal(a.sub.Identity, identity[:]) {
			return nil, fault.New(fault.Denied, "voucher.ended", "the voucher was used, by other keys", "ask for a new one")
		}
		return s.given(ctx, a.v)
	}
	return s.rekey(ctx, a, req, claim, identity, keys, now)
}

// KeysDigest names what a voucher was used with.
func KeysDigest(identity [32]byte, c wire.RekeyClaim) [32]byte {
	at := sha256.Sum256(c.Attest)
	return sha256.Sum256(append(append([]byte("hallmark-rekey-keys-1/"), identity[:]...), at[:]...))
}

// claimOf finds the claim in a request, and holds it against the request's key.
func claimOf(csr *x509.CertificateRequest) (wire.RekeyClaim, error) {
	for _, e := range csr.Extensions {
		if !e.Id.Equal(wire.OIDRekey()) {
			continue
		}
		c, err := wire.DecodeRekeyClaim(e.Value)
		if err != nil {
			return wire.RekeyClaim{}, err
		}
		return c, c.Verify(csr.RawSubjectPublicKeyInfo)
	}
	return wire.RekeyClaim{}, errors.New("it does not say which chip it is of, nor what the new attestation key is: ask with `hallmark-agent recover`")
}

// RekeyedData is the data of a device.rekeyed fact. Together with the CAs in the control log it lets anybody check that a CA of the product gave the device
// its new keys, and that the device holds them.
type RekeyedData struct {
	Device      string `json:"device"`
	Voucher     string `json:"voucher"`
	Record      string `json:"record"`      // hash of the production record
	Old         string `json:"old"`         // SHA-256 of the former identity key (SPKI)
	New         string `json:"new"`         // of the new one
	Origin      string `json:"origin"`      // of the new keys: what their key store is
	Certificate []byte `json:"certificate"` // the new IDevID, DER
	Request     []byte `json:"request"`     // PKCS#10, DER: signed by the new identity key, with the claim that the new attestation key signed
}

func (s *Service) rekey(ctx context.Context, a admitted, req pkcs10.Request, claim wire.RekeyClaim, identity, keys [32]byte, now time.Time) (*x509.Certificate, error) {
	id := a.id.DeviceID
	next, err := s.c.Rekeyer.Sign(ctx, a.id, req, now)
	if err != nil {
		return nil, err
	}
	factory, err := x509.ParseCertificate(a.born.Certificate)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(RekeyedData{
		Device: id, Voucher: a.v.ID, Record: hex.EncodeToString(a.v.Record[:]), Old: hex.EncodeToString(a.sub.Identity), New: hex.EncodeToString(identity[:]),
		Origin: claim.Origin, Certificate: next.Cert.Raw, Request: req.CSR.Raw,
	})
	if err != nil {
		return nil, err
	}
	actor := access.DeviceCaller(id).ID
	a.v.Keys, a.v.Cert, a.v.Identity = keys, next.Issued.Key, hex.EncodeToString(identity[:])
	kept, err := s.c.Store.Rekey(ctx, Change{
		Voucher: a.v, From: a.sub.Identity, Identity: identity[:], Attest: claim.Attest, Origin: claim.Origin, Cert: next.Issued, At: now,
		Factory: pki.Revocation{
			Scope: pki.ScopeCert, ID: pki.CertKey(factory), Issuer: hex.EncodeToString(factory.AuthorityKeyId), Serial: factory.SerialNumber.Text(16),
			Reason: pki.KeyCompromise, At: now, By: actor,
		},
		Facts: func(revoked []pki.Revocation) ([]ledger.Fact, error) {
			facts := []ledger.Fact{
				ledger.New(ledger.KindDeviceRekeyed, now, actor, id, nil, data),
				ledger.New(ledger.KindCertIssued, now, actor, id, nil, next.Cert.Raw),
			}
			for _, r := range revoked {
				doc, err := json.Marshal(r)
				if err != nil {
					return nil, err
				}
				facts = append(facts, ledger.New(ledger.KindCertRevoked, now, actor, id, nil, doc))
			}
			return facts, nil
		},
	})
	switch {
	case errors.Is(err, ErrSpent):
		return nil, fault.New(fault.Denied, "voucher.ended", "the voucher was used, or has ended", "ask for a new one")
	case errors.Is(err, ErrKeyKnown):
		return nil, fault.New(fault.Conflict, "voucher.key-known", "a device has, or had, one of the keys that are asked for", "a device that still has its key enrols with it; otherwise make new keys")
	case errors.Is(err, ErrChanged):
		return nil, fault.New(fault.Unavailable, "device.busy", fmt.Sprintf("device %s changed meanwhile", id), "ask again")
	case err != nil:
		return nil, err
	}
	if err := s.c.PKI.Refresh(ctx); err != nil { // the former certificates are void here at once; other nodes read the list by themselves
		return nil, err
	}
	return x509.ParseCertificate(kept.DER)
}
