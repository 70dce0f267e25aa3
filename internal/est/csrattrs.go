package est

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"

	"github.com/hallmark-iot/hallmark/onboard"
)

var (
	oidECKey      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256       = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384       = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidSHA256     = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2} // ecdsa-with-SHA256
	oidSHA384     = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidChallenge  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidExtReq     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidTemplate   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 61} // id-aa-certificationRequestInfoTemplate
	oidExtReqTmpl = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 62} // id-aa-extensionReqTemplate
	oidSAN        = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// subjectTypes are the attributes of a device's name, in their order (package idevid).
var subjectTypes = []asn1.ObjectIdentifier{{2, 5, 4, 10}, {2, 5, 4, 11}, {2, 5, 4, 46}, {2, 5, 4, 5}}

// attribute is Attribute ::= SEQUENCE { type OID, values SET OF ANY }.
type attribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// keyTemplate is SubjectPublicKeyInfoTemplate without a key (RFC 9908 §3.4).
type keyTemplate struct {
	Algorithm struct {
		Algorithm asn1.ObjectIdentifier
		Curve     asn1.ObjectIdentifier
	}
}

// csrAttrs encodes CsrAttrs (RFC 7030 §4.5.2) in both of its forms at once, which RFC 9908 §3.4 allows: who knows
// id-aa-certificationRequestInfoTemplate reads only that, who does not skips it, as any attribute that he does not know.
//
//	CsrAttrs ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
//	AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }
func csrAttrs(w onboard.Wanted) ([]byte, error) {
	curve, sign := oidP256, oidSHA256
	switch w.Suite.Curve {
	case elliptic.P256():
	case elliptic.P384():
		curve, sign = oidP384, oidSHA384
	default:
		return nil, errors.New("csrattrs: a suite of another curve than P-256 and P-384")
	}
	key, err := attributeOf(oidECKey, curve)
	if err != nil {
		return nil, err
	}
	list := []any{key, sign}
	if w.Identity != nil {
		ask, err := extensions(w)
		if err != nil {
			return nil, err
		}
		list = append(list, ask)
	}
	if w.Binding {
		list = append(list, oidChallenge)
	}
	template, err := requestTemplate(w, curve)
	if err != nil {
		return nil, err
	}
	last, err := attributeOf(oidTemplate, template)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(append(list, last))
}

// requestTemplate is CertificationRequestInfoTemplate (RFC 9908 §3.4): name, kind of key and extensions, and of a device that is known
// the values, too.
//
//	SEQUENCE { version v1(0), subject NameTemplate OPTIONAL, subjectPKInfo [0] SubjectPublicKeyInfoTemplate OPTIONAL,
//	           attributes [1] Attributes }
func requestTemplate(w onboard.Wanted, curve asn1.ObjectIdentifier) (asn1.RawValue, error) {
	var none asn1.RawValue
	subject, err := nameTemplate(w)
	if err != nil {
		return none, err
	}
	var key keyTemplate
	key.Algorithm.Algorithm, key.Algorithm.Curve = oidECKey, curve
	keyDER, err := asn1.MarshalWithParams(key, "tag:0")
	if err != nil {
		return none, err
	}
	ask, err := extensions(w)
	if err != nil {
		return none, err
	}
	attrs := []attribute{ask}
	if w.Binding {
		attrs = append(attrs, attribute{Type: oidChallenge})
	}
	var set [][]byte
	for _, a := range attrs {
		der, err := asn1.Marshal(a)
		if err != nil {
			return none, err
		}
		set = append(set, der)
	}
	slices.SortFunc(set, bytes.Compare) // DER of a SET OF
	attrsDER, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: slices.Concat(set...)})
	if err != nil {
		return none, err
	}
	version := []byte{asn1.TagInteger, 1, 0}
	return asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(version, subject, keyDER, attrsDER)}, nil
}

// nameTemplate is the device's name, or of one that is not known the kinds of its attributes, in their order.
func nameTemplate(w onboard.Wanted) ([]byte, error) {
	if w.Identity != nil {
		return w.Identity.Subject()
	}
	type single struct{ Type asn1.ObjectIdentifier }
	type rdnSET []single
	var names []rdnSET
	for _, t := range subjectTypes {
		names = append(names, rdnSET{{t}})
	}
	return asn1.Marshal(names)
}

// extensions asks for the name in the form of RFC 4108: with its value, as id-ExtensionReq, of a device that is known; otherwise as
// id-aa-extensionReqTemplate without.
func extensions(w onboard.Wanted) (attribute, error) {
	if w.Identity == nil {
		type template struct{ ID asn1.ObjectIdentifier }
		return attributeOf(oidExtReqTmpl, []template{{oidSAN}})
	}
	san, err := w.Identity.SAN()
	if err != nil {
		return attribute{}, err
	}
	return attributeOf(oidExtReq, []pkix.Extension{san})
}

func attributeOf(t asn1.ObjectIdentifier, values ...any) (attribute, error) {
	a := attribute{Type: t}
	for _, v := range values {
		der, err := asn1.Marshal(v)
		if err != nil {
			return a, err
		}
		a.Values = append(a.Values, asn1.RawValue{FullBytes: der})
	}
	return a, nil
}
