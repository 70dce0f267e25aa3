package boot

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw"
)

// ParamConfig is the name by which the product's first configuration, given in the factory, is read.
const ParamConfig = "config"

// paramsKey derives the key of the parameters from the fused secret, and from the state the device is in: with another root of trust, in another life
// cycle, or with its debug port open, it is another key, and nothing opens.
func paramsKey(secret, root [32]byte, life hw.Lifecycle, debugLocked bool) ([]byte, error) {
	info := fmt.Sprintf("hallmark-params-1 root %x life %s debug locked %v", root, life, debugLocked)
	return hkdf.Key(sha256.New, secret[:], nil, info, params.KeySize)
}

// Params opens the device's parameters.
func (m *Manager) Params() (*params.Store, error) {
	return params.Open(params.Config{
		Basic: m.flash.basic, Operational: m.flash.params, Counter: m.board.Params, Key: m.paramsKey, Sealer: m.board.Sealer, Device: m.rep.Identity.Device,
	})
}
