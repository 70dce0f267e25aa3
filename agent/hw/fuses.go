package hw

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// FuseBank is an array of one-time fuses in 32-bit words: a bit once blown stays 1. A power cut in Blow leaves any of the bits
// of the mask blown. After LockFixed, until reset, words [FirstSecret, FuseWords) read ErrLocked, and no word that is Fixed is blown any more: ErrLocked.
type FuseBank interface {
	Read(word int) (uint32, error)
	Blow(word int, mask uint32) error
	LockFixed()
}

// How the words of the bank are used. Two-bit differential pairs (a bit and, elsewhere, its complement) hold fixed values:
// an unblown, half-blown or later altered bit shows. Growing values (counter, life cycle, lock) are blown twice; what reads
// as blown in either copy counts, because each of them only ever becomes more restrictive.
const (
	fuseRoot     = 0 // SHA-256 of the root role: 8 words, then 8 of their complement
	fuseCounter  = 16
	fuseCounter2 = fuseCounter + counterWords
	fuseLife     = 20 // and its copy
	fuseDebug    = 22 // and its copy: 1, the debug port is closed; 3, and boot managers have to be signed for
	FirstSecret  = 24 // unique device secret: 8 words, then 8 of their complement
	FuseWords    = 40
	counterWords = 2
	digestWords  = sha256.Size / 4
)

// Fixed reports whether a word holds a value that is burned once, in the factory.
func Fixed(word int) bool { return word < fuseCounter || word >= FirstSecret }

// CounterMax is the largest security counter the fuses hold.
const CounterMax uint32 = counterWords * 32

// Fuse errors, for errors.Is.
var (
	// ErrCounterExhausted says that the fuses have no bit left for the security counter asked for.
	ErrCounterExhausted = errors.New("security counter exceeds the fuses")
	// ErrFuseParity says that the two copies of a fuse value disagree.
	ErrFuseParity = errors.New("fuse copies disagree")
	// ErrNotBurned says that a fixed value has not been burned yet.
	ErrNotBurned = errors.New("fuses not burned")
	// ErrBurned says that a fixed value was burned with other bits before.
	ErrBurned = errors.New("fuses are burned already")
)

// Lifecycle is the stage of life burned into the fuses; it only moves forward.
type Lifecycle int

// Life cycles. Assembly is the unblown state.
const (
	Assembly Lifecycle = iota
	Secured
	Decommissioned
)

func (l Lifecycle) String() string {
	switch l {
	case Assembly:
		return "assembly"
	case Secured:
		return "secured"
	case Decommissioned:
		return "decommissioned"
	}
	return fmt.Sprintf("lifecycle(%d)", int(l))
}

// Fuses gives the words of a bank their meaning.
type Fuses struct{ bank FuseBank }

// NewFuses reads meaning into bank.
func NewFuses(bank FuseBank) *Fuses { return &Fuses{bank: bank} }

// SecurityCounter is the lowest security counter that may boot.
func (f *Fuses) SecurityCounter() (uint32, error) {
	n := uint32(0)
	for i := range counterWords {
		w, err := f.either(fuseCounter+i, fuseCounter2+i)
		if err != nil {
			return 0, err
		}
		if w != 0 {
			n = uint32(i*32 + bits.Len32(w))
		}
	}
	return n, nil
}

