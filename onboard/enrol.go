package onboard

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Ask is what a device asks with.
type Ask struct {
	Presented []*x509.Certificate // leaf first, as in TLS
	CSR       []byte              // PKCS #10, DER
	Label     string              // the product that the device says it is of; empty: it does not say
	// Bindings are the names, in base64, of the line that the request came by; a challengePassword has to be one of them.
	Bindings []string
}

// Call is what is asked for.
type Call string

// The calls for which an identity from the factory is good.
const (
	CallEnrol  Call = "enrol"  // a certificate for the device's own key
	CallKeygen Call = "keygen" // a certificate, and the key to it
)

// Enrol gives a first LDevID, or one anew, to the device that presents an IDevID. The guard is asked by PKI.Issue, about the device
// that the certificate was verified to be.
func (s *Service) Enrol(ctx context.Context, caller access.Caller, a Ask) (*x509.Certificate, error) {
	d, st, err := s.known(ctx, caller, a, idevid.IDevID)
	if err != nil {
		return nil, err
	}
	req, err := s.request(a, d, st)
	if err != nil {
		return nil, err
	}
	if err := s.let(ctx, d, st, req, CallEnrol); err != nil {
		return nil, err
	}
	enrolled, err := s.enrolled(caller, d, st, req)
	if err != nil {
		return nil, err
	}
	return s.c.PKI.Issue(ctx, caller, d, req, enrolled)
}

// Reenrol renews or re-keys the LDevID that the device presents. Subject and SAN of its request have to be the present certificate's
// (RFC 7030 §4.2.2). A device whose LDevID has expired enrols again with its IDevID, so none is ever lost for having been away.
func (s *Service) Reenrol(ctx context.Context, caller access.Caller, a Ask) (*x509.Certificate, error) {
	d, st, err := s.known(ctx, caller, a, idevid.LDevID)
	if err != nil {
		return nil, err
	}
	req, err := s.request(a, d, st)
	if err != nil {
		return nil, err
	}
	return s.c.PKI.Issue(ctx, caller, d, req)
}

