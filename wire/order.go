package wire

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/suite"
)

// TypeStation is the `typ` of a station's descriptor.
const TypeStation Type = "application/hallmark-station+cose"

// WrapAlg is how a key is wrapped to a station, always in one hop: a second hop through an AES key that the host may unwrap
// again, without the template, gives the key away to whoever holds the PIN.
type WrapAlg string

// The algorithms, by what the module can do. OAEP with SHA-1 is what SoftHSM has; its collision weakness does not touch OAEP.
const (
	WrapOAEPSHA1   WrapAlg = "rsa-oaep-sha1"   // COSE -40
	WrapOAEPSHA256 WrapAlg = "rsa-oaep-sha256" // COSE -41

	// WrapRSAAES is CKM_RSA_AES_KEY_WRAP (PKCS#11 v3.0 §2.1.21) with AES-256 and OAEP with SHA-1: an AES key under RSA, and behind it the key under that
	// (RFC 5649), as one blob. It is one hop all the same: the token takes it apart in one call, and the AES key is never an object in it that a host could
	// use again. For signing keys only.
	WrapRSAAES WrapAlg = "rsa-aes-key-wrap"
)

// Hash gives the hash of the OAEP padding.
func (a WrapAlg) Hash() (crypto.Hash, error) {
	switch a {
	case WrapOAEPSHA1, WrapRSAAES:
		return crypto.SHA1, nil
	case WrapOAEPSHA256:
		return crypto.SHA256, nil
	}
	return 0, fmt.Errorf("wrapping algorithm %q", a)
}

// content says whether a content key may be wrapped so: it is opened by decrypting, for which there is OAEP only.
func (a WrapAlg) content() error {
	if a == WrapRSAAES {
		return fmt.Errorf("a content key is not wrapped by %q", a)
	}
	_, err := a.Hash()
	return err
}

// Station is what a programming station can do and the keys it does it with: COSE_Sign1 by its record key. The OEM checks the
// record key's fingerprint by another way before it believes one.
type Station struct {
	Name       string  `cbor:"1,keyasint" json:"name"`
	OEM        string  `cbor:"2,keyasint" json:"oem"`         // the keys below serve this OEM only
	Module     string  `cbor:"3,keyasint" json:"module"`      // "pkcs11:<model>", or "soft": no hardware
	Serial     string  `cbor:"4,keyasint" json:"serial"`      // of the HSM token
	RecordKey  []byte  `cbor:"5,keyasint" json:"record_key"`  // SPKI; signs descriptors and records
	WrapKey    []byte  `cbor:"6,keyasint" json:"wrap_key"`    // SPKI, RSA; unwraps signing keys under its template, nothing else
	ContentKey []byte  `cbor:"7,keyasint" json:"content_key"` // SPKI, RSA; decrypts content keys, nothing else
	WrapAlg    WrapAlg `cbor:"8,keyasint" json:"wrap_alg"`
	ContentAlg WrapAlg `cbor:"9,keyasint" json:"content_alg"`
	Templated  bool    `cbor:"10,keyasint" json:"templated"` // the module itself holds unwrapped keys to a template
	Created    uint64  `cbor:"11,keyasint" json:"created"`
}

// MaxStation bounds a descriptor.
const MaxStation = 8 << 10

// EncodeStation writes s.
func EncodeStation(s Station) ([]byte, error) { return encode(s, MaxStation) }

// DecodeStation reads a descriptor's payload.
func DecodeStation(data []byte) (Station, error) { return decode[Station](data, MaxStation) }

func (s Station) check() error {
	if s.Name == "" || s.OEM == "" || s.Module == "" || len(s.Name)+len(s.OEM)+len(s.Module)+len(s.Serial) > 512 {
		return errors.New("station: no name, OEM or module, or too long")
	}
	if _, err := parseECDSA(s.RecordKey); err != nil {
		return fmt.Errorf("station: record key: %w", err)
	}
	if len(s.WrapKey) == 0 || len(s.ContentKey) == 0 || bytes.Equal(s.WrapKey, s.ContentKey) {
		return errors.New("station: wrapping and content key must be there and differ")
	}
	if _, err := s.WrapAlg.Hash(); err != nil {
		return fmt.Errorf("station: %w", err)
	}
	if err := s.ContentAlg.content(); err != nil {
		return fmt.Errorf("station: %w", err)
	}
	return nil
}

// ID names the station: SHA-256 of its record key.
func (s Station) ID() [32]byte { return sha256.Sum256(s.RecordKey) }

