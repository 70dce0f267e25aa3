package boot

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Names of the power-on self tests. A board's Fault hook spoils their input.
const (
	TestSHA256 = "sha256"
	TestECDSA  = "ecdsa-p256"
	TestAES    = "aes-256-gcm"
	TestRandom = "random"
	TestMemory = "memory"
	TestFuses  = "fuses"
	TestFlash  = "flash"
	TestCount  = "counters"
	TestKeys   = "keys"
)

// test is one self test; fault asks it to spoil its input.
type test struct {
	name string
	run  func(fault bool) error
}

// selfTest runs every test, whatever the others found; the results are in the report, and so in the evidence.
func (m *Manager) selfTest(tests []test) error {
	for _, t := range tests {
		err := t.run(m.board.Fault != nil && m.board.Fault(t.name))
		if hard(err) {
			return err
		}
		r := wire.TestResult{Name: t.name, Passed: err == nil}
		if err != nil {
			r.Detail = err.Error()
		}
		m.rep.POST = append(m.rep.POST, r)
	}
	return nil
}

var errAnswer = errors.New("not the known answer")

// spoil changes one bit of a test's input when a fault is asked for.
func spoil(b []byte, fault bool) []byte {
	if fault {
		b[0] ^= 1
	}
	return b
}

// knownSHA256 is the one-block example of FIPS 180-4.
func knownSHA256(fault bool) error {
	got := sha256.Sum256(spoil([]byte("abc"), fault))
	if hex.EncodeToString(got[:]) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		return errAnswer
	}
	return nil
}

// knownECDSA is the P-256, SHA-256 example of RFC 6979 §A.2.5, message "sample".
func knownECDSA(fault bool) error {
	num := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 16); return n }
	point, err := hex.DecodeString("04" + "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6" +
		"7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299")
	if err != nil {
		return err
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(spoil([]byte("sample"), fault))
	if !ecdsa.Verify(pub, sum[:], num("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"),
		num("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8")) {
		return errAnswer
	}
	return nil
}

// knownAES is test case 16 of the GCM specification (McGrew, Viega), AES-256 with additional data.
func knownAES(fault bool) error {
	un := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	block, err := aes.NewCipher(un("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"))
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	sealed := spoil(un("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"+
		"c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"), fault)
	if _, err := gcm.Open(nil, un("cafebabefacedbaddecaf888"), sealed, un("feedfacedeadbeeffeedfacedeadbeefabaddad2")); err != nil {
		return errAnswer
	}
	return nil
}

// randomHealth is the repetition count and adaptive proportion test of SP 800-90B §4.4, at 4 bits of entropy a byte.
func (m *Manager) randomHealth(fault bool) error {
	buf := make([]byte, 1024)
	if _, err := io.ReadFull(m.board.Random, buf); err != nil {
		return err
	}
	if fault {
		copy(buf, bytes.Repeat([]byte{7}, 64))
	}
	const repeats, proportion, window = 6, 103, 512
	run := 1
	for i := 1; i < len(buf); i++ {
		if buf[i] != buf[i-1] {
			run = 0
		}
		if run++; run >= repeats {
			return fmt.Errorf("the same byte %d times in a row", run)
		}
	}
	for w := 0; w+window <= len(buf); w += window {
		if n := bytes.Count(buf[w:w+window], buf[w:w+1]); n >= proportion {
			return fmt.Errorf("one byte %d times in %d", n, window)
		}
	}
	return nil
}

// march writes and reads both values of every bit, upwards and downwards (March C−, a byte at a time).
func (m *Manager) march(fault bool) error {
	mem := m.board.Memory
	for _, pass := range []struct {
		up              bool
		expect, replace byte
		first           bool
	}{{up: true, replace: 0x00, first: true}, {true, 0x00, 0xff, false}, {true, 0xff, 0x00, false}, {false, 0x00, 0xff, false}, {false, 0xff, 0x00, false}} {
		for k := range mem.Size() {
			i := k
			if !pass.up {
				i = mem.Size() - 1 - k
			}
			if fault && i == mem.Size()/2 && !pass.first {
				mem.Store(i, pass.expect^0x10)
			}
			if !pass.first && mem.Load(i) != pass.expect {
				return fmt.Errorf("byte %d reads %#02x, want %#02x", i, mem.Load(i), pass.expect)
			}
			mem.Store(i, pass.replace)
		}
	}
	return nil
}

func (m *Manager) fuseParity(fault bool) error {
	if fault {
		return hw.ErrFuseParity
	}
	return m.board.Fuses.Check()
}

// flashCheck reads what the start depends on; cells carry a digest each.
func (m *Manager) flashCheck(fault bool) error {
	if fault {
		return errors.New("a sector reads differently twice")
	}
	if _, err := m.flash.loadControl(); err != nil {
		return err
	}
	_, err := m.flash.LoadIdentity()
	return err
}

// counters are plausible when none is behind what the others tell.
func (m *Manager) counters(fault bool) error {
	n, err := m.board.Boots.Value()
	if err != nil {
		return err
	}
	if fault || n != m.rep.BootCount {
		return fmt.Errorf("boot counter reads %d after it was set to %d", n, m.rep.BootCount)
	}
	return nil
}

// signs has the key store test itself, where it can, and sign with the key that signs evidence; and its key from the factory has to be that
// of the identity in flash: another board's flash is another device's. A board that has no such key yet, or has lost it, passes: what it
// does then needs none.
func (m *Manager) signs(fault bool) error {
	if t, ok := m.board.Keys.(hw.SelfTester); ok {
		if err := t.SelfTest(); err != nil {
			return err
		}
	}
	if err := m.ownFlash(); err != nil {
		return err
	}
	for _, name := range hw.Names(hw.KeyAttest) {
		key, err := m.board.Keys.Signer(name)
		if errors.Is(err, hw.ErrNoKey) {
			continue
		}
		if err != nil {
			return err
		}
		said, err := wire.Sign1(wire.TypeSelfTest, m.rep.Seed[:], key)
		if err != nil {
			return err
		}
		if fault {
			said[len(said)-1] ^= 1
		}
		if _, err := wire.Verify1(wire.TypeSelfTest, said, key.Public()); err != nil {
			return fmt.Errorf("what key %s signs does not verify: %w", name, err)
		}
	}
	return nil
}

// ownFlash holds the identity in flash to the key that the board was given in the factory, or by a voucher.
func (m *Manager) ownFlash() error {
	key, err := m.board.Keys.Signer(hw.KeyIDevID)
	if errors.Is(err, hw.ErrNoKey) {
		return nil
	}
	if err != nil {
		return err
	}
	spki, err := wire.SPKIOf(key.Public())
	if err == nil && !m.rep.Identity.certifies(spki) {
		err = fmt.Errorf("this flash is that of device %s, whose key from the factory this board does not have", m.rep.Identity.Device)
	}
	return err
}
