package wire

import (
	"bytes"
	"testing"
)

func FuzzDecodeFact(f *testing.F) {
	again(f, DecodeFact, EncodeFact, Fact{V: 1, UID: bytes.Repeat([]byte{1}, 16), Kind: "genesis", Data: []byte{}},
		Fact{V: 1, UID: bytes.Repeat([]byte{1}, 16), Kind: "a.b", Cause: &FactCause{Log: "control", Index: 3}, Data: []byte("x")})
}

func FuzzDecodeLogged(f *testing.F) {
	again(f, DecodeLogged, EncodeLogged, Logged{Entry: []byte("e"), Proof: Proof{
		Index: 1, Size: 2, Path: [][]byte{d32(1)}, LogSignature: make([]byte, 64),
		Cosignatures: []Cosignature{{Witness: "w", Time: 5, Signature: make([]byte, 64)}},
	}})
}

func FuzzDecodeEpoch(f *testing.F) {
	again(f, DecodeEpoch, EncodeEpoch, Epoch{Device: "d", Stream: "s", Epoch: 1, Bucket: "b", KEM: 0x50, Sealed: make([]byte, 80)})
}

func FuzzDecodeSeries(f *testing.F) {
	again(f, DecodeSeries, EncodeSeries, Series{Device: "d", Stream: "s", Epoch: 1, Last: 3, Head: d32(2)})
}

func FuzzDecodeUpload(f *testing.F) {
	again(f, DecodeUpload, EncodeUpload, Upload{
		Epochs: [][]byte{{1}}, Records: []Sealed{{Stream: "s", Epoch: 1, Seq: 1, Data: make([]byte, 30)}}, Series: [][]byte{{2}},
	})
}