// VerifyStation checks a descriptor's own signature and that its record key is the one pinned (SHA-256 of the SPKI).
func VerifyStation(envelope []byte, pin [32]byte) (Station, error) {
	o, err := Parse1(TypeStation, envelope)
	if err != nil {
		return Station{}, err
	}
	s, err := DecodeStation(o.Payload)
	if err != nil {
		return Station{}, err
	}
	if s.ID() != pin {
		return Station{}, fmt.Errorf("station descriptor is of key %x, expected %x", s.ID(), pin)
	}
	pub, err := parseECDSA(s.RecordKey)
	if err != nil {
		return Station{}, err
	}
	return s, o.Verify(pub)
}

// OrderHeader says what may be made, how many, by whom and until when. Its encoding is the additional data of everything
// encrypted in the order, so that no part serves in another one.
type OrderHeader struct {
	ID           string      `cbor:"1,keyasint" json:"id"`
	OEM          string      `cbor:"2,keyasint" json:"oem"`
	Product      string      `cbor:"3,keyasint" json:"product"`
	Hardware     string      `cbor:"4,keyasint" json:"hardware"` // revision
	Quota        uint32      `cbor:"5,keyasint" json:"quota"`    // devices; also the number of tickets
	NotBefore    uint64      `cbor:"6,keyasint" json:"not_before"`
	NotAfter     uint64      `cbor:"7,keyasint" json:"not_after"`
	Station      []byte      `cbor:"8,keyasint" json:"station"` // SHA-256 of the station's record key
	HSMSerial    string      `cbor:"9,keyasint" json:"hsm_serial"`
	Chain        [][]byte    `cbor:"10,keyasint" json:"chain"` // order CA first, OEM root last (DER)
	Profile      CertProfile `cbor:"11,keyasint" json:"profile"`
	Bundle       []byte      `cbor:"12,keyasint" json:"bundle"`     // SHA-256 of the trust bundle's envelope
	Release      []byte      `cbor:"13,keyasint" json:"release"`    // release digest
	Root         []byte      `cbor:"14,keyasint" json:"root"`       // RootDigest of the bundle, for the fuses
	Counter      uint32      `cbor:"15,keyasint" json:"counter"`    // security counter for the fuses
	ReturnKey    []byte      `cbor:"16,keyasint" json:"return_key"` // HPKE P-256 public key records are sealed to
	MaxOffline   uint32      `cbor:"17,keyasint" json:"max_offline_days"`
	Created      uint64      `cbor:"18,keyasint" json:"created"`
	FirstArticle bool        `cbor:"19,keyasint,omitempty" json:"first_article,omitempty"` // one is made and inspected before the others
	Chips        string      `cbor:"20,keyasint,omitempty" json:"chips,omitempty"`         // only chips of this vendor, which came with their keys
	Keys         string      `cbor:"21,keyasint,omitempty" json:"keys,omitempty"`          // OriginStation: the station may make devices' keys; empty: the device alone
}

// CertProfile names what the station writes into each device's certificate.
type CertProfile string

// ProfileIDevID1 is the profile of package wire/idevid.
const ProfileIDevID1 CertProfile = "idevid-1"

// WrappedKey is a signing key wrapped to the station, with the template the unwrapped key is held to.
type WrappedKey struct {
	Role     string   `cbor:"1,keyasint" json:"role"` // RoleOrderCA
	SPKI     []byte   `cbor:"2,keyasint" json:"spki"` // its public half
	Alg      WrapAlg  `cbor:"3,keyasint" json:"alg"`
	Template []string `cbor:"4,keyasint" json:"template"` // SigningTemplate
	Blob     []byte   `cbor:"5,keyasint" json:"blob"`     // PKCS#8 under RSA
}

// RoleOrderCA is the order CA's key.
const RoleOrderCA = "order-ca"

// SigningTemplate is the one template of unwrapped signing keys; the wrapping key in the module enforces it.
func SigningTemplate() []string {
	return []string{"private", "sensitive", "!extractable", "sign", "!decrypt", "!unwrap"}
}

// Recipient is the content key wrapped to the station's content key.
type Recipient struct {
	Alg  WrapAlg `cbor:"1,keyasint" json:"alg"`
	Blob []byte  `cbor:"2,keyasint" json:"blob"` // 32-byte AES key under RSA
}

