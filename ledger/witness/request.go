package witness

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/ledger"
)

// SizeType is the media type of the size that a witness answers with 409.
const SizeType = "text/x.tlog.size"

// MaxRequest bounds the body of add-checkpoint, and of its answer.
const MaxRequest = ledger.MaxNote + 4<<10

// maxProof bounds a consistency proof, as the specification does.
const maxProof = 63

// Request is the body of add-checkpoint (c2sp.org/tlog-witness):
//
//	old <size>
//	<base64 of a hash>      at most 63 of them
//
//	<checkpoint>
type Request struct {
	Old   uint64
	Proof [][32]byte
	Note  []byte
}

// Encode writes r.
func (r Request) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", r.Old)
	for _, h := range r.Proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(r.Note)
	return b.Bytes()
}

// ParseRequest reads a body. The checkpoint in it is not looked at.
func ParseRequest(data []byte) (Request, error) {
	bad := func(what string) (Request, error) { return Request{}, fmt.Errorf("%w: %s", ErrMalformed, what) }
	if len(data) > MaxRequest {
		return bad("too large")
	}
	head, note, ok := strings.Cut(string(data), "\n\n")
	lines := strings.Split(head, "\n")
	old, said := strings.CutPrefix(lines[0], "old ")
	size, err := parseSize(old)
	if !ok || !said || err != nil || len(lines)-1 > maxProof {
		return bad("want `old`, a size, at most 63 hashes, an empty line, and a checkpoint")
	}
	r := Request{Old: size, Note: []byte(note)}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != 32 || base64.StdEncoding.EncodeToString(h) != l {
			return bad("a line of the proof is not the base64 of a hash")
		}
		r.Proof = append(r.Proof, [32]byte(h))
	}
	return r, nil
}

// ParseOldSize reads the body of an answer with status 409: a size and a newline.
func ParseOldSize(data []byte) (uint64, error) {
	s, ended := strings.CutSuffix(string(data), "\n")
	if !ended {
		return 0, errors.New("want a size and a newline")
	}
	return parseSize(s)
}

// parseSize reads a decimal without leading zeros. Larger trees than 2^63-1 there are none.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, errors.New("not a size")
	}
	return n, nil
}
