package owner

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/fault"
)

// A claim code is 100 random bits as 20 digits of Crockford's base 32, in five groups of four, each with a fifth digit that checks it, so
// that a typing error is found, and where it is, before anybody is asked:
//
//	code  = group "-" group "-" group "-" group "-" group
//	group = 4 digits, check
//
// The check digit is a sum over the field of 32 elements that finds every wrong digit, two that changed places, and a group in the place
// of another. Small letters, and O for 0, I and L for 1, are read as what they look like; spaces and dashes do not count.
const (
	digits     = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	groups     = 5
	perGroup   = 4
	maxWritten = 64 // bytes of a code as somebody writes it
)

// NewCode makes a code.
func NewCode() string {
	var raw [groups * perGroup]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the process instead
	for i := range raw {
		raw[i] &= 31
	}
	return write(raw)
}

func write(raw [groups * perGroup]byte) string {
	var b strings.Builder
	for g := range groups {
		if g > 0 {
			b.WriteByte('-')
		}
		part := raw[g*perGroup : (g+1)*perGroup]
		for _, d := range part {
			b.WriteByte(digits[d])
		}
		b.WriteByte(digits[check(g, part)])
	}
	return b.String()
}

// check is Σ αⁱ·dᵢ over GF(32), with the group's number as one more digit.
func check(group int, part []byte) byte {
	sum := byte(group + 1)
	for _, d := range part {
		sum = double(sum) ^ d
	}
	return double(sum)
}

// double multiplies by α in GF(32) = GF(2)[x]/(x⁵+x²+1).
func double(a byte) byte {
	a <<= 1
	if a&32 != 0 {
		a ^= 0b100101
	}
	return a
}

// ParseCode reads a code as somebody wrote it, and gives it as NewCode writes it. What is wrong with it says where.
func ParseCode(written string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fault.New(fault.Invalid, "claim.code", fmt.Sprintf(format, args...), "it is five groups of five, as on the device's label: 7ZK3Q-…")
	}
	if len(written) > maxWritten {
		return bad("a claim code of %d characters", len(written))
	}
	var all []byte
	for _, r := range strings.ToUpper(written) {
		switch r {
		case '-', ' ':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		d := strings.IndexRune(digits, r)
		if d < 0 {
			return bad("%q is in no claim code", r)
		}
		all = append(all, byte(d))
	}
	if len(all) != groups*(perGroup+1) {
		return bad("a claim code of %d characters", len(all))
	}
	var raw [groups * perGroup]byte
	for g := range groups {
		part := all[g*(perGroup+1) : (g+1)*(perGroup+1)]
		if check(g, part[:perGroup]) != part[perGroup] {
			return bad("group %d of the claim code is mistyped", g+1)
		}
		copy(raw[g*perGroup:], part)
	}
	return write(raw), nil
}

// hashOf is what is kept of a device's code. The code has 100 random bits, so a plain hash is enough.
func hashOf(device, code string) [32]byte {
	return sha256.Sum256([]byte("hallmark claim 1\n" + device + "\n" + code))
}
