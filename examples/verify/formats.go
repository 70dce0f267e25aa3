package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"

	"golang.org/x/mod/sumdb/tlog"
)

func must(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func b64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	must(err == nil && base64.StdEncoding.EncodeToString(b) == s, "base64 %q", s)
	return b
}

// dict is a CBOR map whose keys are numbers.
type dict map[uint64]any

// list gives the maps of an array; none is an empty one.
func list(v any) (out []dict) {
	all, _ := v.([]any)
	for _, m := range all {
		out = append(out, m.(dict))
	}
	return out
}

func hashes(v any) (out []tlog.Hash) {
	for _, h := range v.([]any) {
		out = append(out, tlog.Hash(h.([]byte)))
	}
	return out
}

// decode reads one CBOR item, and takes it in one form only: the shortest, with the keys of maps ascending (RFC 8949 §4.2.1).
func decode(data []byte) any {
	r := &reader{data}
	v := r.item(0)
	must(len(r.rest) == 0, "CBOR: %d bytes too many", len(r.rest))
	return v
}

type reader struct{ rest []byte }

func (r *reader) take(n uint64) (b []byte) {
	must(n <= uint64(len(r.rest)), "CBOR: cut off")
	b, r.rest = r.rest[:n:n], r.rest[n:]
	return b
}

func (r *reader) item(depth int) any {
	head := r.take(1)[0]
	low, n := head&31, uint64(head&31)
	must(low < 28 && depth < 12, "CBOR: head %#x", head)
	if low >= 24 {
		n = 0
		for _, b := range r.take(1 << (low - 24)) {
			n = n<<8 | uint64(b)
		}
		must(n >= []uint64{24, 1 << 8, 1 << 16, 1 << 32}[low-24], "CBOR: not the shortest form")
	}
	switch head >> 5 {
	case 0:
		return n
	case 2:
		return r.take(n)
	case 3:
		return string(r.take(n))
	case 4:
		list := []any{}
		for range n {
			list = append(list, r.item(depth+1))
		}
		return list
	case 5:
		m, next := dict{}, uint64(0)
		for range n {
			k := r.item(depth + 1).(uint64)
			must(k >= next, "CBOR: keys not in order")
			m[k], next = r.item(depth+1), k+1
		}
		return m
	case 6: // a tag: only COSE's are there
		return r.item(depth + 1)
	}
	must(head == 0xf4 || head == 0xf5, "CBOR: head %#x", head)
	return head == 0xf5
}

// bstr appends a byte string's CBOR form.
func bstr(to []byte, b any) []byte {
	s := b.([]byte)
	switch n := len(s); {
	case n < 24:
		to = append(to, 0x40|byte(n))
	case n < 256:
		to = append(to, 0x58, byte(n))
	default:
		to = append(to, 0x59, byte(n>>8), byte(n))
	}
	return append(to, s...)
}

// signed gives the payload of a COSE_Sign1 (RFC 9052 §4.2) of that type by an ECDSA P-256 key (SubjectPublicKeyInfo).
func signed(envelope, spki any, typ string) dict {
	m := decode(envelope.([]byte)).([]any)
	pub, err := x509.ParsePKIXPublicKey(spki.([]byte))
	must(err == nil && bytes.Contains(m[0].([]byte), []byte(typ)), "no %s, or no key for it: %v", typ, err)
	text := bstr(bstr(bstr([]byte("\x84\x6aSignature1"), m[0]), []byte{}), m[2])
	sum, sig := sha256.Sum256(text), m[3].([]byte)
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:64])
	must(len(sig) == 64 && ecdsa.Verify(pub.(*ecdsa.PublicKey), sum[:], r, s), "signature of the %s", typ)
	return decode(m[2].([]byte)).(dict)
}
