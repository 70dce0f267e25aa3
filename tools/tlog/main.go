// Command tlog is a witness and a log that are not ours, for tests: github.com/transparency-dev/witness, its client, the note
// formats of the same people, and the log of golang.org/x/mod.
//
//	tlog witness LOG-KEY…        serves until its input ends; prints its address and its verifier keys
//	tlog key ORIGIN              prints the keys of a log: to sign with, and to verify by
//	tlog log URL KEY WITNESS-KEY…  grows a log under a witness, and verifies each cosignature by each key
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	formats "github.com/transparency-dev/formats/note"
	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/omniwitness"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tlog:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "witness":
		return serve(args[1:])
	case len(args) == 2 && args[0] == "key":
		return makeKey(args[1])
	case len(args) >= 4 && args[0] == "log":
		return grow(args[1], args[2], args[3:])
	}
	return errors.New("usage: tlog witness LOG-KEY… | tlog key ORIGIN | tlog log URL SIGNER-KEY WITNESS-KEY…")
}

// serve runs the witness.
func serve(logs []string) error {
	const name = "omniwitness.example"
	skey, edKey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	if edKey, err = formats.VKeyToCosignatureV1(edKey); err != nil {
		return err
	}
	ed, err := formats.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	skey, pqKey, err := formats.GenerateMLDSAKey(name)
	if err != nil {
		return err
	}
	pq, err := formats.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	var config strings.Builder
	config.WriteString("Logs:\n")
	for _, l := range logs {
		fmt.Fprintf(&config, "  - PublicKey: %q\n    Origin: %q\n", l, l[:strings.Index(l, "+")])
	}
	known, err := omniwitness.NewStaticLogConfig([]byte(config.String()))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n%s\n%s\n", l.Addr(), edKey, pqKey)
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return omniwitness.Main(context.Background(), omniwitness.OperatorConfig{
		WitnessKeys: []note.Signer{ed, pq}, WitnessVerifier: ed.Verifier(), Logs: known,
	}, inmemory.New(), l, http.DefaultClient)
}

// makeKey prints the keys of a log: to sign with, and to verify by.
func makeKey(origin string) error {
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err == nil {
		fmt.Printf("%s\n%s\n", skey, vkey)
	}
	return err
}

// grow has a log witnessed at some sizes, some of them twice, and once from a size that the witness does not remember.
func grow(address, skey string, witnessKeys []string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return err
	}
	verifiers := []note.Verifier{}
	for _, k := range witnessKeys {
		v, err := formats.NewVerifierForCosignatureV1(k)
		if err != nil {
			return err
		}
		verifiers = append(verifiers, v)
	}
	w := client.NewWitness(u, http.DefaultClient)
	var hashes []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = hashes[x]
		}
		return out, nil
	})
	old, n := int64(0), int64(0)
	for _, size := range []int64{1, 2, 2, 5, 300, 1000} {
		for ; n < size; n++ {
			more, err := tlog.StoredHashes(n, fmt.Appendf(nil, "record %d", n), read)
			if err != nil {
				return err
			}
			hashes = append(hashes, more...)
		}
		root, err := tlog.TreeHash(size, read)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s\n%d\n%s\n", signer.Name(), size, root)
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			return err
		}
		if size == 300 { // as after a restart
			_, remembered, err := w.Update(context.Background(), 0, signed, nil)
			if !errors.Is(err, witness.ErrCheckpointStale) || remembered != uint64(old) {
				return fmt.Errorf("asked from size 0, the witness remembers %d: %w; want %d", remembered, err, old)
			}
		}
		var proof [][]byte
		if old > 0 && old < size {
			p, err := tlog.ProveTree(size, old, read)
			if err != nil {
				return err
			}
			for _, h := range p {
				proof = append(proof, h[:])
			}
		}
		lines, _, err := w.Update(context.Background(), uint64(old), signed, proof)
		if err != nil {
			return fmt.Errorf("size %d: %w", size, err)
		}
		opened, err := note.Open(append(signed, lines...), note.VerifierList(verifiers...))
		if err != nil {
			return fmt.Errorf("size %d: %w", size, err)
		}
		if len(opened.Sigs) != len(verifiers) {
			return fmt.Errorf("size %d: %d cosignatures hold, want %d", size, len(opened.Sigs), len(verifiers))
		}
		old = size
	}
	fmt.Printf("witnessed to size %d by %d keys\n", old, len(verifiers))
	return nil
}
