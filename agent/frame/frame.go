// Package frame is how processes of one device talk to each other: a length of four bytes, then deterministic CBOR, strictly read and bounded.
//
// Under all stages, on the device. It knows nothing of what is said, and trusts nobody who says it.
package frame

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/wire"
)

// Send writes v, of at most most bytes, in one write.
func Send(w io.Writer, v any, most int) error {
	b, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > most {
		return fmt.Errorf("%d bytes, at most %d", len(b), most)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

// Receive reads what Send wrote into v, a pointer. What is longer than most is an error, and nothing of it is read.
func Receive(r io.Reader, v any, most int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(most) {
		return fmt.Errorf("%d bytes, at most %d", n, most)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return wire.Unmarshal(b, v, most)
}
