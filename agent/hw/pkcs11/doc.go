// Package pkcs11 keeps a device's keys in a token that speaks PKCS#11: a secure element, or OP-TEE's.
//
// Under all stages, on the device. Keys are made in the token, as objects of it that are sensitive and not extractable; one that is found there and is not
// so is not used. It needs cgo; a program that was built without it says so. It trusts the token and its library, which runs in the
// process that asks.
package pkcs11

// Config says which token, and how to open it.
type Config struct {
	Path  string // of the library
	Label string // of the token
	PIN   string // of the user
}
