// Command vsa checks a signed summary with the libraries of those who made the formats: secure-systems-lab's DSSE and in-toto's attestations. It shares no code with ours. Its module is its
// own, so that the product depends on nothing of it.
//
//	vsa KEY.pem SUMMARY.json
//
// It prints the result, the resource, the verifier and the levels in one line, and each subject's SHA-256 in one.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	vsa "github.com/in-toto/attestation/go/predicates/vsa/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vsa:", err)
		os.Exit(1)
	}
}

// key implements dsse.Verifier.
type key struct{ pub crypto.PublicKey }

func (k key) Verify(_ context.Context, data, sig []byte) error {
	ok := false
	switch pub := k.pub.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, data, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(data)
		digest := sum[:]
		if pub.Curve.Params().BitSize == 384 {
			long := sha512.Sum384(data)
			digest = long[:]
		}
		ok = ecdsa.VerifyASN1(pub, digest, sig)
	}
	if !ok {
		return errors.New("the signature does not hold")
	}
	return nil
}

func (k key) KeyID() (string, error)   { return "", nil }
func (k key) Public() crypto.PublicKey { return k.pub }

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: vsa KEY.pem SUMMARY.json")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("no PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var e dsse.Envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	v, err := dsse.NewEnvelopeVerifier(key{pub})
	if err != nil {
		return err
	}
	if _, err := v.Verify(context.Background(), &e); err != nil {
		return err
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		return err
	}
	var st intoto.Statement
	if err := protojson.Unmarshal(payload, &st); err != nil { // strict: a field that the format has not is an error
		return err
	}
	if err := st.Validate(); err != nil {
		return err
	}
	predicate, err := protojson.Marshal(st.Predicate)
	if err != nil {
		return err
	}
	var s vsa.VerificationSummary
	if err := protojson.Unmarshal(predicate, &s); err != nil {
		return err
	}
	fmt.Println(e.PayloadType, st.PredicateType, s.VerificationResult, s.ResourceUri, s.Verifier.Id, strings.Join(s.VerifiedLevels, ","), s.SlsaVersion)
	for _, sub := range st.Subject {
		fmt.Println(sub.Name, sub.Digest["sha256"])
	}
	return nil
}
