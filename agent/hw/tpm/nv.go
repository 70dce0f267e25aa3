package tpm

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// The NV indices of a device's fuses and counters, in the owner's range. Fuses take two words an index; a counter takes its index and one for each
// time that it was set rather than raised.
const (
	firstFuse    tpm2.TPMHandle = 0x01814D00
	bootsCounter tpm2.TPMHandle = 0x01814D20
	trustCounter tpm2.TPMHandle = 0x01814D30

	paramsCounter tpm2.TPMHandle = 0x01814D40

	bitsSize  = 8
	startSize = 16
	maxStarts = 8  // times that a counter can be set
	maxSteps  = 16 // what is further away than this is set, not counted
)

// Whose word deletes a part's indices: nobody's, or the owner's. The evidence carries it.
const (
	PartsFixed = "tpm"       // defined by the platform, to be deleted under a policy that nothing satisfies
	PartsOwner = "tpm-owner" // who has the password of the owner's hierarchy deletes them; what they held reads as blank
)

// Parts are fuses and counters in the NV memory of a TPM.
type Parts struct{ keys *Keys }

// Parts gives the TPM's NV memory as fuses and counters, over the same line as the keys.
func (k *Keys) Parts() *Parts { return &Parts{k} }

// Fuses gives the bank. LockFixed holds until the TPM is reset, whatever happens to this process.
func (p *Parts) Fuses() hw.FuseBank { return &bank{p.keys} }

// Boots gives the counter of starts.
func (p *Parts) Boots() hw.Counter { return &counter{keys: p.keys, index: bootsCounter} }

// Trust gives the counter of the trust bundle.
func (p *Parts) Trust() hw.Counter { return &counter{keys: p.keys, index: trustCounter} }

// Params gives the counter of the parameters.
func (p *Parts) Params() hw.Counter { return &counter{keys: p.keys, index: paramsCounter} }

// area is one index of the parts.
type area struct {
	index tpm2.TPMHandle
	kind  tpm2.TPMNT
	size  uint16
	attrs tpm2.TPMANV
}

// fuseAttributes are those of the index that has a word: what is secret is closed for reading until a reset, what is fixed for writing.
func fuseAttributes(word int) tpm2.TPMANV {
	return tpm2.TPMANV{ReadSTClear: word >= hw.FirstSecret, WriteSTClear: hw.Fixed(word)}
}

// areas are all of them.
func areas() (out []area) {
	for word := 0; word < hw.FuseWords; word += 2 {
		out = append(out, area{firstFuse + tpm2.TPMHandle(word/2), tpm2.TPMNTBits, bitsSize, fuseAttributes(word)})
	}
	for c, starts := range map[tpm2.TPMHandle]int{bootsCounter: 1, trustCounter: maxStarts, paramsCounter: 1} {
		out = append(out, area{c, tpm2.TPMNTCounter, bitsSize, tpm2.TPMANV{}})
		for i := range starts {
			out = append(out, area{c + 1 + tpm2.TPMHandle(i), tpm2.TPMNTOrdinary, startSize, tpm2.TPMANV{WriteDefine: true}})
		}
	}
	return out
}

// Define makes room for all of them, in the factory, where the platform's hierarchy may be open that no start in the field finds open. What is there stays.
func (p *Parts) Define() error {
	p.keys.mu.Lock()
	defer p.keys.mu.Unlock()
	for _, a := range areas() {
		if err := p.keys.define(a.index, a.kind, a.size, a.attrs); err != nil {
			return err
		}
	}
	return nil
}

// Origin says what guards the parts: PartsFixed or PartsOwner. What is not there yet would be the owner's.
func (p *Parts) Origin() (string, error) {
	p.keys.mu.Lock()
	defer p.keys.mu.Unlock()
	for _, a := range areas() {
		found, err := p.keys.nvPublic(a.index)
		if err != nil && !errors.Is(err, errNoIndex) {
			return "", err
		}
		if err != nil || !found.PolicyDelete || !found.PlatformCreate {
			return PartsOwner, nil
		}
	}
	return PartsFixed, nil
}

var errNoIndex = errors.New("no such NV index")

// nvPublic gives an index's attributes; errNoIndex.
func (k *Keys) nvPublic(index tpm2.TPMHandle) (tpm2.TPMANV, error) {
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(k.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return tpm2.TPMANV{}, errNoIndex
	}
	if err != nil {
		return tpm2.TPMANV{}, fmt.Errorf("TPM: NV index %#x: %w", index, err)
	}
	pub, err := r.NVPublic.Contents()
	if err != nil {
		return tpm2.TPMANV{}, fmt.Errorf("TPM: NV index %#x: %w", index, err)
	}
	return pub.Attributes, nil
}

// nobody is a policy that no session arrives at: it is the digest of a text, and not of a policy.
var nobody = sha256.Sum256([]byte("hallmark: what was burned stays"))