// Order is what the OEM signs: COSE_Sign1 by its order key.
type Order struct {
	Header  OrderHeader `cbor:"1,keyasint" json:"header"`
	Key     WrappedKey  `cbor:"2,keyasint" json:"key"`
	Content Recipient   `cbor:"3,keyasint" json:"content"`
	Sealed  []byte      `cbor:"4,keyasint" json:"sealed"` // SealedDigest of the rest of the file
}

// OrderFile is the file that travels, over any channel, held whole. FileSeal writes one as it comes, ReadSealedHead and Chunks read it so.
type OrderFile struct {
	Order   []byte   `cbor:"1,keyasint"` // envelope
	Content []byte   `cbor:"2,keyasint"` // OrderContent, sealed
	Payload [][]byte `cbor:"3,keyasint"` // the components' bytes in the order of the release, chunk by chunk, sealed
}

// OrderContent is the small secret part of an order.
type OrderContent struct {
	TicketSeed []byte       `cbor:"1,keyasint"` // 32 bytes; gives the serials
	Bundle     []byte       `cbor:"2,keyasint"` // envelope
	Release    []byte       `cbor:"3,keyasint"` // envelope
	Params     DeviceParams `cbor:"4,keyasint"`
}

// DeviceParams is what a device needs to know of its surroundings at first boot.
type DeviceParams struct {
	Flash   Flash             `cbor:"1,keyasint" json:"flash"`
	Servers Servers           `cbor:"2,keyasint" json:"servers"`
	Config  []byte            `cbor:"3,keyasint,omitempty" json:"config,omitempty"` // first configuration, the product's own
	Extra   map[string]string `cbor:"4,keyasint,omitempty" json:"extra,omitempty"`
}

// Flash is the geometry of a device's storage, bytes.
type Flash struct {
	Size     uint64 `cbor:"1,keyasint" json:"size"`
	Erase    uint32 `cbor:"2,keyasint" json:"erase"`
	Slots    uint32 `cbor:"3,keyasint" json:"slots"`
	SlotSize uint64 `cbor:"4,keyasint" json:"slot_size"`
}

// Servers are the URLs a device calls.
type Servers struct {
	Device string `cbor:"1,keyasint" json:"device"` // EST and the device API, https
	// MQTT is read by nobody, and no command gives it. Devices, orders and masters were made with it: they have to be read, so that its number stays taken.
	MQTT string `cbor:"2,keyasint,omitempty" json:"mqtt,omitempty"`
}

// Bounds of an order.
const (
	MaxOrder        = 32 << 10
	MaxOrderContent = 256 << 10
	MaxOrderFile    = 300 << 20 // of one that is held whole; a stream has no such bound
	OrderChunk      = 64 << 10  // plaintext bytes of a payload chunk
	maxChunks       = 1 << 16
	MaxPayload      = OrderChunk * maxChunks
	maxHeldChunks   = 4096
	MaxQuota        = 10_000_000
)

// EncodeOrder writes o.
func EncodeOrder(o Order) ([]byte, error) { return encode(o, MaxOrder) }

// DecodeOrder reads an order's payload; see VerifyOrder.
func DecodeOrder(data []byte) (Order, error) { return decode[Order](data, MaxOrder) }

// VerifyOrder checks an order's signature by the OEM's order key. Chain, station and validity are the station's to check.
func VerifyOrder(envelope []byte, orderKey crypto.PublicKey) (Order, error) {
	payload, err := Verify1(TypeOrder, envelope, orderKey)
	if err != nil {
		return Order{}, err
	}
	return DecodeOrder(payload)
}

func (o Order) check() error {
	if err := o.Header.check(); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	if o.Key.Role != RoleOrderCA || len(o.Key.Blob) == 0 || len(o.Key.Blob) > 1024 || len(o.Content.Blob) == 0 || len(o.Content.Blob) > 1024 {
		return errors.New("order: no order CA key or content key")
	}
	if _, err := parseECDSA(o.Key.SPKI); err != nil {
		return fmt.Errorf("order: key: %w", err)
	}
	if _, err := o.Key.Alg.Hash(); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	if err := o.Content.Alg.content(); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	if len(o.Sealed) != sha256.Size {
		return errors.New("order: no digest of the sealed content")
	}
	return nil
}

// MaxOrderID is how long an order's ID may be: its CA's name holds it after the CA's role, in the 64 characters of a common name (RFC 5280).
const MaxOrderID = 45

