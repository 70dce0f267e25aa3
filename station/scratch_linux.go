package station

import (
	"errors"

	kernel "golang.org/x/sys/unix"
)

// inMemory says whether what is written to a directory stays in memory.
func inMemory(dir string) error {
	var fs kernel.Statfs_t
	if err := kernel.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type != kernel.TMPFS_MAGIC && fs.Type != kernel.RAMFS_MAGIC {
		return errors.New("it is not in memory")
	}
	return nil
}
