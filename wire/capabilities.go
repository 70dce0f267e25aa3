package wire

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Runtime says what executes a program.
type Runtime string

// RuntimeWASM is a WebAssembly module with WASI preview 1. The zero Runtime is machine code of the device.
const RuntimeWASM Runtime = "wasm"

// Capabilities are what a program may reach beyond what every program has: its own directory, its health socket, the clock and random numbers. They
// are signed with the release, so that whoever approves it approves them; a component without any has nothing more. Lists rise strictly: there is
// one way to say a thing.
type Capabilities struct {
	Runtime    Runtime  `cbor:"1,keyasint,omitempty" json:"runtime,omitempty" enum:"wasm" doc:"what executes it; absent: the device's processor"`
	ConnectTCP []uint16 `cbor:"2,keyasint,omitempty" json:"connect_tcp,omitempty" doc:"TCP ports it may connect to, anywhere"`
	BindTCP    []uint16 `cbor:"3,keyasint,omitempty" json:"bind_tcp,omitempty" doc:"TCP ports it may listen on"`
	UDP        bool     `cbor:"4,keyasint,omitempty" json:"udp,omitempty" doc:"it may send and receive datagrams, to and from any port: names are looked up by them"`
	Read       []string `cbor:"5,keyasint,omitempty" json:"read,omitempty" doc:"files and folders it may read, and execute, with everything below them"`
	Devices    []string `cbor:"6,keyasint,omitempty" json:"devices,omitempty" doc:"character devices below /dev it may open to read and write"`
	Memory     uint64   `cbor:"7,keyasint,omitempty" json:"memory,omitempty" doc:"bytes of memory it may have; absent: 64 MiB"`
	Tasks      uint32   `cbor:"8,keyasint,omitempty" json:"tasks,omitempty" doc:"processes and threads it may have at a time; absent: 64"`
	CPU        uint32   `cbor:"9,keyasint,omitempty" json:"cpu,omitempty" doc:"percent of one core it may use; absent: 100"`
	Parameters []string `cbor:"10,keyasint,omitempty" json:"parameters,omitempty" doc:"names of the device's parameters that it is told; it has to have the health check socket"`
	Disk       uint64   `cbor:"12,keyasint,omitempty" json:"disk,omitempty" doc:"bytes it may keep in its directory; absent: 64 MiB"`
	Channels   []string `cbor:"13,keyasint,omitempty" json:"channels,omitempty" doc:"channels to another program of the same release, which names them too"`
	Data       []string `cbor:"11,keyasint,omitempty" json:"data,omitempty" doc:"data components of the same release that it reads"`
}

// What a program has that names nothing else, and the bounds of what it may name.
const (
	DefaultMemory = 64 << 20
	DefaultTasks  = 64
	DefaultCPU    = 100
	DefaultDisk   = 64 << 20

	MinMemory      = 16 << 20 // what a program is started by needs some itself
	MaxMemory      = 1 << 40
	MinTasks       = 16
	MaxTasks       = 4096
	MaxCPU         = 100 * 1024
	MinDisk        = 64 << 10
	MaxDisk        = 1 << 40
	MaxGranted     = 32  // ports, paths or devices in one list
	maxPath        = 256 // bytes
	maxGrantedName = 64
)

// MemoryLimit is the bytes of memory that the component may have.
func (c Component) MemoryLimit() uint64 {
	if c.Capabilities == nil || c.Capabilities.Memory == 0 {
		return DefaultMemory
	}
	return c.Capabilities.Memory
}

// TaskLimit is how many processes and threads the component may have.
func (c Component) TaskLimit() uint32 {
	if c.Capabilities == nil || c.Capabilities.Tasks == 0 {
		return DefaultTasks
	}
	return c.Capabilities.Tasks
}

// CPULimit is the processor time the component may have, percent of one core.
func (c Component) CPULimit() uint32 {
	if c.Capabilities == nil || c.Capabilities.CPU == 0 {
		return DefaultCPU
	}
	return c.Capabilities.CPU
}

// DiskLimit is the bytes that the component may keep in its directory.
func (c Component) DiskLimit() uint64 {
	if c.Capabilities == nil || c.Capabilities.Disk == 0 {
		return DefaultDisk
	}
	return c.Capabilities.Disk
}

// WASM reports whether the component is a WebAssembly module.
func (c Component) WASM() bool { return c.Capabilities != nil && c.Capabilities.Runtime == RuntimeWASM }

// Network reports whether any of it was granted.
func (c *Capabilities) Network() bool {
	return c != nil && (len(c.ConnectTCP) > 0 || len(c.BindTCP) > 0 || c.UDP)
}

// String says for people what is granted: what an approver reads before they sign.
func (c *Capabilities) String() string {
	if c == nil {
		return "nothing"
	}
	var out []string
	if c.Runtime != "" {
		out = append(out, string(c.Runtime))
	}
	for _, l := range []struct {
		what string
		list []string
	}{{"connect to TCP", numbers(c.ConnectTCP)}, {"listen on TCP", numbers(c.BindTCP)}, {"read", c.Read}, {"use", c.Devices}, {"be told", c.Parameters}, {"read the data", c.Data}, {"talk over", c.Channels}} {
		if len(l.list) > 0 {
			out = append(out, l.what+" "+strings.Join(l.list, ", "))
		}
	}
	if c.UDP {
		out = append(out, "UDP")
	}
	if c.Memory > 0 {
		out = append(out, fmt.Sprintf("%d bytes of memory", c.Memory))
	}
	if c.Tasks > 0 {
		out = append(out, fmt.Sprintf("%d tasks", c.Tasks))
	}
	if c.CPU > 0 {
		out = append(out, fmt.Sprintf("%d %% of a core", c.CPU))
	}
	if c.Disk > 0 {
		out = append(out, fmt.Sprintf("keep %d bytes", c.Disk))
	}
	return strings.Join(out, "; ")
}