// CheckTerms holds what is ordered against itself: all but the return key and the chain, so that it can be asked before there are any.
func (h OrderHeader) CheckTerms() error {
	switch {
	case len(h.ID) > MaxOrderID:
		return fmt.Errorf("id %q has %d characters, at most %d", h.ID, len(h.ID), MaxOrderID)
	case !validName(h.ID) || !validName(h.OEM) || !validName(h.Product) || h.Hardware == "":
		return errors.New("id, OEM, product and hardware revision: lower-case letters, digits, '-', '.', at most 64")
	case h.Quota == 0 || h.Quota > MaxQuota:
		return fmt.Errorf("quota %d, between 1 and %d", h.Quota, MaxQuota)
	case h.NotAfter <= h.NotBefore:
		return errors.New("validity ends before it begins")
	case len(h.Station) != 32 || len(h.Bundle) != 32 || len(h.Release) != 32 || len(h.Root) != 32:
		return errors.New("a digest is not 32 bytes")
	case h.Profile != ProfileIDevID1:
		return fmt.Errorf("certificate profile %q", h.Profile)
	case h.Keys != "" && h.Keys != OriginStation:
		return fmt.Errorf("keys may be made by %q: there is %q", h.Keys, OriginStation)
	case h.Keys != "" && h.Chips != "":
		return errors.New("chips that come with keys get none from the station")
	case h.Chips != "" && !validName(h.Chips):
		return fmt.Errorf("chips of %q: want a vendor's name", h.Chips)
	}
	return nil
}

func (h OrderHeader) check() error {
	if err := h.CheckTerms(); err != nil {
		return err
	}
	switch {
	case len(h.ReturnKey) != 65:
		return errors.New("return key is not an uncompressed P-256 point")
	case len(h.Chain) < 2 || len(h.Chain) > 5:
		return fmt.Errorf("chain of %d certificates", len(h.Chain))
	}
	return nil
}

// validName keeps identifiers fit for file names and for certificate subjects.
func validName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// ValidName reports whether s may name an order, an OEM or a product.
func ValidName(s string) bool { return validName(s) }

// EncodeOrderFile writes f.
func EncodeOrderFile(f OrderFile) ([]byte, error) { return encode(f, MaxOrderFile) }

// DecodeOrderFile reads a file; nothing in it is believed before VerifyOrder and CheckSealed.
func DecodeOrderFile(data []byte) (OrderFile, error) { return decode[OrderFile](data, MaxOrderFile) }

func (f OrderFile) check() error {
	if len(f.Order) == 0 || len(f.Content) == 0 || len(f.Content) > MaxOrderContent+gcmOverhead {
		return errors.New("order file: no order or content")
	}
	if len(f.Payload) == 0 || len(f.Payload) > maxHeldChunks {
		return fmt.Errorf("order file: %d payload chunks", len(f.Payload))
	}
	for i, c := range f.Payload {
		if len(c) <= gcmOverhead || len(c) > OrderChunk+gcmOverhead {
			return fmt.Errorf("order file: chunk %d of %d bytes", i, len(c))
		}
	}
	return nil
}

// SealedDigest covers the sealed parts with their lengths.
func (f OrderFile) SealedDigest() [32]byte {
	sum := NewSealedSum(f.Content)
	for _, c := range f.Payload {
		sum.Add(c)
	}
	return sum.Sum()
}

// CheckSealed checks that the sealed parts are the ones o was signed for.
func (f OrderFile) CheckSealed(o Order) error {
	if got := f.SealedDigest(); !bytes.Equal(got[:], o.Sealed) {
		return errors.New("order file: the sealed content is not the one that was signed")
	}
	return nil
}

// EncodeOrderContent writes c.
func EncodeOrderContent(c OrderContent) ([]byte, error) { return encode(c, MaxOrderContent) }

// DecodeOrderContent reads the secret part, after it has been opened.
func DecodeOrderContent(data []byte) (OrderContent, error) {
	return decode[OrderContent](data, MaxOrderContent)
}

func (c OrderContent) check() error {
	if len(c.TicketSeed) != 32 || len(c.Bundle) == 0 || len(c.Release) == 0 {
		return errors.New("order content: no 32-byte ticket seed, bundle or release")
	}
	return c.Params.check()
}

func (p DeviceParams) check() error {
	if p.Servers.Device == "" || len(p.Config) > 16<<10 || len(p.Extra) > 64 {
		return errors.New("device parameters: no server, or too long")
	}
	if p.Flash.Slots == 0 || p.Flash.SlotSize == 0 || p.Flash.Erase == 0 || p.Flash.Slots > 16 ||
		p.Flash.SlotSize > p.Flash.Size/uint64(p.Flash.Slots) {
		return errors.New("device parameters: the slots do not fit the flash")
	}
	return nil
}

