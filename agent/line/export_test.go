package line

import (
	"bytes"
	"crypto"
	"io"
	"log/slog"

	"github.com/hallmark-iot/hallmark/agent/frame"
)

// Ask has what a process says on the socket of its asks answered, as for a process while a call of as's is under way, and gives what it is told.
func Ask(said []byte, as [32]byte, key crypto.Signer) (answers []byte) {
	var p Process
	p.o.Logger = quiet
	done := p.grants.open(as, key, nil)
	defer done()
	var out bytes.Buffer
	conn := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(said), &out}
	for p.asked(conn) == nil {
	}
	return out.Bytes()
}

// Answer reads an answer as a call does.
func Answer(said []byte) error {
	var r reply
	if err := frame.Receive(bytes.NewReader(said), &r, maxReply); err != nil {
		return err
	}
	return r.err()
}

// Question reads a question as the network's process does.
func Question(said []byte) error {
	var q question
	return frame.Receive(bytes.NewReader(said), &q, maxQuestion)
}

// Signing is an ask for a signature.
func Signing(as [32]byte, digest []byte, hash crypto.Hash) []byte {
	var b bytes.Buffer
	if err := frame.Send(&b, ask{Do: askSign, As: as, Digest: digest, Hash: uint(hash)}, maxAsk); err != nil {
		panic(err)
	}
	return b.Bytes()
}

var quiet = slog.New(slog.DiscardHandler)
