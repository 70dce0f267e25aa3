//go:build !linux

package blob

import "os"

// stateAs knows of a file what every system tells: elsewhere than under Linux, altered bytes with the old size and time are not noticed once they were verified.
func stateAs(info os.FileInfo) state { return state{size: info.Size(), mod: info.ModTime()} }
