// Package pkcs11 keeps private keys in a token that speaks PKCS#11 v2.40.
//
// Under all stages. Keys are made in the token, as sensitive, not extractable, for signing only, and found by their label: a host that holds the
// PIN can use them while the token is there, and never read them. It trusts the token to keep to those attributes; that SoftHSM does is tested.
// Two keys of one label are an accident or an attack, and neither is used.
package pkcs11

import "errors"

// Config says which token, and how to open it.
type Config struct {
	Path  string // of the PKCS#11 library
	Label string // of the token
	PIN   []byte // of the user; not kept
}

// ErrNoKey says that the token has no key of that name.
var ErrNoKey = errors.New("no such key")
