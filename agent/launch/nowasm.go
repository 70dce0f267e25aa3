//go:build nowasm

package launch

import "errors"

const (
	hasWASM    = false
	wasmHost   = "hallmark-wasm"
	hostMemory = 0
)

func hostWASM(descriptors) (Report, error) {
	return Report{}, errors.New("this agent was built without WebAssembly")
}
