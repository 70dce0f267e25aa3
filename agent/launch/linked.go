//go:build cgo

package launch

// linked: this program needs the system's libraries to start.
const linked = true