// define makes an index, if it is not there: by the platform, which Linux has the word of only where the firmware did not keep it, so that it cannot be
// deleted; or else by the owner.
func (k *Keys) define(index tpm2.TPMHandle, kind tpm2.TPMNT, size uint16, a tpm2.TPMANV) error {
	found, err := k.nvPublic(index)
	if err == nil {
		if found.NT != kind || !found.AuthWrite || found.ReadSTClear != a.ReadSTClear || found.WriteDefine != a.WriteDefine {
			return fmt.Errorf("TPM: NV index %#x belongs to something else", index)
		}
		return nil
	}
	if !errors.Is(err, errNoIndex) {
		return err
	}
	a.NT, a.AuthRead, a.AuthWrite, a.NoDA = kind, true, true, true
	for _, by := range []tpm2.TPMHandle{tpm2.TPMRHPlatform, tpm2.TPMRHOwner} {
		a.PlatformCreate, a.PolicyDelete = by == tpm2.TPMRHPlatform, by == tpm2.TPMRHPlatform
		public := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: a, DataSize: size}
		if a.PolicyDelete {
			public.AuthPolicy = tpm2.TPM2BDigest{Buffer: nobody[:]}
		}
		_, err = tpm2.NVDefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: by, Auth: tpm2.PasswordAuth(nil)}, PublicInfo: tpm2.New2B(public),
		}.Execute(k.tpm)
		if err == nil {
			return nil
		}
	}
	if errors.Is(err, tpm2.TPMRCNVSpace) {
		return fmt.Errorf("TPM: its NV memory is full: index %#x: %w", index, err)
	}
	return fmt.Errorf("TPM: define NV index %#x: %w", index, err)
}

// The commands on an index, which the library has no words for, or wants names for that change with what is written (TPM 2.0 part 3, §31).
const (
	nvIncrement = 0x00000134
	nvSetBits   = 0x00000135
	nvWrite     = 0x00000137
	nvWriteLock = 0x00000138
	nvRead      = 0x0000014E
	nvReadLock  = 0x0000014F
)

// nv sends one of them, with the index's own empty password: tag with sessions, size, code, the handle that authorises and the index, then one password
// session (TPM_RS_PW, no nonce, no attributes, no password), then the parameters. It gives the answer's parameters.
func (k *Keys) nv(code uint32, index tpm2.TPMHandle, params []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint16(nil, 0x8002)
	b = binary.BigEndian.AppendUint32(b, uint32(10+8+4+9+len(params)))
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, uint32(index))
	b = binary.BigEndian.AppendUint32(b, uint32(index))
	b = binary.BigEndian.AppendUint32(b, 9)
	b = binary.BigEndian.AppendUint32(b, 0x40000009)
	b = append(append(b, 0, 0, 0, 0, 0), params...)
	said, err := k.tpm.Send(b)
	if err != nil {
		return nil, fmt.Errorf("TPM: NV index %#x: %w", index, err)
	}
	if len(said) < 10 {
		return nil, fmt.Errorf("TPM: NV index %#x: an answer of %d bytes", index, len(said))
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(said[6:])); rc != tpm2.TPMRCSuccess {
		return nil, fmt.Errorf("TPM: NV index %#x: %w", index, rc)
	}
	if len(said) < 14 || uint64(binary.BigEndian.Uint32(said[10:])) > uint64(len(said)-14) {
		return nil, fmt.Errorf("TPM: NV index %#x: an answer of %d bytes", index, len(said))
	}
	return said[14:][:binary.BigEndian.Uint32(said[10:])], nil
}

