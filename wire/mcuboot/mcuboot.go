// Package mcuboot reads and writes images as MCUboot starts them: the format of imgtool 2.5.0, little-endian.
//
// Stage 3, field. A component of a release may be such an image, for a microcontroller that has MCUboot of its own: it is written and signed where the key is,
// and the release names the bytes that came of it. The signature is over what is in the image before it is encrypted, so that its content key can be wrapped
// for one device after another without signing again, and no fleet has to share a key.
//
//	image      = header ‖ pad up to header_size ‖ body ‖ [protected] ‖ unprotected
//	header     = u32 0x96f3b83d ‖ u32 load ‖ u16 header_size ‖ u16 protected_size ‖ u32 body_size ‖ u32 flags ‖ version ‖ u32 0
//	version    = u8 major ‖ u8 minor ‖ u16 revision ‖ u32 build
//	protected  = u16 0x6908 ‖ u16 size with this header ‖ TLV…
//	unprotected= u16 0x6907 ‖ u16 size with this header ‖ TLV…
//	TLV        = u16 type ‖ u16 length ‖ bytes
//
// What it guarantees: what it decodes it encodes to the same bytes, nothing is left over, and Verify believes a signature only by the key that it is given. No key
// is in it. What is signed by RSA, P-384, or over the whole image (SIG_PURE) is read and not verified: those are refused by name.
package mcuboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxImage bounds an image, bytes: no microcontroller that MCUboot starts has more flash than that.
const MaxImage = 32 << 20

const (
	magic            = 0x96f3b83d
	magicProtected   = 0x6908
	magicUnprotected = 0x6907

	fixedHeader = 32
	areaHeader  = 4
	cipherBlock = 16
)

// Flags of the header.
const (
	FlagAES128  = 0x04
	FlagAES256  = 0x08
	FlagRAMLoad = 0x20

	encrypted = FlagAES128 | FlagAES256
)

// Types of TLVs.
const (
	TypeKeyHash    = 0x01
	TypePublicKey  = 0x02
	TypeSHA256     = 0x10
	TypeECDSA      = 0x22
	TypeEd25519    = 0x24
	TypePure       = 0x25
	TypeEncP256    = 0x32
	TypeEncX25519  = 0x33
	TypeDependency = 0x40
	TypeCounter    = 0x50
)

// Version is an image's: what MCUboot compares.
type Version struct {
	Major, Minor uint8
	Revision     uint16
	Build        uint32
}

// ParseVersion reads 1.2.3 or 1.2.3+4.
func ParseVersion(s string) (Version, error) {
	bad := fmt.Errorf("version %q: want MAJOR.MINOR.REVISION or MAJOR.MINOR.REVISION+BUILD in numbers, of at most 255.255.65535+4294967295", s)
	front, build, hasBuild := strings.Cut(s, "+")
	parts := strings.Split(front, ".")
	if len(parts) != 3 {
		return Version{}, bad
	}
	if hasBuild {
		parts = append(parts, build)
	} else {
		parts = append(parts, "0")
	}
	var n [4]uint64
	for i, bits := range []int{8, 8, 16, 32} {
		var err error
		if n[i], err = strconv.ParseUint(parts[i], 10, bits); err != nil {
			return Version{}, bad
		}
	}
	return Version{uint8(n[0]), uint8(n[1]), uint16(n[2]), uint32(n[3])}, nil
}

func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Revision)
	if v.Build != 0 {
		s += fmt.Sprintf("+%d", v.Build)
	}
	return s
}

func (v Version) append(b []byte) []byte {
	b = append(b, v.Major, v.Minor)
	b = binary.LittleEndian.AppendUint16(b, v.Revision)
	return binary.LittleEndian.AppendUint32(b, v.Build)
}

