//go:build !race

package line

const memory = 256 << 20 // of addresses, bytes: Go maps more than it has
