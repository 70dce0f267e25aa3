//go:build race

package line

const memory = 1 << 46 // bytes: the race detector maps a shadow of all addresses