const gcmOverhead = 16

// orderLabel sets an order's keys apart from a master's.
const orderLabel = "hallmark-order-1/"

// contentKey and a label make the AEAD of one part of an order. The nonce is constant zero but for the chunk's number: every
// order has its own random content key, and each part its own derived key, so no (key, nonce) comes twice.
func contentAEAD(cek []byte, label string) (cipher.AEAD, error) {
	if len(cek) != 32 {
		return nil, errors.New("content key is not 32 bytes")
	}
	mac := hmac.New(sha256.New, cek)
	mac.Write([]byte(label))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func chunkNonce(i int) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], uint64(i))
	return n[:]
}

func chunkAAD(header []byte, last bool) []byte {
	if last {
		return append([]byte{1}, header...)
	}
	return append([]byte{0}, header...)
}

// SealContent encrypts c under a fresh order's content key, bound to header.
func SealContent(cek []byte, header OrderHeader, c OrderContent) ([]byte, error) {
	aad, plain, err := sealInputs(header, c)
	if err != nil {
		return nil, err
	}
	aead, err := contentAEAD(cek, orderLabel+"content")
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, chunkNonce(0), plain, aad), nil
}

func sealInputs(header OrderHeader, c OrderContent) (aad, plain []byte, err error) {
	if aad, err = Marshal(header); err != nil {
		return nil, nil, err
	}
	plain, err = EncodeOrderContent(c)
	return aad, plain, err
}

// OpenContent decrypts the secret part. It fails when the content was sealed for another header.
func OpenContent(cek []byte, header OrderHeader, sealed []byte) (OrderContent, error) {
	aad, err := Marshal(header)
	if err != nil {
		return OrderContent{}, err
	}
	aead, err := contentAEAD(cek, orderLabel+"content")
	if err != nil {
		return OrderContent{}, err
	}
	plain, err := aead.Open(nil, chunkNonce(0), sealed, aad)
	if err != nil {
		return OrderContent{}, errors.New("order content: it was not sealed for this order")
	}
	return DecodeOrderContent(plain)
}

// SealPayload encrypts the payload in chunks, each bound to header, its place, and being last or not.
func SealPayload(cek []byte, header OrderHeader, payload []byte) ([][]byte, error) {
	if len(payload) == 0 || len(payload) > OrderChunk*maxHeldChunks {
		return nil, fmt.Errorf("order payload: %d bytes, at most %d", len(payload), OrderChunk*maxHeldChunks)
	}
	aad, err := Marshal(header)
	if err != nil {
		return nil, err
	}
	aead, err := contentAEAD(cek, orderLabel+"payload")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for i := 0; len(payload) > 0; i++ {
		n := min(OrderChunk, len(payload))
		last := n == len(payload)
		out = append(out, aead.Seal(nil, chunkNonce(i), payload[:n], chunkAAD(aad, last)))
		payload = payload[n:]
	}
	return out, nil
}

// OpenChunk decrypts chunk i of the payload.
func (f OrderFile) OpenChunk(cek []byte, header OrderHeader, i int) ([]byte, error) {
	o, err := NewOrderOpener(cek, header, len(f.Payload))
	if err != nil {
		return nil, err
	}
	return o.Open(i, bytes.Clone(f.Payload[i]))
}

// NewContentKey makes the content key of one order.
func NewContentKey() []byte {
	k := make([]byte, 32)
	_, _ = rand.Read(k) // never fails (crypto/rand)
	return k
}

// DeviceID derives the serial of ticket i: HMAC-SHA256 over the ticket seed, its first 16 bytes in hex. It is the device's ID and the
// certificate subject's serialNumber. Without the seed no serial can be foretold, and the OEM accepts the quota's serials only.
func DeviceID(seed []byte, ticket uint32) string {
	mac := hmac.New(sha256.New, seed)
	mac.Write([]byte("hallmark-serial-1"))
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], ticket)
	mac.Write(n[:])
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// RootDigest is what the fuses hold of a trust bundle: SHA-256 over its root role.
func RootDigest(b Bundle) ([32]byte, error) {
	enc, err := Marshal(b.Root)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(enc), nil
}

// SPKIOf encodes a public key.
func SPKIOf(pub crypto.PublicKey) ([]byte, error) {
	der, err := suite.MarshalPublic(pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return der, nil
}
