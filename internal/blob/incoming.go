package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/hallmark-iot/hallmark/release"
)

// incoming hashes what is read of it, whole and in chunks. It ends with its context, so that a stalled upload does not outlive its request.
type incoming struct {
	ctx   context.Context
	r     io.Reader
	limit int64

	whole hash.Hash
	size  int64
	part  hash.Hash // of the chunk that has begun; nil between two
	sums  []byte
	err   error // what ended it, but for its end
}

// Read implements io.Reader. What it failed with once it fails with for ever: a place may take the error of a cut body for the end of it.
func (in *incoming) Read(p []byte) (int, error) {
	if in.err == nil {
		in.err = in.ctx.Err()
	}
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.r.Read(p[:min(int64(len(p)), in.limit-in.size+1)])
	in.add(p[:n])
	if in.size > in.limit {
		err = release.ErrTooLarge
	}
	if err != nil && !errors.Is(err, io.EOF) {
		in.err = err
	}
	return n, err
}

func (in *incoming) add(p []byte) {
	in.whole.Write(p)
	for len(p) > 0 {
		if in.part == nil {
			in.part = sha256.New()
		}
		n := min(int64(len(p)), Chunk-in.size%Chunk)
		in.part.Write(p[:n])
		in.size += n
		if p = p[n:]; in.size%Chunk == 0 {
			in.sums, in.part = in.part.Sum(in.sums), nil
		}
	}
}

// end gives the digest and the sums of what was read, all of it.
func (in *incoming) end() (digest [32]byte, sums []byte, err error) {
	if in.err != nil {
		return digest, nil, in.err
	}
	if in.size == 0 {
		return digest, nil, release.ErrEmpty
	}
	if in.part != nil {
		in.sums, in.part = in.part.Sum(in.sums), nil
	}
	return [32]byte(in.whole.Sum(nil)), in.sums, nil
}
