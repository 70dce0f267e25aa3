//go:build !amd64 && !arm

package confine

// older are the forms of forbidden calls that newer architectures do not have.
var older []uint32
