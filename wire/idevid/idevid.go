// Package idevid holds the profile of device certificates: how the name of a device is written into one, and read back.
//
// Under all stages. The station writes IDevIDs (IEEE 802.1AR), the server writes LDevIDs, the device writes the requests, and all
// three read them with this code. It is pure. Parsing trusts nobody and accepts exactly one
// form; it says what a certificate *claims*. Whether the claim is true is decided by the chain, which package pki verifies.
//
//	Subject  O=<OEM>, OU=<product>, dnQualifier=<hardware revision>, serialNumber=<device ID>
//	SAN      otherName id-on-hardwareModuleName (RFC 4108 §5): hwType OID, hwSerialNum the 16 bytes of the device ID
//	Policy   PolicyIDevID or PolicyLDevID: which kind it is
package idevid

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Kind says which of its two identities a certificate gives a device.
type Kind string

// The kinds. The factory's is for the whole life and may only enrol; the operator's is short and does the work.
const (
	IDevID Kind = "idevid"
	LDevID Kind = "ldevid"
)

// Identity is what a device certificate says.
type Identity struct {
	Kind     Kind
	DeviceID string // 32 lower-case hex digits
	OEM      string
	Product  string
	HWRev    string
}

// Object identifiers. Those under 2.25 are UUIDs made for Hallmark (X.667), as no registry is needed for them.
const (
	oidPolicyIDevID = "2.25.6695875626801166992883117931081993157"
	oidPolicyLDevID = "2.25.161420700121034942037469785195153351652"
)

var (
	oidSAN            = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidHardwareModule = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}
	oidOrganization   = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOrgUnit        = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidDNQualifier    = asn1.ObjectIdentifier{2, 5, 4, 46}
	oidSerialNumber   = asn1.ObjectIdentifier{2, 5, 4, 5}
)

// PolicyIDevID is the certificate policy of IDevIDs and of the CAs that may issue them.
func PolicyIDevID() x509.OID { return policyIDevID }

// PolicyLDevID is the certificate policy of LDevIDs and of the CA that may issue them.
func PolicyLDevID() x509.OID { return policyLDevID }

// Read once: each certificate that is written or read is held against them.
var policyIDevID, policyLDevID = mustOID(oidPolicyIDevID), mustOID(oidPolicyLDevID)

func mustOID(s string) x509.OID {
	o, err := x509.ParseOID(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return o
}

// NoExpiry is the notAfter of a certificate without a well-defined end (RFC 5280 §4.1.2.5): 99991231235959Z.
func NoExpiry() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// Check says what is wrong with the names in id: each is 1 to 64 characters of letters, digits, space and ._-+&'()
// and the device ID is 32 lower-case hex digits.
func (id Identity) Check() error {
	if _, err := serialBytes(id.DeviceID); err != nil {
		return err
	}
	for _, f := range []struct{ what, value string }{{"OEM", id.OEM}, {"product", id.Product}, {"hardware revision", id.HWRev}} {
		if err := checkName(f.what, f.value); err != nil {
			return err
		}
	}
	return nil
}

func checkName(what, s string) error {
	if s == "" || len(s) > 64 || s[0] == ' ' || s[len(s)-1] == ' ' {
		return fmt.Errorf("%s %q: want 1 to 64 characters, no space at either end", what, s)
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case r == ' ', r == '.', r == '_', r == '-', r == '+', r == '&', r == '\'', r == '(', r == ')':
		default:
			return fmt.Errorf("%s %q: character %q is not allowed in a certificate's name", what, s, r)
		}
	}
	return nil
}

func serialBytes(deviceID string) ([]byte, error) {
	b, err := hex.DecodeString(deviceID)
	if err != nil || len(b) != 16 || hex.EncodeToString(b) != deviceID {
		return nil, fmt.Errorf("device ID %q: want 32 lower-case hex digits", deviceID)
	}
	return b, nil
}

// Subject gives the DER of the distinguished name of id.
func (id Identity) Subject() ([]byte, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(name *cryptobyte.Builder) {
		for _, f := range []struct {
			oid   asn1.ObjectIdentifier
			value string
		}{{oidOrganization, id.OEM}, {oidOrgUnit, id.Product}, {oidDNQualifier, id.HWRev}, {oidSerialNumber, id.DeviceID}} {
			name.AddASN1(cbasn1.SET, func(rdn *cryptobyte.Builder) {
				rdn.AddASN1(cbasn1.SEQUENCE, func(attribute *cryptobyte.Builder) {
					attribute.AddASN1ObjectIdentifier(f.oid)
					attribute.AddASN1(stringType(f.value), func(v *cryptobyte.Builder) { v.AddBytes([]byte(f.value)) })
				})
			})
		}
	})
	return b.Bytes()
}