func numbers(list []uint16) []string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = strconv.Itoa(int(n))
	}
	return out
}

// reaching are devices by which the whole device could be reached, whatever else a program may: their names begin so.
var reaching = []string{"mem", "kmem", "port", "kmsg", "tpm", "mtd", "ubi", "watchdog", "fuse", "kvm", "vfio", "uinput", "loop", "nvme", "sd", "mmcblk", "vd", "dm-", "mapper", "disk", "block", "fd", "pts", "ptmx", "shm", "mqueue"}

func (c *Capabilities) check() error {
	switch {
	case c.Runtime != "" && c.Runtime != RuntimeWASM:
		return fmt.Errorf("runtime %q: want %q, or none for machine code", c.Runtime, RuntimeWASM)
	case c.Memory != 0 && (c.Memory < MinMemory || c.Memory > MaxMemory):
		return fmt.Errorf("memory of %d bytes: want %d to %d", c.Memory, MinMemory, uint64(MaxMemory))
	case c.Tasks != 0 && (c.Tasks < MinTasks || c.Tasks > MaxTasks):
		return fmt.Errorf("%d tasks: want %d to %d", c.Tasks, MinTasks, MaxTasks)
	case c.Disk != 0 && (c.Disk < MinDisk || c.Disk > MaxDisk):
		return fmt.Errorf("disk of %d bytes: want %d to %d", c.Disk, MinDisk, uint64(MaxDisk))
	case c.CPU > MaxCPU:
		return fmt.Errorf("%d percent of a core, at most %d", c.CPU, MaxCPU)
	case c.String() == "":
		return errors.New("an empty list of capabilities: leave it out")
	case c.Runtime == RuntimeWASM && (c.Network() || len(c.Devices) > 0 || c.Tasks > 0):
		return errors.New("a WebAssembly module has no network, no devices and one task: grant it none")
	}
	if err := errors.Join(rising("connect_tcp", c.ConnectTCP), rising("bind_tcp", c.BindTCP), rising("read", c.Read), rising("devices", c.Devices), rising("parameters", c.Parameters), rising("data", c.Data), rising("channels", c.Channels)); err != nil {
		return err
	}
	if slices.Contains(c.ConnectTCP, 0) || slices.Contains(c.BindTCP, 0) {
		return errors.New("TCP port 0: name each port")
	}
	if i := slices.IndexFunc(c.Data, func(name string) bool { return !passable(name) }); i >= 0 {
		return fmt.Errorf("data %q: want a name of 1 to %d characters without blanks, : and /", c.Data[i], maxGrantedName)
	}
	if i := slices.IndexFunc(c.Channels, func(name string) bool { return !passable(name) }); i >= 0 {
		return fmt.Errorf("channel %q: want a name of 1 to %d characters without blanks, : and /", c.Channels[i], maxGrantedName)
	}
	return errors.Join(checkRead(c.Read), checkDevices(c.Devices))
}

// rising refuses a list that is too long, or that says its members twice or in another order.
func rising[T uint16 | string](what string, list []T) error {
	if len(list) > MaxGranted {
		return fmt.Errorf("%s: %d, at most %d", what, len(list), MaxGranted)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			return fmt.Errorf("%s: %v: want rising order, each once", what, list)
		}
	}
	return nil
}

// checkRead wants paths of which each says something the others do not, and none of which is the whole device.
func checkRead(list []string) error {
	for i, p := range list {
		switch {
		case !plain(p):
			return fmt.Errorf("read %q: want an absolute path in its shortest form, of at most %d bytes", p, maxPath)
		case slices.Contains([]string{"/", "/proc", "/sys", "/dev", "/run", "/var", "/etc", "/root", "/home"}, p) || strings.HasPrefix(p, "/proc/self"):
			return fmt.Errorf("read %q: that is too much: name the files that are needed", p)
		case strings.HasPrefix(p, "/dev/"):
			return fmt.Errorf("read %q: name devices under devices", p)
		case slices.ContainsFunc(list[:i], func(above string) bool { return strings.HasPrefix(p, above+"/") }):
			return fmt.Errorf("read %q: a folder above it is granted already", p)
		}
	}
	return nil
}

func checkDevices(list []string) error {
	for _, p := range list {
		name, ok := strings.CutPrefix(p, "/dev/")
		if !plain(p) || !ok {
			return fmt.Errorf("device %q: want its path below /dev", p)
		}
		if slices.ContainsFunc(reaching, func(r string) bool { return strings.HasPrefix(name, r) }) {
			return fmt.Errorf("device %q: the whole device can be reached by it", p)
		}
	}
	return nil
}

// passable reports whether a program can be told of a thing by this name: beside the descriptor that it is given.
func passable(name string) bool {
	return name != "" && len(name) <= maxGrantedName && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' || r == '/' })
}

// plain reports whether p is an absolute path in its one form, of characters that can be seen.
func plain(p string) bool {
	return len(p) <= maxPath && path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
