//go:build !cgo

package pkcs11

import (
	"errors"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// Keys is a key store in a token.
type Keys struct{ hw.KeyStore }

// Open fails: there is no way to a token without cgo.
func Open(Config) (*Keys, error) {
	return nil, errors.New("this program is built without PKCS#11: build it with CGO_ENABLED=1")
}

// Close closes nothing.
func (*Keys) Close() error { return nil }
