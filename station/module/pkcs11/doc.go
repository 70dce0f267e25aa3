// Package pkcs11 keeps a station's keys in an HSM that speaks PKCS#11 v2.40.
//
// Stage 2, birth, at the programming centre. What it guarantees: an order CA's key goes from the OEM into the token in one hop,
// under a wrapping key whose CKA_UNWRAP_TEMPLATE lets nothing out of it but a sensitive, non-extractable signing key; that
// wrapping key cannot decrypt, cannot be changed and cannot be copied. So a host that holds the PIN can use the order key
// while it is there, and never read it. It trusts the token to keep to those attributes; that SoftHSM does is tested, attack
// by attack.
//
// Order keys are session objects: they are gone when the station closes the session, or when power is.
package pkcs11

// Config says which token, and how to open it.
type Config struct {
	Path  string // of the PKCS#11 library
	Label string // of the token
	PIN   []byte // of the user; not kept

	Sessions int // signatures that may be under way at once; 0: 4
}
