package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
)

func testSPKI(t testing.TB) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := SPKIOf(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func testOrder(t testing.TB) Order {
	d := bytes.Repeat([]byte{7}, 32)
	return Order{
		Header: OrderHeader{
			ID: "ord-1", OEM: "acme", Product: "lock", Hardware: "b", Quota: 5, NotBefore: 1, NotAfter: 2, Station: d, HSMSerial: "s",
			Chain: [][]byte{{1}, {2}}, Profile: ProfileIDevID1, Bundle: d, Release: d, Root: d, ReturnKey: make([]byte, 65),
		},
		Key:     WrappedKey{Role: RoleOrderCA, SPKI: testSPKI(t), Alg: WrapOAEPSHA256, Template: SigningTemplate(), Blob: []byte{1}},
		Content: Recipient{Alg: WrapOAEPSHA1, Blob: []byte{1}}, Sealed: d,
	}
}

func testContent() OrderContent {
	return OrderContent{
		TicketSeed: bytes.Repeat([]byte{3}, 32), Bundle: []byte{1}, Release: []byte{2},
		Params: DeviceParams{Flash: Flash{Size: 4096, Erase: 512, Slots: 2, SlotSize: 1024}, Servers: Servers{Device: "https://d"}},
	}
}

func testRecord() Record {
	d := bytes.Repeat([]byte{7}, 32)
	return Record{
		Order: "ord-1", Station: d, Seq: 1, Prev: d, Ticket: 0, Device: DeviceID(d, 0), Outcome: Scrapped, Reason: "cut", Time: 1,
		Chip: &ChipHello{Version: PortVersion, ChipUID: make([]byte, 8), Hardware: "b"},
	}
}

func TestContentBinding(t *testing.T) {
	o, cek := testOrder(t), NewContentKey()
	sealed, err := SealContent(cek, o.Header, testContent())
	if err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("abc"), OrderChunk)
	chunks, err := SealPayload(cek, o.Header, payload)
	if err != nil {
		t.Fatal(err)
	}
	f := OrderFile{Order: []byte{1}, Content: sealed, Payload: chunks}
	var got []byte
	for i := range f.Payload {
		c, err := f.OpenChunk(cek, o.Header, i)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c...)
	}
	if !bytes.Equal(got, payload) {
		t.Fatal("the payload came back different")
	}
	if _, err := OpenContent(cek, o.Header, sealed); err != nil {
		t.Fatal(err)
	}
	other := o.Header
	other.Quota++
	if _, err := OpenContent(cek, other, sealed); err == nil {
		t.Error("content opened under another header")
	}
	if _, err := f.OpenChunk(cek, other, 0); err == nil {
		t.Error("a chunk opened under another header")
	}
	cut := f
	cut.Payload = f.Payload[:2]
	if _, err := cut.OpenChunk(cek, o.Header, 1); err == nil {
		t.Error("a payload without its end opened")
	}
	cut.Payload = [][]byte{f.Payload[1], f.Payload[0], f.Payload[2]}
	if _, err := cut.OpenChunk(cek, o.Header, 0); err == nil {
		t.Error("chunks opened out of order")
	}
}

func TestBatchSealing(t *testing.T) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := RecordBatch{Order: "ord-1", Records: [][]byte{{1, 2, 3}}}
	sealed, err := SealBatch(b, key.PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenBatch("ord-1", sealed, key); err != nil || !bytes.Equal(got.Records[0], b.Records[0]) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := OpenBatch("ord-2", sealed, key); err == nil {
		t.Error("a batch opened for another order")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := OpenBatch("ord-1", sealed, key); err == nil {
		t.Error("a changed batch opened")
	}
}

func TestDeviceID(t *testing.T) {
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	if id := DeviceID(a, 0); !ValidDeviceID(id) || id == DeviceID(a, 1) || id == DeviceID(b, 0) || id != DeviceID(a, 0) {
		t.Errorf("serials: %s %s %s", DeviceID(a, 0), DeviceID(a, 1), DeviceID(b, 0))
	}
}

// roundTrip holds a decoder to its word: what it accepts is what its encoder writes.
func roundTrip[T any](f *testing.F, decode func([]byte) (T, error), encode func(T) ([]byte, error)) {
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(v)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("accepted %x, written again %x, %v", data, again, err)
		}
	})
}

func seed[T any](f *testing.F, v T, encode func(T) ([]byte, error)) {
	f.Helper()
	b, err := encode(v)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{0xa0})
}

