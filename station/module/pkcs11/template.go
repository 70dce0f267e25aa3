//go:build cgo

package pkcs11

/*
#include <stdlib.h>

// CK_ATTRIBUTE of PKCS#11 v2.40 §3.3, as every Unix lays it out.
typedef struct { unsigned long type; void *value; unsigned long length; } hm_attribute;
*/
import "C"

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// held is what an unwrapped key is held to: wire.SigningTemplate in PKCS#11's words. The wrapping key carries it, and every
// unwrap repeats it exactly.
func held() []struct {
	typ   uint
	value any
} {
	return []struct {
		typ   uint
		value any
	}{
		{p11.CKA_CLASS, uint(p11.CKO_PRIVATE_KEY)},
		{p11.CKA_SENSITIVE, true},
		{p11.CKA_EXTRACTABLE, false},
		{p11.CKA_SIGN, true},
		{p11.CKA_DECRYPT, false},
		{p11.CKA_UNWRAP, false},
	}
}

// cTemplate is an array of attributes in C memory: CKA_UNWRAP_TEMPLATE's value holds pointers, which Go memory cannot give.
type cTemplate struct {
	array unsafe.Pointer
	n     int
	parts []unsafe.Pointer
}

func unwrapTemplate() *cTemplate {
	list := held()
	t := &cTemplate{n: len(list), array: C.malloc(C.size_t(len(list)) * C.size_t(unsafe.Sizeof(C.hm_attribute{})))}
	out := unsafe.Slice((*C.hm_attribute)(t.array), t.n)
	for i, e := range list {
		v := p11.NewAttribute(e.typ, e.value).Value
		p := C.CBytes(v)
		t.parts = append(t.parts, p)
		out[i] = C.hm_attribute{_type: C.ulong(e.typ), value: p, length: C.ulong(len(v))}
	}
	return t
}

// bytes is the array as CKA_UNWRAP_TEMPLATE wants it; valid until free.
func (t *cTemplate) bytes() []byte {
	return C.GoBytes(t.array, C.int(t.n)*C.int(unsafe.Sizeof(C.hm_attribute{})))
}

func (t *cTemplate) free() {
	for _, p := range t.parts {
		C.free(p)
	}
	C.free(t.array)
}

func parseP256(spki []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: public key: %w", err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("pkcs11: the order CA's key is not on P-256")
	}
	return pub, nil
}
