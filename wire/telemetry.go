package wire

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Epoch opens a span of a device's data stream under a fresh data key. The key is sealed (HPKE, RFC 9180) to a retention
// bucket of the key-access service; whoever stores the records never has it.
type Epoch struct {
	Device string `cbor:"1,keyasint" json:"device"`
	Stream string `cbor:"2,keyasint" json:"stream"`
	Epoch  uint64 `cbor:"3,keyasint" json:"epoch"`
	Bucket string `cbor:"4,keyasint" json:"bucket"`
	KEM    uint16 `cbor:"5,keyasint" json:"kem"`
	Sealed []byte `cbor:"6,keyasint" json:"sealed"` // encapsulated key, then the 32-byte data key's ciphertext
	Opened uint64 `cbor:"7,keyasint" json:"opened"`
	// Period is when the time of ownership began that the samples are of, Unix milliseconds as the server told; 0: the device belonged to nobody.
	Period uint64 `cbor:"8,keyasint,omitempty" json:"period,omitempty"`
}

// Series is the signed head over the records of an epoch: authenticated encryption alone proves no origin, for readers hold
// the key. Closed says that Last is the final sequence number.
type Series struct {
	Device string `cbor:"1,keyasint" json:"device"`
	Stream string `cbor:"2,keyasint" json:"stream"`
	Epoch  uint64 `cbor:"3,keyasint" json:"epoch"`
	Last   uint64 `cbor:"4,keyasint" json:"last"`
	Head   []byte `cbor:"5,keyasint" json:"head"` // hash chain over the sealed records 1 … Last
	Closed bool   `cbor:"6,keyasint" json:"closed"`
}

// Sealed is one record in clear frame: sequence numbers start at 1. A gap that the signed heads lead over is what the device itself missed; one they do not
// lead over was lost, or held back, behind it.
type Sealed struct {
	Stream string `cbor:"1,keyasint" json:"stream"`
	Epoch  uint64 `cbor:"2,keyasint" json:"epoch"`
	Seq    uint64 `cbor:"3,keyasint" json:"seq"`
	Data   []byte `cbor:"4,keyasint" json:"data"` // COSE_Encrypt0 body: 12-byte nonce, ciphertext, 16-byte tag
}

// Upload is what a device sends of its streams in one request.
type Upload struct {
	Epochs  [][]byte `cbor:"1,keyasint,omitempty"` // COSE_Sign1(Epoch)
	Records []Sealed `cbor:"2,keyasint,omitempty"`
	Series  [][]byte `cbor:"3,keyasint,omitempty"` // COSE_Sign1(Series)
}

// Bounds: an upload, one record's cleartext, a name.
const (
	MaxUpload     = 512 << 10
	MaxSample     = 16 << 10
	maxStreamName = 64

	EpochRecords = 4096             // numbers that a device gives in one epoch, before it begins another: a reader gets a long time in parts
	maxSeq       = 2 * EpochRecords // what waits of one epoch may move to the next

	maxEpochBytes = 4 << 10
)

// MaxNth is the last epoch of one start.
const MaxNth = 1<<16 - 1

// EpochOf numbers epochs so that they rise over a device's life: the nth of the start that its boot count names.
func EpochOf(boots uint64, nth uint) uint64 { return boots<<16 | uint64(min(nth, MaxNth)) }

// PeriodOf is how a period of ownership that began then is called in epochs.
func PeriodOf(began time.Time) uint64 { return uint64(max(began.UnixMilli(), 0)) }

// EncodeEpoch writes e.
func EncodeEpoch(e Epoch) ([]byte, error) { return encode(e, maxEpochBytes) }

// DecodeEpoch reads an epoch's payload.
func DecodeEpoch(data []byte) (Epoch, error) { return decode[Epoch](data, maxEpochBytes) }

func (e Epoch) check() error {
	if e.Device == "" || !validStream(e.Stream) || !numbered(e.Epoch) || e.Bucket == "" || len(e.Sealed) < 64 {
		return errors.New("epoch: no device, stream, number, bucket or sealed key")
	}
	return nil
}

// EncodeSeries writes s.
func EncodeSeries(s Series) ([]byte, error) { return encode(s, 1<<10) }

// DecodeSeries reads a series' payload.
func DecodeSeries(data []byte) (Series, error) { return decode[Series](data, 1<<10) }

func (s Series) check() error {
	if s.Device == "" || !validStream(s.Stream) || !numbered(s.Epoch) || s.Last > maxSeq || len(s.Head) != sha256.Size {
		return errors.New("series: no device, stream, epoch or 32-byte head")
	}
	return nil
}

// EncodeUpload writes u.
func EncodeUpload(u Upload) ([]byte, error) { return encode(u, MaxUpload) }

// DecodeUpload reads an upload.
func DecodeUpload(data []byte) (Upload, error) { return decode[Upload](data, MaxUpload) }