func FuzzDecodeStation(f *testing.F) {
	s := Station{
		Name: "s", OEM: "acme", Module: "soft", Serial: "1", RecordKey: testSPKI(f), WrapKey: []byte{1}, ContentKey: []byte{2},
		WrapAlg: WrapOAEPSHA1, ContentAlg: WrapOAEPSHA1,
	}
	seed(f, s, EncodeStation)
	roundTrip(f, DecodeStation, EncodeStation)
}

func FuzzDecodeOrder(f *testing.F) {
	seed(f, testOrder(f), EncodeOrder)
	roundTrip(f, DecodeOrder, EncodeOrder)
}

func FuzzDecodeOrderFile(f *testing.F) {
	seed(f, OrderFile{Order: []byte{1}, Content: []byte{2}, Payload: [][]byte{make([]byte, 17)}}, EncodeOrderFile)
	roundTrip(f, DecodeOrderFile, EncodeOrderFile)
}

func FuzzDecodeOrderContent(f *testing.F) {
	seed(f, testContent(), EncodeOrderContent)
	roundTrip(f, DecodeOrderContent, EncodeOrderContent)
}

func FuzzDecodeRecord(f *testing.F) {
	seed(f, testRecord(), EncodeRecord)
	roundTrip(f, DecodeRecord, EncodeRecord)
}

func FuzzDecodeJobEnd(f *testing.F) {
	d := make([]byte, 32)
	seed(f, JobEnd{Order: "o", Station: d, Records: 2, Made: 1, Scrapped: 1, Last: d, Root: d, KeyDestroyed: true}, EncodeJobEnd)
	roundTrip(f, DecodeJobEnd, EncodeJobEnd)
}

func FuzzDecodeInspection(f *testing.F) {
	d := make([]byte, 32)
	i := Inspection{Order: "o", Station: d, Record: d, Device: "00112233445566778899aabbccddeeff", Passed: true, By: "ola", Seq: 1}
	seed(f, i, EncodeInspection)
	i.Passed, i.Notes = false, "scratched"
	seed(f, i, EncodeInspection)
	roundTrip(f, DecodeInspection, EncodeInspection)
}

func FuzzDecodeRecordBatch(f *testing.F) {
	enc := func(b RecordBatch) ([]byte, error) { return Marshal(b) }
	seed(f, RecordBatch{Order: "o", Records: [][]byte{{1}}}, enc)
	roundTrip(f, DecodeRecordBatch, enc)
}

func FuzzDecodeRecordFile(f *testing.F) {
	enc := func(file RecordFile) ([]byte, error) { return Marshal(file) }
	seed(f, RecordFile{Order: "o", Batches: [][]byte{{1}}}, enc)
	roundTrip(f, DecodeRecordFile, enc)
}

// FuzzDecodePortFrame reads a frame and its body as every type a body can have.
func FuzzDecodePortFrame(f *testing.F) {
	d := make([]byte, 32)
	for _, m := range []struct {
		kind string
		body any
	}{
		{PortHello, ChipHello{Version: PortVersion, ChipUID: make([]byte, 8), Hardware: "b"}},
		{PortKeys, KeyRequest{Order: "o", Nonce: d, Device: DeviceID(d, 1)}},
		{PortKeys, KeyReply{IDevID: []byte{1}, Attest: []byte{2}, Origin: "soft"}},
		{PortChunk, Chunk{Component: "app", Data: []byte{1}}},
		{PortReadBack, ReadBack{Components: []NamedDigest{{Name: "a", Digest: d}}, Bundle: d, Release: d, Certificate: d, Params: d}},
		{PortFuse, FuseRequest{Root: d}},
		{PortFused, FuseState{Root: d}},
		{PortError, PortFault{Code: "c", Text: "t"}},
		{PortDone, nil},
	} {
		b, err := EncodePortFrame(m.kind, m.body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[4:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := DecodePortFrame(data)
		if err != nil {
			return
		}
		bodies(t, fr)
	})
}

func bodies(t *testing.T, f PortFrame) {
	t.Helper()
	body[ChipHello](t, f)
	body[KeyRequest](t, f)
	body[KeyReply](t, f)
	body[Install](t, f)
	body[Chunk](t, f)
	body[ReadBack](t, f)
	body[FuseRequest](t, f)
	body[FuseState](t, f)
	body[PortFault](t, f)
}

func body[T PortBody](t *testing.T, f PortFrame) {
	t.Helper()
	v, err := DecodePortBody[T](f)
	if err != nil {
		return
	}
	if again, err := Marshal(v); err != nil || !bytes.Equal(again, f.Body) {
		t.Fatalf("accepted %x, written again %x, %v", f.Body, again, err)
	}
}
