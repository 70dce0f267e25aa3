// Package cad is the process that holds a CA's keys, and how the server asks it to sign.
//
// Stage 2 to the end, under pki. The server gives it the bytes that are to be signed, not their digest: it reads them, and signs what a profile
// of package pki allows for that key and nothing else, so that whoever takes the server gets certificates of devices, at a bounded rate and
// on record, and never a CA, a server of another name, or a signature over anything else. It listens on a unix socket, to one user. It trusts the
// root certificate in its own directory, and nothing that it is told.
//
//	request   4 bytes length ‖ CBOR {op, key, message}        one after the other on a connection
//	reply     4 bytes length ‖ CBOR {signature | spki, error}
package cad

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/wire"
)

// op is what a caller asks for.
type op uint8

const (
	opPublic  op = 1 // the public key called Key
	opMake    op = 2 // make the key called Key, for a CA that will be asked for
	opRequest op = 3 // sign Message, a wire.CARequest without a key, with the key that it is about
	opBind    op = 4 // Message is the certificate of Key, signed by the root that is believed here
	opSign    op = 5 // sign Message, the bytes of a certificate or a list
)

type request struct {
	Op      op     `cbor:"1,keyasint"`
	Key     string `cbor:"2,keyasint"`
	Message []byte `cbor:"3,keyasint,omitempty"`
}

type reply struct {
	Out   []byte `cbor:"1,keyasint,omitempty"` // signature, public key (DER), or signed request
	Code  string `cbor:"2,keyasint,omitempty"` // of an error
	Error string `cbor:"3,keyasint,omitempty"`
}

// Bounds of the messages: a list of a shard that holds a million certificates.
const (
	maxRequest = 64 << 20
	maxReply   = 16 << 10
)

// Codes of errors.
const (
	codeRefused = "ca.refused" // what was asked for is not signed here
	codeUnknown = "ca.key"     // there is no such key, or no certificate for it
	codeLimit   = "ca.limit"   // too much in a minute
	codeFailed  = "ca.failed"
)

func decodeRequest(data []byte) (request, error) {
	var r request
	if err := wire.Unmarshal(data, &r, maxRequest); err != nil {
		return request{}, err
	}
	if r.Op < opPublic || r.Op > opSign || !validKey(r.Key) {
		return request{}, fmt.Errorf("operation %d on key %q", r.Op, r.Key)
	}
	return r, nil
}

func validKey(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func decodeReply(data []byte) (reply, error) {
	var r reply
	return r, wire.Unmarshal(data, &r, maxReply)
}

var errFrame = errors.New("message of a length that is not allowed")

// readFrame reads one message. It takes memory as bytes come, not as they are announced.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || uint64(n) > uint64(limit) {
		return nil, errFrame
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(data) != int(n) {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

func writeFrame(w io.Writer, v any) error {
	data, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxRequest {
		return errFrame
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}