func (u Upload) check() error {
	for _, r := range u.Records {
		if !validStream(r.Stream) || !numbered(r.Epoch) || r.Seq == 0 || r.Seq > maxSeq || len(r.Data) < 12+16 || len(r.Data) > MaxSample+12+16 {
			return fmt.Errorf("upload: record %d of epoch %d is out of bounds: numbers are 1 to %d, data at most %d bytes", r.Seq, r.Epoch, maxSeq, MaxSample)
		}
	}
	return nil
}

// maxNumber bounds numbers of epochs and records: they are kept as signed ones.
const maxNumber = 1 << 62

func numbered(n uint64) bool { return n > 0 && n <= maxNumber }

func validStream(s string) bool {
	if s == "" || len(s) > maxStreamName {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// SealEpochKey seals dataKey to a bucket's public key, bound to the epoch it opens.
func SealEpochKey(bucket StreamKey, device, stream string, epoch uint64, dataKey []byte) ([]byte, error) {
	kem, err := hpke.NewKEM(bucket.KEM)
	if err != nil {
		return nil, fmt.Errorf("seal epoch key: %w", err)
	}
	pub, err := kem.NewPublicKey(bucket.Key)
	if err != nil {
		return nil, fmt.Errorf("seal epoch key: %w", err)
	}
	info, err := epochInfo(device, stream, epoch, bucket.Bucket, nil)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), info, dataKey)
}

// OpenEpochKey opens what SealEpochKey, or with a decision ResealEpochKey, sealed.
func OpenEpochKey(key hpke.PrivateKey, e Epoch, decision, sealed []byte) ([]byte, error) {
	info, err := epochInfo(e.Device, e.Stream, e.Epoch, e.Bucket, decision)
	if err != nil {
		return nil, err
	}
	dataKey, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), info, sealed)
	if err != nil {
		return nil, fmt.Errorf("epoch %d of %s/%s: key: %w", e.Epoch, e.Device, e.Stream, err)
	}
	return dataKey, nil
}

// ResealEpochKey seals an opened data key to a reader. The decision that allowed it (the UID of its fact) is bound in.
func ResealEpochKey(reader hpke.PublicKey, e Epoch, decision, dataKey []byte) ([]byte, error) {
	info, err := epochInfo(e.Device, e.Stream, e.Epoch, e.Bucket, decision)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(reader, hpke.HKDFSHA256(), hpke.AES256GCM(), info, dataKey)
}

func epochInfo(device, stream string, epoch uint64, bucket string, decision []byte) ([]byte, error) {
	return Marshal([]any{"hallmark-telemetry-key/1", device, stream, epoch, bucket, decision})
}

// SealRecord seals one sample as the body of a COSE_Encrypt0 (RFC 9052 §5.2, A256GCM) whose external data names device,
// stream, epoch and sequence number, so that no record can stand in another's place.
func SealRecord(dataKey []byte, device, stream string, epoch, seq uint64, sample []byte) (Sealed, error) {
	if len(sample) > MaxSample {
		return Sealed{}, fmt.Errorf("sample: %w: %d bytes", ErrTooLarge, len(sample))
	}
	aead, aad, err := recordCipher(dataKey, device, stream, epoch, seq)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{Stream: stream, Epoch: epoch, Seq: seq, Data: aead.Seal(nil, nil, sample, aad)}, nil
}

// OpenRecord opens a record of device.
func OpenRecord(dataKey []byte, device string, r Sealed) ([]byte, error) {
	aead, aad, err := recordCipher(dataKey, device, r.Stream, r.Epoch, r.Seq)
	if err != nil {
		return nil, err
	}
	sample, err := aead.Open(nil, nil, r.Data, aad)
	if err != nil {
		return nil, fmt.Errorf("record %d of epoch %d of %s/%s: %w", r.Seq, r.Epoch, device, r.Stream, err)
	}
	return sample, nil
}

func recordCipher(dataKey []byte, device, stream string, epoch, seq uint64) (cipher.AEAD, []byte, error) {
	if len(dataKey) != 32 {
		return nil, nil, fmt.Errorf("data key of %d bytes", len(dataKey))
	}
	block, err := aes.NewCipher(dataKey)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, nil, err
	}
	external, err := Marshal([]any{device, stream, epoch, seq})
	if err != nil {
		return nil, nil, err
	}
	protected, err := Marshal(map[int]int{1: 3}) // alg: A256GCM
	if err != nil {
		return nil, nil, err
	}
	aad, err := Marshal([]any{"Encrypt0", cbor.ByteString(protected), cbor.ByteString(external)})
	return aead, aad, err
}

// NextHead extends the chain over sealed records: SHA-256(head ‖ seq as u64 big-endian ‖ SHA-256(data)). The first head is
// SHA-256 of the epoch's payload.
func NextHead(head [32]byte, r Sealed) [32]byte {
	h := sha256.New()
	h.Write(head[:])
	h.Write([]byte{
		byte(r.Seq >> 56), byte(r.Seq >> 48), byte(r.Seq >> 40), byte(r.Seq >> 32),
		byte(r.Seq >> 24), byte(r.Seq >> 16), byte(r.Seq >> 8), byte(r.Seq),
	})
	sum := sha256.Sum256(r.Data)
	h.Write(sum[:])
	return [32]byte(h.Sum(nil))
}
