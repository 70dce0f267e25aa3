package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arch is what the kernel calls this architecture (linux/audit.h).
var arch = map[string]uint32{"amd64": 0xC000003E, "arm64": 0xC00000B7, "arm": 0x40000028, "riscv64": 0xC00000F3}

const (
	offNr   = 0 // of struct seccomp_data
	offArch = 4
	offArgs = 16         // eight bytes each, little endian on every architecture above
	x32     = 0x40000000 // calls of the x32 interface have this bit, and pass for none of those below

	// newest is the last system call that the lists of this program were made with knowledge of. What a later kernel adds, nobody here has judged.
	newest = unix.SYS_LISTNS
	// armFirst is the first of the calls that are Arm's own (arm/syscall.tbl): caches and thread registers.
	armFirst = 0xf0000
)

// Filter is a list of system calls that are not allowed (seccomp). It forbids rather than allows, because what a language's runtime calls is its own
// affair and changes with its versions; calls that are newer than the list are refused as if the kernel had none of them.
type Filter struct{ program []bpf.Instruction }

// When narrows a refusal to calls one of whose arguments, under a mask, has a value. Only the low 32 bits are looked at: flags and numbers.
type When struct {
	Arg   int
	Mask  uint32 // 0: all bits
	Is    uint32
	IsNot bool
}

// NewFilter begins a filter: calls by another architecture's numbers end the process.
func NewFilter() (*Filter, error) {
	want, ok := arch[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("seccomp: architecture %s is not known here", runtime.GOARCH)
	}
	f := &Filter{program: []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: want, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offNr, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
	}}
	if runtime.GOARCH == "arm" {
		f.add(bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: armFirst, SkipTrue: 2}) // over both: allowed
	}
	f.add(bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: newest, SkipTrue: 1}, refusal(unix.ENOSYS))
	return f, nil
}

func (f *Filter) add(i ...bpf.Instruction) { f.program = append(f.program, i...) }

func refusal(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// Kill has the kernel end the process at any of the calls.
func (f *Filter) Kill(calls ...uint32) {
	for _, nr := range calls {
		f.add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
	}
}

// Refuse has the calls fail with errno.
func (f *Filter) Refuse(errno unix.Errno, calls ...uint32) {
	for _, nr := range calls {
		f.add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: 1}, refusal(errno))
	}
}

// RefuseWhen has a call fail with errno when all of the conditions hold.
func (f *Filter) RefuseWhen(errno unix.Errno, nr uint32, when ...When) {
	f.when(refusal(errno), nr, when)
}

// KillWhen has the kernel end the process at a call when all of the conditions hold.
func (f *Filter) KillWhen(nr uint32, when ...When) {
	f.when(bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, nr, when)
}

func (f *Filter) when(then bpf.Instruction, nr uint32, when []When) {
	block := []bpf.Instruction{}
	for i, w := range when {
		block = append(block, bpf.LoadAbsolute{Off: offArgs + 8*uint32(w.Arg), Size: 4})
		if w.Mask != 0 {
			block = append(block, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: w.Mask})
		}
		rest := uint8(1) // what then
		for _, later := range when[i+1:] {
			rest += 2
			if later.Mask != 0 {
				rest++
			}
		}
		cond := bpf.JumpNotEqual // what leads over the rest
		if w.IsNot {
			cond = bpf.JumpEqual
		}
		block = append(block, bpf.JumpIf{Cond: cond, Val: w.Is, SkipTrue: rest})
	}
	block = append(block, then, bpf.LoadAbsolute{Off: offNr, Size: 4})
	f.add(bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: nr, SkipTrue: uint8(len(block))})
	f.add(block...)
}

// Apply puts the filter in force for good: for this thread and what it becomes, or for all threads of the process.
func (f *Filter) Apply(allThreads bool) error {
	raw, err := bpf.Assemble(append(f.program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	var flags uintptr
	if allThreads {
		flags = unix.SECCOMP_FILTER_FLAG_TSYNC
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the call takes an address
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