func readVersion(b []byte) Version {
	return Version{b[0], b[1], binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
}

// TLV is one record behind the image.
type TLV struct {
	Type  uint16
	Value []byte
}

// Dependency is the least version that another image of the device has to have.
type Dependency struct {
	Image   uint8 // its number in MCUboot's configuration
	Version Version
}

// Image is one image, with its body in memory.
type Image struct {
	Load        uint32 // where it is copied to with FlagRAMLoad
	Flags       uint32
	Version     Version
	Pad         []byte // between the header and the body
	Body        []byte // sealed, when Sealed
	Protected   []TLV  // the signature covers them
	Unprotected []TLV

	Sealed bool // Body is encrypted, as the flags say that it is to be
}

// Options are what an image is made with.
type Options struct {
	Version      Version
	Counter      uint32 // security counter, apart from the version
	HeaderSize   uint16 // 0: 32; what the linker of the firmware left for it
	Load         uint32 // 0: it is executed where it lies
	Dependencies []Dependency
	KeyBits      int // 128 or 256: it will be encrypted; 0: it will not
}

// New makes an image that is not signed yet.
func New(o Options, body []byte) (Image, error) {
	m := Image{Load: o.Load, Version: o.Version, Body: body}
	if o.Load != 0 {
		m.Flags |= FlagRAMLoad
	}
	switch o.KeyBits {
	case 0:
	case 128:
		m.Flags |= FlagAES128
	case 256:
		m.Flags |= FlagAES256
	default:
		return Image{}, fmt.Errorf("a content key of %d bits: want 128 or 256", o.KeyBits)
	}
	if o.HeaderSize == 0 {
		o.HeaderSize = fixedHeader
	}
	if o.HeaderSize < fixedHeader {
		return Image{}, fmt.Errorf("a header of %d bytes: it takes %d", o.HeaderSize, fixedHeader)
	}
	if over := (int(o.HeaderSize) + len(body)) % cipherBlock; o.KeyBits != 0 && over != 0 {
		m.Body = slices.Concat(body, make([]byte, cipherBlock-over)) // as imgtool does: the boot manager decrypts whole blocks
	}
	m.Pad = bytes.Repeat([]byte{0xff}, int(o.HeaderSize)-fixedHeader) // what erased flash reads as
	m.Protected = []TLV{{TypeCounter, binary.LittleEndian.AppendUint32(nil, o.Counter)}}
	for _, d := range o.Dependencies {
		m.Protected = append(m.Protected, TLV{TypeDependency, d.Version.append([]byte{d.Image, 0, 0, 0})})
	}
	_, err := m.Encode()
	return m, err
}

// Counter is the image's security counter; false: it has none.
func (m Image) Counter() (uint32, bool) {
	v, ok := find(m.Protected, TypeCounter)
	if !ok || len(v) != 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(v), true
}

// Dependencies are the images that this one needs beside it.
func (m Image) Dependencies() []Dependency {
	var out []Dependency
	for _, t := range m.Protected {
		if t.Type == TypeDependency && len(t.Value) == 12 {
			out = append(out, Dependency{t.Value[0], readVersion(t.Value[4:])})
		}
	}
	return out
}

// HeaderSize is how many bytes lie before the body.
func (m Image) HeaderSize() int { return fixedHeader + len(m.Pad) }

// find is the value of the first record of a type.
func find(list []TLV, typ uint16) ([]byte, bool) {
	i := slices.IndexFunc(list, func(t TLV) bool { return t.Type == typ })
	if i < 0 {
		return nil, false
	}
	return list[i].Value, true
}

func areaSize(list []TLV) int {
	n := areaHeader
	for _, t := range list {
		n += 4 + len(t.Value)
	}
	return n
}

func appendArea(b []byte, magic uint16, list []TLV) []byte {
	b = binary.LittleEndian.AppendUint16(b, magic)
	b = binary.LittleEndian.AppendUint16(b, uint16(areaSize(list)))
	for _, t := range list {
		b = binary.LittleEndian.AppendUint16(b, t.Type)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(t.Value)))
		b = append(b, t.Value...)
	}
	return b
}