// stringType is PrintableString where all of s is of it (X.680 §41.4): of what checkName allows, '_' and '&' are not.
func stringType(s string) cbasn1.Tag {
	if strings.ContainsAny(s, "_&") {
		return cbasn1.UTF8String
	}
	return cbasn1.PrintableString
}

// HWType is the object identifier of the hardware type: an OID under 2.25 whose number is derived from OEM, product and hardware
// revision, so that the three need no registered arc and still cannot be mixed up.
func (id Identity) HWType() (x509.OID, error) {
	h := sha256.New()
	for _, s := range []string{"hallmark hwType v1", id.OEM, id.Product, id.HWRev} {
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		h.Write([]byte(":" + s))
	}
	u := h.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // a version 8 UUID (RFC 9562)
	var hw x509.OID
	return hw, hw.UnmarshalBinary(underUUID(u))
}

// underUUID is the content of the object identifier 2.25.u (X.667): u is one component, in base 128 with the high bit on all bytes but the last.
func underUUID(u []byte) []byte {
	out := []byte{2*40 + 25}
	var digits []byte // lowest first
	var bits, have uint
	for _, b := range slices.Backward(u) {
		bits |= uint(b) << have
		for have += 8; have >= 7; have -= 7 {
			digits = append(digits, byte(bits&0x7f))
			bits >>= 7
		}
	}
	digits = append(digits, byte(bits))
	for len(digits) > 1 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	for i, d := range slices.Backward(digits) {
		if i > 0 {
			d |= 0x80
		}
		out = append(out, d)
	}
	return out
}

// SAN gives the subjectAltName extension of id, not critical: the subject is never empty in this profile.
func (id Identity) SAN() (pkix.Extension, error) {
	serial, err := serialBytes(id.DeviceID)
	if err != nil {
		return pkix.Extension{}, err
	}
	hw, err := id.HWType()
	if err != nil {
		return pkix.Extension{}, err
	}
	hwDER, err := hw.MarshalBinary()
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := encodeSAN(hwDER, serial)
	if err != nil {
		return pkix.Extension{}, err
	}
	return pkix.Extension{Id: oidSAN, Value: value}, nil
}

// Template is a certificate template for id: what the profile fixes, ready for x509.CreateCertificate. A zero notAfter is
// NoExpiry and belongs to IDevIDs only. The caller chooses the serial number (RandomSerial) and adds distribution points.
func Template(id Identity, serial *big.Int, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	subject, err := id.Subject()
	if err != nil {
		return nil, err
	}
	san, err := id.SAN()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		RawSubject:            subject,
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{san},
	}
	switch id.Kind {
	case IDevID:
		if !notAfter.IsZero() && !notAfter.Equal(NoExpiry()) {
			return nil, fmt.Errorf("IDevID of %s: notAfter %s, must be 99991231235959Z", id.DeviceID, notAfter)
		}
		t.NotAfter = NoExpiry()
		t.Policies = []x509.OID{PolicyIDevID()}
	case LDevID:
		if !notAfter.After(notBefore) || !notAfter.Before(NoExpiry()) {
			return nil, fmt.Errorf("LDevID of %s: valid from %s to %s", id.DeviceID, notBefore, notAfter)
		}
		t.Policies = []x509.OID{PolicyLDevID()}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	default:
		return nil, fmt.Errorf("device certificate of kind %q", id.Kind)
	}
	return t, nil
}

// RequestTemplate is the template of a certificate request by the device id: same subject and SAN as its certificate, which is
// what RFC 7030 §4.2.2 asks of a renewal and what enrolment accepts too.
func RequestTemplate(id Identity) (*x509.CertificateRequest, error) {
	subject, err := id.Subject()
	if err != nil {
		return nil, err
	}
	san, err := id.SAN()
	if err != nil {
		return nil, err
	}
	return &x509.CertificateRequest{RawSubject: subject, ExtraExtensions: []pkix.Extension{san}}, nil
}

// ErrNotDevice says that a certificate is not of this profile.
var ErrNotDevice = errors.New("not a device certificate")