// Generate gives the device a key that is made here, with its LDevID: for devices that cannot make good ones, where their product
// allows it. The key is kept nowhere, so that asking again gives another; a fact says of it for good that it travelled. The request
// proves possession of a key that is thrown away, and is looked at like any other (RFC 7030 §4.4.1).
func (s *Service) Generate(ctx context.Context, caller access.Caller, a Ask) (*x509.Certificate, crypto.PrivateKey, error) {
	d, st, err := s.known(ctx, caller, a, "")
	if err != nil {
		return nil, nil, err
	}
	if !st.Rules.ServerKeys {
		return nil, nil, fault.New(fault.Denied, "enrol.server-keys", "product "+d.Identity.Product+" has no keys made by the server",
			"have the device make its own, or allow it: `hallmark product enrolment`")
	}
	req, err := s.request(a, d, st)
	if err != nil {
		return nil, nil, err
	}
	if req.Sealed {
		return nil, nil, fault.New(fault.Invalid, "csr.decrypt-key", "the certificate request wants its key encrypted within TLS, which is not done here",
			"leave decryptKeyID and asymmDecryptKeyID out")
	}
	var also []ledger.Fact
	if d.Identity.Kind == idevid.IDevID {
		if err := s.let(ctx, d, st, req, CallKeygen); err != nil {
			return nil, nil, err
		}
		enrolled, err := s.enrolled(caller, d, st, req)
		if err != nil {
			return nil, nil, err
		}
		also = append(also, enrolled)
	}
	set, err := suite.Get(st.Rules.Suite)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(set.Curve, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if req, err = req.For(key.Public()); err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(map[string]string{"device": d.Identity.DeviceID, "product": d.Identity.Product, "key": spkiSum(req.CSR)})
	if err != nil {
		return nil, nil, err
	}
	also = append(also, ledger.New(ledger.KindKeyTravelled, s.c.Now(), caller.ID, d.Identity.DeviceID, nil, data))
	cert, err := s.c.PKI.Issue(ctx, caller, d, req, also...)
	return cert, key, err
}

// known verifies who asks, and finds how it stands. Without a kind either identity is good.
func (s *Service) known(ctx context.Context, caller access.Caller, a Ask, kind idevid.Kind) (pki.Device, Standing, error) {
	d, err := s.verified(ctx, caller, a.Presented, kind)
	if err != nil {
		return pki.Device{}, Standing{}, err
	}
	if a.Label != "" && a.Label != d.Identity.Product {
		return pki.Device{}, Standing{}, fault.New(fault.Denied, "enrol.label",
			fmt.Sprintf("device %s is of product %s, and asks as one of %.64q", d.Identity.DeviceID, d.Identity.Product, a.Label), "name its product in the path, or none")
	}
	st, err := s.standing(ctx, caller, d)
	return d, st, err
}

// request reads what is asked for, and holds it against the product's rules.
func (s *Service) request(a Ask, d pki.Device, st Standing) (pkcs10.Request, error) {
	req, err := pkcs10.Parse(a.CSR, d.Identity, d.Identity.Kind == idevid.LDevID)
	if err != nil {
		return pkcs10.Request{}, err
	}
	if !st.Rules.certifies(req.CSR.PublicKey) {
		return pkcs10.Request{}, fault.New(fault.Invalid, "csr.suite", fmt.Sprintf("the certificate request's key is not of suite %q, which product %s has", st.Rules.Suite, d.Identity.Product),
			"ask /csrattrs which key is wanted")
	}
	if req.Challenge == "" && !st.Rules.Binding {
		return req, nil
	}
	for _, b := range a.Bindings {
		if subtle.ConstantTimeCompare([]byte(b), []byte(req.Challenge)) == 1 {
			return req, nil
		}
	}
	if req.Challenge == "" {
		return pkcs10.Request{}, fault.New(fault.Invalid, "csr.unbound", "product "+d.Identity.Product+" wants requests that name the TLS connection they come by",
			"put the channel binding in base64 into challengePassword: tls-unique with TLS 1.2, tls-exporter (RFC 9266) with TLS 1.3")
	}
	return pkcs10.Request{}, fault.New(fault.Invalid, "csr.binding", "the certificate request's challengePassword is not the channel binding of this TLS connection",
		"make the request anew for each connection (tls-unique with TLS 1.2, tls-exporter of RFC 9266 with TLS 1.3), or leave challengePassword out")
}

func (s *Service) enrolled(caller access.Caller, d pki.Device, st Standing, req pkcs10.Request) (ledger.Fact, error) {
	sum := sha256.Sum256(d.Cert.Raw)
	data, err := json.Marshal(struct {
		Again    bool   `json:"again"`
		Device   string `json:"device"`
		Hardware string `json:"hardware"`
		IDevID   string `json:"idevid"`
		Product  string `json:"product"`
		Request  string `json:"request"`
	}{
		st.State != device.Provisioned, d.Identity.DeviceID, d.Identity.HWRev, hex.EncodeToString(sum[:]), d.Identity.Product, hex.EncodeToString(req.Digest[:]),
	})
	return ledger.New(ledger.KindDeviceEnrolled, s.c.Now(), caller.ID, d.Identity.DeviceID, nil, data), err
}

func spkiSum(csr *x509.CertificateRequest) string {
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Wanted is what a request should hold (RFC 7030 §4.5).
type Wanted struct {
	Identity *idevid.Identity // of the device that asks; nil: not known
	Suite    suite.Suite      // of its key
	Binding  bool             // it has to name the line it comes by
}

// Wanted says what a request of who presents these certificates, or of a device of the product label, should hold. Who presents none
// and names no product learns what the instance's default is: it is public, and changes nothing.
func (s *Service) Wanted(ctx context.Context, presented []*x509.Certificate, label string) (w Wanted, err error) {
	rules := Rules{Suite: suite.P256, Enrolment: product.Enrolment{Mode: product.Automatic}}
	if len(presented) > 0 {
		d, err := s.c.PKI.Trust().VerifyDevice(presented, s.c.Now())
		if err != nil {
			return w, err
		}
		if label != "" && label != d.Identity.Product {
			return w, noLabel(label)
		}
		w.Identity, label = &d.Identity, d.Identity.Product
	}
	if label != "" {
		if rules, err = s.c.Registry.Rules(ctx, label); err != nil {
			return w, err
		}
	}
	if w.Suite, err = suite.Get(rules.Suite); err != nil {
		return w, noLabel(label)
	}
	w.Binding = rules.Binding
	return w, nil
}

func noLabel(label string) error {
	return fault.New(fault.NotFound, "enrol.no-label", fmt.Sprintf("no device of product %.64q asks here", label), "name the device's product in the path, or none")
}
