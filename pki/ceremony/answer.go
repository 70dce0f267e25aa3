package ceremony

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
)

// Approver is one whose key signs trust bundles; Label is as the request has it, and may be empty where that names nobody.
type Approver struct {
	Label string
	Key   crypto.Signer
}

// Answer gives an instance what it asked for, with all keys at hand: the quick way, by one who has them all.
func Answer(request []byte, root *pki.Authority, approvers []Approver, now time.Time) (wire.CeremonyAnswer, error) {
	fail := func(err error) (wire.CeremonyAnswer, error) { return wire.CeremonyAnswer{}, err }
	r, err := wire.DecodeCeremonyRequest(request)
	if err != nil {
		return fail(err)
	}
	digest := sha256.Sum256(request)
	out := wire.CeremonyAnswer{Request: digest[:], Root: root.Cert.Raw}
	asked, err := OpenRequests(request)
	if err != nil {
		return fail(err)
	}
	for _, a := range asked {
		g, err := Grant(root, a, r.OEM, now)
		if err != nil {
			return fail(err)
		}
		out.Grants = append(out.Grants, g)
	}
	if r.Draft == nil {
		return out, nil
	}
	payload, signers, err := fill(r, root, approvers)
	if err != nil {
		return fail(err)
	}
	for i, k := range signers {
		if i == 0 {
			out.Bundle, err = wire.NewThreshold(wire.TypeBundle, payload, k)
		} else {
			out.Bundle, err = wire.AddSignature(wire.TypeBundle, out.Bundle, k)
		}
		if err != nil {
			return fail(err)
		}
	}
	if _, err := wire.VerifyBundle(nil, out.Bundle); err != nil {
		return fail(fmt.Errorf("trust bundle: %w", err))
	}
	return out, nil
}

// fill makes the bundle's payload, and picks who signs it.
func fill(r wire.CeremonyRequest, root *pki.Authority, approvers []Approver) (payload []byte, signers []crypto.Signer, err error) {
	var keys [][]byte
	if len(r.Approvers) == 0 {
		for _, a := range approvers {
			signers = append(signers, a.Key)
		}
	}
	for _, label := range r.Approvers {
		k, err := keyOf(approvers, label)
		if err != nil {
			return nil, nil, err
		}
		der, err := wire.SPKIOf(k.Public())
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, der)
		if uint(len(signers)) < r.Threshold {
			signers = append(signers, k)
		}
	}
	if len(signers) == 0 {
		return nil, nil, errors.New("the request asks for a trust bundle: name the approvers who sign it")
	}
	b, err := r.Fill(keys, root.Cert.Raw)
	if err != nil {
		return nil, nil, err
	}
	payload, err = wire.EncodeBundle(b)
	return payload, signers, err
}

func keyOf(approvers []Approver, label string) (crypto.Signer, error) {
	for _, a := range approvers {
		if a.Label == label {
			return a.Key, nil
		}
	}
	return nil, fmt.Errorf("the key of approver %s is needed", label)
}

// Checked is an answer that was held against its request.
type Checked struct {
	Root   *x509.Certificate
	CAs    []*x509.Certificate // in the order in which they were asked for
	Bundle *wire.Bundle        // nil: none was asked for
}

// ErrRehearsal says that something is of a rehearsal where the real thing is needed.
var ErrRehearsal = errors.New("this is of a rehearsal: nothing real is made of it")

// Check holds an answer against the request: a root of the maker's name, a CA for each that was asked for and no other, the bundle that was
// drafted, signed by its threshold. Whether the root is the right one is for people to compare, or for the caller, who knows one.
func Check(request []byte, a wire.CeremonyAnswer) (Checked, error) {
	r, err := wire.DecodeCeremonyRequest(request)
	if err != nil {
		return Checked{}, err
	}
	if a.Rehearsal {
		return Checked{}, ErrRehearsal
	}
	if digest := sha256.Sum256(request); [32]byte(a.Request) != digest {
		return Checked{}, fmt.Errorf("the answer is to request %x, this is %x", a.Request[:8], digest[:8])
	}
	var out Checked
	if out.Root, err = x509.ParseCertificate(a.Root); err != nil {
		return Checked{}, fmt.Errorf("root: %w", err)
	}
	if role, err := pki.RoleOf(out.Root); err != nil || role != profile.Root || len(out.Root.Subject.Organization) != 1 || out.Root.Subject.Organization[0] != r.OEM {
		return Checked{}, fmt.Errorf("%q is no root of OEM %s", out.Root.Subject, r.OEM)
	}
	if err := out.Root.CheckSignatureFrom(out.Root); err != nil {
		return Checked{}, fmt.Errorf("root: %w", err)
	}
	asked, err := OpenRequests(request)
	if err != nil {
		return Checked{}, err
	}
	if len(asked) != len(a.Grants) {
		return Checked{}, fmt.Errorf("%d CAs were asked for, %d granted", len(asked), len(a.Grants))
	}
	for i, one := range asked {
		ca, err := CheckGrant(a.Grants[i], one, out.Root, r.OEM)
		if err != nil {
			return Checked{}, err
		}
		out.CAs = append(out.CAs, ca)
	}
	if (r.Draft != nil) != (len(a.Bundle) > 0) {
		return Checked{}, errors.New("a trust bundle was asked for and is not there, or the other way round")
	}
	if r.Draft == nil {
		return out, nil
	}
	out.Bundle, err = checkBundle(r, a)
	return out, err
}

// checkBundle compares what was signed with what was drafted: only the approvers' keys and the anchor may have come to it.
func checkBundle(r wire.CeremonyRequest, a wire.CeremonyAnswer) (*wire.Bundle, error) {
	b, err := wire.VerifyBundle(nil, a.Bundle)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	var keys [][]byte
	if len(r.Approvers) > 0 {
		keys = b.Root.Keys
	}
	want, err := r.Fill(keys, a.Root)
	if err != nil {
		return nil, err
	}
	wanted, err := wire.EncodeBundle(want)
	if err != nil {
		return nil, err
	}
	got, err := wire.EncodeBundle(b)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(got, wanted) {
		return nil, errors.New("the trust bundle is not the one that was drafted")
	}
	return &b, nil
}