// signed is what the hash is over: header, body and protected records.
func (m Image) signed() ([]byte, error) {
	protected := 0
	if len(m.Protected) > 0 {
		protected = areaSize(m.Protected)
	}
	switch size := m.HeaderSize() + len(m.Body) + protected + areaSize(m.Unprotected); {
	case len(m.Body) == 0:
		return nil, errors.New("mcuboot: an image without a body")
	case size > MaxImage:
		return nil, fmt.Errorf("mcuboot: an image of %d bytes, at most %d", size, MaxImage)
	case m.HeaderSize() > 0xffff || protected > 0xffff || areaSize(m.Unprotected) > 0xffff:
		return nil, errors.New("mcuboot: header or records of more than 65535 bytes")
	case m.Flags&encrypted == encrypted:
		return nil, errors.New("mcuboot: encrypted by two ciphers")
	}
	b := make([]byte, 0, m.HeaderSize()+len(m.Body)+protected)
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = binary.LittleEndian.AppendUint32(b, m.Load)
	b = binary.LittleEndian.AppendUint16(b, uint16(m.HeaderSize()))
	b = binary.LittleEndian.AppendUint16(b, uint16(protected))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Body)))
	b = binary.LittleEndian.AppendUint32(b, m.Flags)
	b = m.Version.append(b)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = append(append(b, m.Pad...), m.Body...)
	if protected > 0 {
		b = appendArea(b, magicProtected, m.Protected)
	}
	return b, nil
}

// Encode writes the image.
func (m Image) Encode() ([]byte, error) {
	b, err := m.signed()
	if err != nil {
		return nil, err
	}
	return appendArea(b, magicUnprotected, m.Unprotected), nil
}

// Decode reads an image. It says nothing about its hash or signature: those are Check's and Verify's. An image that was padded to its slot is refused: what is behind
// the records is no part of it, and belongs to the boot manager.
func Decode(data []byte) (Image, error) {
	if len(data) > MaxImage {
		return Image{}, fmt.Errorf("mcuboot: %d bytes, at most %d", len(data), MaxImage)
	}
	if len(data) < fixedHeader || binary.LittleEndian.Uint32(data) != magic {
		return Image{}, errors.New("mcuboot: this is no image of MCUboot's")
	}
	le := binary.LittleEndian
	header, protected, size := int(le.Uint16(data[8:])), int(le.Uint16(data[10:])), uint64(le.Uint32(data[12:]))
	m := Image{Load: le.Uint32(data[4:]), Flags: le.Uint32(data[16:]), Version: readVersion(data[20:])}
	if le.Uint32(data[28:]) != 0 {
		return Image{}, errors.New("mcuboot: the header does not end in zeros")
	}
	if header < fixedHeader || uint64(header)+size+uint64(protected) > uint64(len(data)) {
		return Image{}, errors.New("mcuboot: sizes in the header that the image has not")
	}
	m.Sealed = m.Flags&encrypted != 0
	m.Pad = bytes.Clone(data[fixedHeader:header])
	m.Body = bytes.Clone(data[header : header+int(size)])
	rest := data[header+int(size):]
	var err error
	if protected > 0 {
		if m.Protected, err = decodeArea(rest[:protected], magicProtected); err != nil {
			return Image{}, err
		}
		rest = rest[protected:]
	}
	if m.Unprotected, err = decodeArea(rest, magicUnprotected); err != nil {
		return Image{}, err
	}
	if again, err := m.Encode(); err != nil || !bytes.Equal(again, data) {
		return Image{}, errors.Join(errors.New("mcuboot: not the encoding of what it says"), err)
	}
	return m, nil
}

// decodeArea reads records that take all of b.
func decodeArea(b []byte, magic uint16) ([]TLV, error) {
	le := binary.LittleEndian
	if len(b) < areaHeader || le.Uint16(b) != magic {
		return nil, fmt.Errorf("mcuboot: no records of kind %#x where they should be", magic)
	}
	if n := int(le.Uint16(b[2:])); n < len(b) && magic == magicUnprotected {
		return nil, fmt.Errorf("mcuboot: %d bytes behind the image: write it without padding to its slot", len(b)-n)
	} else if n != len(b) {
		return nil, fmt.Errorf("mcuboot: records of %d bytes, and the area has %d", n, len(b))
	}
	var out []TLV
	for b = b[areaHeader:]; len(b) > 0; {
		if len(b) < 4 || len(b)-4 < int(le.Uint16(b[2:])) {
			return nil, errors.New("mcuboot: a record that is cut short")
		}
		n := int(le.Uint16(b[2:]))
		out = append(out, TLV{le.Uint16(b), bytes.Clone(b[4 : 4+n])})
		b = b[4+n:]
	}
	return out, nil
}