// RaiseSecurityCounter burns the counter up to n; lower or equal is nothing. ErrCounterExhausted when the bits do not reach.
// After a power cut the counter lies between its old value and n.
func (f *Fuses) RaiseSecurityCounter(n uint32) error {
	if n > CounterMax {
		return fmt.Errorf("%w: %d of at most %d: this board can take no further security update", ErrCounterExhausted, n, CounterMax)
	}
	for _, first := range []int{fuseCounter, fuseCounter2} {
		for i := range counterWords {
			if err := f.blow(first+i, thermometer(n, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// thermometer is word i of n as that many low bits.
func thermometer(n uint32, i int) uint32 {
	switch have := int(n) - i*32; {
	case have <= 0:
		return 0
	case have >= 32:
		return ^uint32(0)
	default:
		return 1<<have - 1
	}
}

// Lifecycle is the device's stage of life.
func (f *Fuses) Lifecycle() (Lifecycle, error) {
	w, err := f.either(fuseLife, fuseLife+1)
	return Lifecycle(bits.Len32(w)), err
}

// Advance moves the life cycle to l; to go back is an error.
func (f *Fuses) Advance(l Lifecycle) error {
	now, err := f.Lifecycle()
	if err != nil {
		return err
	}
	if l < now || l > Decommissioned {
		return fmt.Errorf("life cycle %s cannot become %s", now, l)
	}
	return f.twice(fuseLife, 1<<l-1)
}

// DebugLocked reports whether the debug port is closed for good.
func (f *Fuses) DebugLocked() (bool, error) {
	w, err := f.either(fuseDebug, fuseDebug+1)
	return w != 0, err
}

// SignedBoot reports whether this device starts no boot manager but one that was signed for.
func (f *Fuses) SignedBoot() (bool, error) {
	w, err := f.either(fuseDebug, fuseDebug+1)
	return w > 1, err
}

// DemandSigned makes it so, for good; it closes the debug port too.
func (f *Fuses) DemandSigned() error { return f.twice(fuseDebug, 3) }

// LockDebug closes the debug port for good.
func (f *Fuses) LockDebug() error { return f.twice(fuseDebug, 1) }

// Root is the digest of the root role (keys and threshold) that the first trust bundle must carry. ErrNotBurned before birth.
func (f *Fuses) Root() ([32]byte, error) { return f.fixed(fuseRoot) }

// BurnRoot fixes the root role. Burning the same value again is nothing, and completes one that a power cut broke off.
func (f *Fuses) BurnRoot(d [32]byte) error { return f.burnFixed(fuseRoot, d) }

// Secret is the unique device secret, from which the chain of identities begins. ErrLocked once LockFixed has been called.
func (f *Fuses) Secret() ([32]byte, error) { return f.fixed(FirstSecret) }

// BurnSecret fixes the unique device secret. When a power cut broke an earlier secret off, the bits that it left stay, and d
// gives only the others.
func (f *Fuses) BurnSecret(d [32]byte) error {
	if _, err := f.Secret(); errors.Is(err, ErrFuseParity) {
		for i := range digestWords {
			ones, err := f.bank.Read(FirstSecret + i)
			if err != nil {
				return err
			}
			zeros, err := f.bank.Read(FirstSecret + digestWords + i)
			if err != nil {
				return err
			}
			w := binary.BigEndian.Uint32(d[4*i:])
			binary.BigEndian.PutUint32(d[4*i:], w&^zeros|ones)
		}
	}
	return f.burnFixed(FirstSecret, d)
}

// LockFixed closes what only the first stage of a start may use, until the next reset: the secret is not read any more, and neither it nor the root is
// burned. What grows over a life (counter, life cycle, debug lock) stays open to the stages behind it.
func (f *Fuses) LockFixed() { f.bank.LockFixed() }

// Repair completes growing values whose burning a power cut broke off; it never makes them less restrictive. It reports
// whether there was anything to complete.
func (f *Fuses) Repair() (bool, error) {
	n, err := f.SecurityCounter()
	if err != nil {
		return false, err
	}
	before := f.Check()
	if err := f.RaiseSecurityCounter(n); err != nil {
		return false, err
	}
	for _, w := range []int{fuseLife, fuseDebug} {
		v, err := f.either(w, w+1)
		if err != nil {
			return false, err
		}
		if err := f.twice(w, 1<<bits.Len32(v)-1); err != nil {
			return false, err
		}
	}
	return before != nil, nil
}

// Check compares the copies of every value that is readable; ErrFuseParity names the one that disagrees.
func (f *Fuses) Check() error {
	pairs := [][2]int{{fuseLife, fuseLife + 1}, {fuseDebug, fuseDebug + 1}}
	n, err := f.SecurityCounter()
	if err != nil {
		return err
	}
	for i := range counterWords {
		pairs = append(pairs, [2]int{fuseCounter + i, fuseCounter2 + i})
		if w, err := f.bank.Read(fuseCounter + i); err != nil {
			return err
		} else if w != thermometer(n, i) {
			return fmt.Errorf("%w: security counter word %d", ErrFuseParity, i)
		}
	}
	for _, p := range pairs {
		a, err := f.bank.Read(p[0])
		if err != nil {
			return err
		}
		b, err := f.bank.Read(p[1])
		if err != nil {
			return err
		}
		if a != b {
			return fmt.Errorf("%w: words %d and %d", ErrFuseParity, p[0], p[1])
		}
	}
	if _, err := f.Root(); err != nil && !errors.Is(err, ErrNotBurned) {
		return err
	}
	return nil
}

func (f *Fuses) either(a, b int) (uint32, error) {
	x, err := f.bank.Read(a)
	if err != nil {
		return 0, err
	}
	y, err := f.bank.Read(b)
	return x | y, err
}

func (f *Fuses) twice(word int, mask uint32) error {
	if err := f.blow(word, mask); err != nil {
		return err
	}
	return f.blow(word+1, mask)
}

// blow blows only what is not blown yet, so that repeating an operation costs the part nothing.
func (f *Fuses) blow(word int, mask uint32) error {
	have, err := f.bank.Read(word)
	if err != nil {
		return err
	}
	if have&mask == mask {
		return nil
	}
	return f.bank.Blow(word, mask)
}

func (f *Fuses) fixed(first int) (d [32]byte, err error) {
	blown := false
	var broken error
	for i := range digestWords {
		v, err := f.bank.Read(first + i)
		if err != nil {
			return [32]byte{}, err
		}
		c, err := f.bank.Read(first + digestWords + i)
		if err != nil {
			return [32]byte{}, err
		}
		blown = blown || v|c != 0
		if v != ^c {
			broken = fmt.Errorf("%w: word %d", ErrFuseParity, first+i)
		}
		binary.BigEndian.PutUint32(d[4*i:], v)
	}
	switch {
	case !blown:
		return [32]byte{}, ErrNotBurned
	case broken != nil:
		return [32]byte{}, broken
	}
	return d, nil
}

func (f *Fuses) burnFixed(first int, d [32]byte) error {
	for i := range digestWords {
		v := binary.BigEndian.Uint32(d[4*i:])
		for word, want := range map[int]uint32{first + i: v, first + digestWords + i: ^v} {
			have, err := f.bank.Read(word)
			if err != nil {
				return err
			}
			if have&^want != 0 {
				return fmt.Errorf("%w: word %d", ErrBurned, word)
			}
		}
	}
	for i := range digestWords {
		v := binary.BigEndian.Uint32(d[4*i:])
		if err := f.blow(first+i, v); err != nil {
			return err
		}
		if err := f.blow(first+digestWords+i, ^v); err != nil {
			return err
		}
	}
	return nil
}

// Bank is the array beneath.
func (f *Fuses) Bank() FuseBank { return f.bank }
