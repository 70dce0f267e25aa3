//go:build !cgo

package pkcs11

import (
	"errors"

	"github.com/hallmark-iot/hallmark/station/module"
)

// Create reports that this program cannot talk PKCS#11.
func Create(Config) (module.Module, error) { return Open(Config{}) }

// Open reports that this program cannot talk PKCS#11.
func Open(Config) (module.Module, error) {
	return nil, errors.New("this program was built without cgo and cannot load a PKCS#11 module: build it with a C compiler, or use the soft module")
}