// read gives size bytes of an index; nil when it is not there, or nothing was written to it.
func (k *Keys) read(index tpm2.TPMHandle, size uint16) ([]byte, error) {
	a, err := k.nvPublic(index)
	if errors.Is(err, errNoIndex) || err == nil && !a.Written && !a.ReadLocked {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := k.nv(nvRead, index, binary.BigEndian.AppendUint32(nil, uint32(size)<<16))
	if errors.Is(err, tpm2.TPMRCNVLocked) {
		return nil, fmt.Errorf("NV index %#x: %w", index, hw.ErrLocked)
	}
	if err != nil {
		return nil, err
	}
	if len(p) != int(size)+2 || binary.BigEndian.Uint16(p) != size {
		return nil, fmt.Errorf("TPM: NV index %#x gives %d bytes, want %d", index, len(p), size)
	}
	return p[2:], nil
}

// bank keeps fuses as indices of the type bits, which TPM2_NV_SetBits only ever adds to: two words each.
type bank struct{ keys *Keys }

func place(word int) (tpm2.TPMHandle, error) {
	if word < 0 || word >= hw.FuseWords {
		return 0, fmt.Errorf("fuse word %d: %w", word, hw.ErrRange)
	}
	return firstFuse + tpm2.TPMHandle(word/2), nil
}

// Read implements hw.FuseBank.
func (b *bank) Read(word int) (uint32, error) {
	index, err := place(word)
	if err != nil {
		return 0, err
	}
	b.keys.mu.Lock()
	defer b.keys.mu.Unlock()
	v, err := b.keys.read(index, bitsSize)
	if err != nil || v == nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(v[word%2*4:]), nil
}

// Blow implements hw.FuseBank. It is whole, or not done.
func (b *bank) Blow(word int, mask uint32) error {
	index, err := place(word)
	if err != nil {
		return err
	}
	b.keys.mu.Lock()
	defer b.keys.mu.Unlock()
	if err := b.keys.define(index, tpm2.TPMNTBits, bitsSize, fuseAttributes(word)); err != nil {
		return err
	}
	bits := make([]byte, bitsSize)
	binary.BigEndian.PutUint32(bits[word%2*4:], mask)
	_, err = b.keys.nv(nvSetBits, index, bits)
	if errors.Is(err, tpm2.TPMRCNVLocked) {
		return fmt.Errorf("NV index %#x: %w", index, hw.ErrLocked)
	}
	return err
}

// LockFixed implements hw.FuseBank. A TPM that does not lock leaves the secret readable for this start, as a board without the lock does.
func (b *bank) LockFixed() {
	b.keys.mu.Lock()
	defer b.keys.mu.Unlock()
	for word := 0; word < hw.FuseWords; word += 2 {
		index, err := place(word)
		if err != nil || !hw.Fixed(word) {
			continue
		}
		_, _ = b.keys.nv(nvWriteLock, index, nil) // one that was made before there was this lock has not got it
		if word >= hw.FirstSecret {
			_, _ = b.keys.nv(nvReadLock, index, nil) // an index that is not there has nothing to hide
		}
	}
}

// counter is a number that only rises. The TPM counts by one, from a number of its own choosing (one that no deleted counter ever had); so where the
// number was set, an index that is written once and then locked for good says what it was, and where the TPM's count stood.
type counter struct {
	keys  *Keys
	index tpm2.TPMHandle
}

// start is such an index: the number, and the TPM's count.
type start struct{ value, at uint64 }

// starts gives those that are locked, in order: one that a cut left open counts for nothing yet.
func (c *counter) starts() (out []start, err error) {
	for i := range tpm2.TPMHandle(maxStarts) {
		a, err := c.keys.nvPublic(c.index + 1 + i)
		if errors.Is(err, errNoIndex) || err == nil && (!a.Written || !a.WriteLocked) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := c.keys.read(c.index+1+i, startSize)
		if err != nil {
			return nil, err
		}
		next := start{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		if n := len(out); n > 0 && (next.at < out[n-1].at || next.value < out[n-1].value+next.at-out[n-1].at) {
			return nil, fmt.Errorf("TPM: counter %#x was set back to %d: somebody else wrote it", c.index, next.value)
		}
		out = append(out, next)
	}
	return out, nil
}

func (c *counter) value() (v uint64, starts []start, err error) {
	if starts, err = c.starts(); err != nil || len(starts) == 0 {
		return 0, nil, err
	}
	last := starts[len(starts)-1]
	count, err := c.count()
	if err != nil {
		return 0, nil, err
	}
	if count < last.at {
		return 0, nil, fmt.Errorf("TPM: counter %#x stands at %d, below %d where it was set: it was made anew", c.index, count, last.at)
	}
	return last.value + count - last.at, starts, nil
}

// count is the TPM's own.
func (c *counter) count() (uint64, error) {
	b, err := c.keys.read(c.index, bitsSize)
	if err != nil {
		return 0, err
	}
	if b == nil {
		return 0, fmt.Errorf("TPM: counter %#x is gone", c.index)
	}
	return binary.BigEndian.Uint64(b), nil
}

// Value implements hw.Counter.
func (c *counter) Value() (uint64, error) {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	v, _, err := c.value()
	return v, err
}

// Raise implements hw.Counter.
func (c *counter) Raise(n uint64) error {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	have, starts, err := c.value()
	if err != nil || n == have {
		return err
	}
	if n < have {
		return fmt.Errorf("counter is at %d and cannot go back to %d", have, n)
	}
	if len(starts) > 0 && n-have <= maxSteps {
		for ; have < n; have++ {
			if _, err := c.keys.nv(nvIncrement, c.index, nil); err != nil {
				return err
			}
		}
		return nil
	}
	if len(starts) == maxStarts {
		return fmt.Errorf("TPM: counter %#x was set %d times and cannot be again: %d is too far from %d", c.index, maxStarts, n, have)
	}
	return c.set(len(starts), n)
}

// set begins to count from n: it is in force when the index that says so is locked.
func (c *counter) set(nth int, n uint64) error {
	if err := c.keys.define(c.index, tpm2.TPMNTCounter, bitsSize, tpm2.TPMANV{}); err != nil {
		return err
	}
	if nth == 0 { // a counter that was never counted has no number
		if _, err := c.keys.nv(nvIncrement, c.index, nil); err != nil {
			return err
		}
	}
	at, err := c.count()
	if err != nil {
		return err
	}
	index := c.index + 1 + tpm2.TPMHandle(nth)
	if err := c.keys.define(index, tpm2.TPMNTOrdinary, startSize, tpm2.TPMANV{WriteDefine: true}); err != nil {
		return err
	}
	data := binary.BigEndian.AppendUint16(nil, startSize)
	data = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(data, n), at)
	if _, err := c.keys.nv(nvWrite, index, append(data, 0, 0)); err != nil {
		return err
	}
	_, err = c.keys.nv(nvWriteLock, index, nil)
	return err
}