// Parse reads the identity that cert claims. It demands the whole profile: subject, SAN and policy, each once, agreeing with each
// other. It believes nothing: verify the chain for that, against the CAs of the Kind it returns.
//
// A certificate with an empty subject and a critical SAN (RFC 5280 §4.2.1.6; some secure elements come so) is accepted with only
// Kind and DeviceID set: the issuing CA then says the rest. Such an extension is listed by crypto/x509 as unhandled; HandledSAN
// takes it off that list, and may be called after Parse only.
func Parse(cert *x509.Certificate) (Identity, error) {
	id, err := parse(cert)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNotDevice, err)
	}
	return id, nil
}

func parse(cert *x509.Certificate) (Identity, error) {
	if cert.IsCA {
		return Identity{}, errors.New("it is a CA's")
	}
	if len(cert.Policies) != 1 {
		return Identity{}, fmt.Errorf("%d certificate policies, want one", len(cert.Policies))
	}
	var id Identity
	switch {
	case cert.Policies[0].Equal(PolicyIDevID()):
		id.Kind = IDevID
	case cert.Policies[0].Equal(PolicyLDevID()):
		id.Kind = LDevID
	default:
		return Identity{}, fmt.Errorf("policy %s is neither IDevID nor LDevID", cert.Policies[0])
	}
	san, err := oneSAN(cert.Extensions)
	if err != nil {
		return Identity{}, err
	}
	hwType, serial, err := ParseSAN(san.Value)
	if err != nil {
		return Identity{}, err
	}
	id.DeviceID = hex.EncodeToString(serial)
	if len(cert.Subject.Names) == 0 {
		if !san.Critical || id.Kind != IDevID {
			return Identity{}, errors.New("empty subject without a critical subjectAltName")
		}
		return id, nil
	}
	if err := id.readSubject(cert.RawSubject); err != nil {
		return Identity{}, err
	}
	if id.DeviceID != hex.EncodeToString(serial) {
		return Identity{}, fmt.Errorf("serialNumber %s and hwSerialNum %x differ", id.DeviceID, serial)
	}
	want, err := id.HWType()
	if err != nil {
		return Identity{}, err
	}
	if !hwType.Equal(want) {
		return Identity{}, fmt.Errorf("hwType %s is not that of %s/%s/%s", hwType, id.OEM, id.Product, id.HWRev)
	}
	return id, nil
}

// readSubject accepts the one encoding that Subject writes.
func (id *Identity) readSubject(raw []byte) error {
	var seq pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &seq); err != nil || len(rest) != 0 {
		return errors.New("subject does not parse")
	}
	dst := []struct {
		oid asn1.ObjectIdentifier
		to  *string
	}{{oidOrganization, &id.OEM}, {oidOrgUnit, &id.Product}, {oidDNQualifier, &id.HWRev}, {oidSerialNumber, &id.DeviceID}}
	if len(seq) != len(dst) {
		return fmt.Errorf("subject has %d parts, want O, OU, dnQualifier, serialNumber", len(seq))
	}
	for i, rdn := range seq {
		if len(rdn) != 1 || !rdn[0].Type.Equal(dst[i].oid) {
			return errors.New("subject is not O, OU, dnQualifier, serialNumber in this order")
		}
		s, ok := rdn[0].Value.(string)
		if !ok {
			return errors.New("subject holds something that is not text")
		}
		*dst[i].to = s
	}
	return id.Check()
}

// SubjectOEM gives organization and product of a CA's subject, for IDevIDs that leave theirs out.
func SubjectOEM(ca *x509.Certificate) (oem, product string) {
	if len(ca.Subject.Organization) == 1 {
		oem = ca.Subject.Organization[0]
	}
	if len(ca.Subject.OrganizationalUnit) == 1 {
		product = ca.Subject.OrganizationalUnit[0]
	}
	return oem, product
}

// OrderUnit tells the CAs of orders apart in their names: by the order, and the beginning of its station's fingerprint (hex).
func OrderUnit(order, station string) string { return order + " " + station[:min(12, len(station))] }

// OrderName is the whole common name of an order's CA.
func OrderName(order, station string) string { return "order " + OrderUnit(order, station) }

func oneSAN(exts []pkix.Extension) (pkix.Extension, error) {
	i := slices.IndexFunc(exts, func(e pkix.Extension) bool { return e.Id.Equal(oidSAN) })
	if i < 0 {
		return pkix.Extension{}, errors.New("no subjectAltName")
	}
	return exts[i], nil // crypto/x509 refuses duplicates
}

// HandledSAN returns a copy of cert that no longer lists a critical subjectAltName as unhandled, for one that Parse accepted.
func HandledSAN(cert *x509.Certificate) *x509.Certificate {
	c := *cert
	c.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), oidSAN.Equal)
	return &c
}
