package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
)

// TreeHead is a checkpoint as a log signed it, without its text (CheckpointText gives that). Two of one origin and size with other
// roots are the log's own confession that it shows different trees to different readers.
type TreeHead struct {
	Origin    string `cbor:"1,keyasint" json:"origin"`
	Size      uint64 `cbor:"2,keyasint" json:"size"`
	Root      []byte `cbor:"3,keyasint" json:"root"`      // 32 bytes
	Signature []byte `cbor:"4,keyasint" json:"signature"` // the log's, Ed25519, 64 bytes
}

// Head gives the tree head a verified proof stands under.
func (p Proof) Head(c Checkpoint) TreeHead {
	return TreeHead{Origin: c.Origin, Size: c.Size, Root: c.Root[:], Signature: p.LogSignature}
}

func (h TreeHead) check() error {
	if h.Origin == "" || len(h.Origin) > 128 || h.Size == 0 || len(h.Root) != sha256.Size || len(h.Signature) != ed25519.SignatureSize {
		return errors.New("tree head: no origin, size, 32-byte root or 64-byte signature")
	}
	return nil
}
