package wire

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/veraison/go-cose"

	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// The signed messages about genuineness. Both carry their certificates (x5chain, RFC 9360), leaf first and the root last, so that the root's
// fingerprint is all that a verifier needs to bring.
const (
	TypeGenuine     Type = "application/hallmark-genuine+cose"
	TypeDeviceProof Type = "application/hallmark-device-proof+cose"
)

// oidVerdict is the certificate policy of the key that signs verdicts, oidServer one that the infrastructure CA has, which alone signs for it:
// UUIDs under 2.25 (X.667).
const (
	oidVerdict = "2.25.203475661018841127654837629041875522390"
	oidServer  = "2.25.88181947125876542225777665440525250992"
)

// VerdictPolicy is the certificate policy of keys that sign verdicts of genuineness.
func VerdictPolicy() x509.OID { return mustOID(oidVerdict) }

func mustOID(s string) x509.OID {
	o, err := x509.ParseOID(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return o
}

// Genuine is what a maker says of a device to whoever asks: no owner, no place, no person. It speaks about the ID. That a piece is the one
// with this ID only the piece can prove: Proof is that, when it was asked.
type Genuine struct {
	V        uint          `cbor:"1,keyasint" json:"v"` // 1
	Device   string        `cbor:"2,keyasint" json:"device"`
	Maker    string        `cbor:"3,keyasint" json:"maker"`
	Product  string        `cbor:"4,keyasint,omitempty" json:"product,omitempty"`
	Headline string        `cbor:"5,keyasint" json:"headline"` // a word: the one that matters most
	Says     []GenuineSaid `cbor:"6,keyasint" json:"says"`
	Made     uint64        `cbor:"7,keyasint,omitempty" json:"made,omitempty"`               // seconds, of the first day of the month
	Support  uint64        `cbor:"8,keyasint,omitempty" json:"end_of_support,omitempty"`     // seconds; of the product
	Nonce    []byte        `cbor:"9,keyasint,omitempty" json:"nonce,omitempty"`              // the asker's
	Issued   uint64        `cbor:"10,keyasint" json:"issued"`                                // seconds
	Expires  uint64        `cbor:"11,keyasint" json:"expires"`                               // after this, ask again
	Logs     []GenuineLog  `cbor:"12,keyasint,omitempty" json:"logs,omitempty"`              // facts that it rests on
	Proof    *GenuineProof `cbor:"13,keyasint,omitempty" json:"proof,omitempty"`             // the device's own answer to Nonce
	Unplaced uint64        `cbor:"14,keyasint,omitempty" json:"not_witnessed_yet,omitempty"` // facts it rests on that are too new for the checkpoints
}

// GenuineSaid is one statement.
type GenuineSaid struct {
	Word  string `cbor:"1,keyasint" json:"word"`
	Since uint64 `cbor:"2,keyasint,omitempty" json:"since,omitempty"` // seconds, of a day
	Text  string `cbor:"3,keyasint,omitempty" json:"text,omitempty"`  // the maker's public words
}

// GenuineLog shows that facts are in a log, under one checkpoint. A fact is given by its hash only: who wants to read it asks the log.
type GenuineLog struct {
	Name       string        `cbor:"1,keyasint" json:"name"`
	Checkpoint string        `cbor:"2,keyasint" json:"checkpoint"` // signed note with its cosignatures
	Size       uint64        `cbor:"3,keyasint" json:"size"`
	Facts      []GenuineFact `cbor:"4,keyasint" json:"facts"`
}

// GenuineFact is a fact's place and the path from it to the checkpoint's root.
type GenuineFact struct {
	Index uint64   `cbor:"1,keyasint" json:"index"`
	Kind  string   `cbor:"2,keyasint" json:"kind"` // as the signer says: the entry has it
	Leaf  []byte   `cbor:"3,keyasint" json:"leaf"` // 32 bytes, RFC 6962 leaf hash
	Path  [][]byte `cbor:"4,keyasint" json:"path"`
}

// GenuineProof is the device's evidence over GenuineNonce of the verdict's nonce. That Key is the device's is the signer's word, from the
// production record.
type GenuineProof struct {
	Key      []byte `cbor:"1,keyasint" json:"key"`      // attestation key, SubjectPublicKeyInfo
	Evidence []byte `cbor:"2,keyasint" json:"evidence"` // COSE_Sign1, TypeEvidence
	Word     string `cbor:"3,keyasint" json:"word"`     // the verifier's verdict on it
	At       uint64 `cbor:"4,keyasint" json:"at"`
}

// DeviceProof is what a device shows to who stands beside it, signed with its factory identity: nobody else need be asked.
type DeviceProof struct {
	V        uint   `cbor:"1,keyasint" json:"v"` // 1
	Device   string `cbor:"2,keyasint" json:"device"`
	Nonce    []byte `cbor:"3,keyasint" json:"nonce"`
	Attest   []byte `cbor:"4,keyasint" json:"attest"`   // attestation key, SubjectPublicKeyInfo
	Evidence []byte `cbor:"5,keyasint" json:"evidence"` // over GenuineNonce of Nonce
}

// Bounds.
const (
	MaxGenuine       = 48 << 10
	MaxDeviceProof   = MaxEvidence + 8<<10
	MinAskerNonce    = 16
	MaxAskerNonce    = 64
	maxChain         = 6
	maxGenuineSaid   = 32
	maxGenuineFacts  = 32
	maxGenuineNote   = 16 << 10
	maxGenuineText   = 2304 // a recall's reason and remedy, 1024 each, and a date
	genuineNonceSalt = "hallmark genuine v1\x00"
)

// GenuineNonce is what a device is to attest over for an asker's nonce: nobody can have it sign a nonce that means something elsewhere.
func GenuineNonce(asker []byte) [32]byte {
	return sha256.Sum256(append([]byte(genuineNonceSalt), asker...))
}

// EncodeGenuine writes g.
func EncodeGenuine(g Genuine) ([]byte, error) { return encode(g, MaxGenuine) }

// DecodeGenuine reads a verdict's payload.
func DecodeGenuine(data []byte) (Genuine, error) { return decode[Genuine](data, MaxGenuine) }

func (g Genuine) check() error {
	switch {
	case g.V != 1 || g.Device == "" || len(g.Device) > 64 || len(g.Maker) > 64 || len(g.Product) > 128:
		return errors.New("verdict: version, device, maker or product out of bounds")
	case len(g.Nonce) != 0 && (len(g.Nonce) < MinAskerNonce || len(g.Nonce) > MaxAskerNonce):
		return fmt.Errorf("verdict: nonce of %d bytes", len(g.Nonce))
	case g.Expires <= g.Issued || g.Issued == 0 || g.Expires > 1<<40 || g.Support > 1<<40 || g.Made > 1<<40:
		return errors.New("verdict: its times make no sense")
	case len(g.Says) == 0 || len(g.Says) > maxGenuineSaid || !slices.ContainsFunc(g.Says, func(s GenuineSaid) bool { return s.Word == g.Headline }):
		return errors.New("verdict: no statements, too many, or none that is its headline")
	case len(g.Logs) > 2 || g.Proof != nil && len(g.Nonce) == 0:
		return errors.New("verdict: more than two logs, or an answer to no question")
	}
	for _, s := range g.Says {
		if s.Word == "" || len(s.Word) > 32 || len(s.Text) > maxGenuineText || s.Since > 1<<40 {
			return errors.New("verdict: a statement is out of bounds")
		}
	}
	for i, l := range g.Logs {
		if err := l.check(); err != nil || i > 0 && l.Name <= g.Logs[i-1].Name {
			return fmt.Errorf("verdict: log %.64q is not in order, or: %w", l.Name, err)
		}
	}
	if p := g.Proof; p != nil && (len(p.Key) == 0 || len(p.Key) > maxSPKI || len(p.Evidence) > MaxEvidence+MaxSign1 || len(p.Word) > 32 || p.At > 1<<40) {
		return errors.New("verdict: the device's answer is out of bounds")
	}
	return nil
}

func (l GenuineLog) check() error {
	if l.Name == "" || len(l.Name) > 64 || len(l.Checkpoint) > maxGenuineNote || len(l.Facts) == 0 || len(l.Facts) > maxGenuineFacts {
		return errors.New("name, checkpoint or facts out of bounds")
	}
	for i, f := range l.Facts {
		if f.Index >= l.Size || i > 0 && f.Index <= l.Facts[i-1].Index || len(f.Leaf) != sha256.Size || f.Path == nil || len(f.Path) > 64 || len(f.Kind) > 64 {
			return fmt.Errorf("fact %d is out of bounds or not in order", f.Index)
		}
	}
	return nil
}

// Root computes the root that all facts of the log lead to.
func (l GenuineLog) Root() (root [32]byte, err error) {
	for i, f := range l.Facts {
		r, err := RootFromPath(f.Index, l.Size, [32]byte(f.Leaf), f.Path)
		if err != nil || i > 0 && r != root {
			return root, fmt.Errorf("%s entry %d: %w", l.Name, f.Index, errors.Join(ErrInclusion, err))
		}
		root = r
	}
	return root, nil
}

// Verify checks that the device that has Key answered for nonce, and gives what it says of itself.
func (p GenuineProof) Verify(device string, nonce []byte) (Evidence, error) {
	return verifyAnswer(p.Evidence, p.Key, device, nonce)
}

// verifyAnswer checks evidence over an asker's nonce by an attestation key.
func verifyAnswer(envelope, spki []byte, device string, nonce []byte) (Evidence, error) {
	key, err := ParseKey(spki)
	if err != nil {
		return Evidence{}, fmt.Errorf("attestation key: %w", err)
	}
	payload, err := Verify1(TypeEvidence, envelope, key)
	if err != nil {
		return Evidence{}, err
	}
	e, err := DecodeEvidence(payload)
	if err != nil {
		return Evidence{}, err
	}
	id, err := InstanceID(key)
	if err != nil {
		return Evidence{}, err
	}
	want := GenuineNonce(nonce)
	if e.Device != device || !slices.Equal(e.Nonce, want[:]) || !slices.Equal(e.InstanceID, id) {
		return Evidence{}, fmt.Errorf("the evidence is not device %s's answer to this question", device)
	}
	return e, nil
}

// EncodeDeviceProof writes p.
func EncodeDeviceProof(p DeviceProof) ([]byte, error) { return encode(p, MaxDeviceProof) }

// DecodeDeviceProof reads a device's proof.
func DecodeDeviceProof(data []byte) (DeviceProof, error) {
	return decode[DeviceProof](data, MaxDeviceProof)
}

func (p DeviceProof) check() error {
	if p.V != 1 || p.Device == "" || len(p.Device) > 64 || len(p.Nonce) < MinAskerNonce || len(p.Nonce) > MaxAskerNonce || len(p.Attest) == 0 ||
		len(p.Attest) > maxSPKI || len(p.Evidence) == 0 || len(p.Evidence) > MaxEvidence+MaxSign1 {
		return errors.New("device proof: version, device, nonce, key or evidence out of bounds")
	}
	return nil
}

// SignChained signs payload as one signer whose certificates, leaf first and root last (DER), go along.
func SignChained(typ Type, payload []byte, key crypto.Signer, chain [][]byte) ([]byte, error) {
	alg, suite, err := algOf(key.Public())
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	kid, err := KeyIDOf(key.Public())
	if err != nil {
		return nil, err
	}
	if len(chain) < 2 || len(chain) > maxChain {
		return nil, fmt.Errorf("sign %s: %d certificates, want 2 to %d", typ, len(chain), maxChain)
	}
	signer, err := cose.NewSigner(alg, key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	certs := make([]any, len(chain))
	for i, der := range chain {
		certs[i] = der
	}
	msg := cose.NewSign1Message()
	msg.Headers.Protected = cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: alg, cose.HeaderLabelKeyID: kid[:], cose.HeaderLabelX5Chain: certs, labelTyp: string(typ), labelSuite: suite,
	}
	msg.Payload = payload
	if err := msg.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	return msg.MarshalCBOR()
}

// ErrRoot says that a chain does not end in the root that is believed.
var ErrRoot = errors.New("its certificates do not lead to the root that is believed")

// openChained verifies the signature by the leaf of the chain that is in the envelope, and that chain up to the certificate whose SHA-256 is
// root, at the time at. Every CA below the root must be one for the policy under: a CA of another kind signs for others.
func openChained(typ Type, envelope []byte, root [32]byte, under x509.OID,
	at func(payload []byte, chain []*x509.Certificate) (time.Time, error),
) ([]byte, []*x509.Certificate, error) {
	o, err := Parse1(typ, envelope)
	if err != nil {
		return nil, nil, err
	}
	chain, err := o.chain()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", typ, err)
	}
	last := chain[len(chain)-1]
	if sha256.Sum256(last.Raw) != root {
		return nil, nil, fmt.Errorf("%s: %w: it ends in %q, SHA-256 %x", typ, ErrRoot, last.Subject.CommonName, sha256.Sum256(last.Raw))
	}
	if err := o.Verify(chain[0].PublicKey); err != nil {
		return nil, nil, err
	}
	now, err := at(o.Payload, chain)
	if err != nil {
		return nil, nil, err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(last)
	for _, c := range chain[1 : len(chain)-1] {
		if !slices.ContainsFunc(c.Policies, under.Equal) {
			return nil, nil, fmt.Errorf("%s: %w: CA %q signs for others", typ, ErrRoot, c.Subject.CommonName)
		}
		between.AddCert(c)
	}
	if _, err := idevid.HandledSAN(chain[0]).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", typ, ErrRoot, err)
	}
	return o.Payload, chain, nil
}

// Rooted gives chain (DER, leaf first) with the root that signed its last certificate, which is one of the anchors (DER).
func Rooted(chain, anchors [][]byte) ([][]byte, error) {
	if len(chain) == 0 {
		return nil, errors.New("an empty chain of certificates")
	}
	last, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil {
		return nil, err
	}
	for _, der := range anchors {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		if a.Equal(last) {
			return chain, nil
		}
		if last.CheckSignatureFrom(a) == nil {
			return append(slices.Clone(chain), der), nil
		}
	}
	return nil, fmt.Errorf("%w: no anchor signed %q", ErrRoot, last.Subject.CommonName)
}

// chain reads the certificates of the protected header.
func (o *Open1) chain() ([]*x509.Certificate, error) {
	list, ok := o.msg.Headers.Protected[cose.HeaderLabelX5Chain].([]any)
	if !ok || len(list) < 2 || len(list) > maxChain {
		return nil, fmt.Errorf("no chain of 2 to %d certificates in the protected header", maxChain)
	}
	out := make([]*x509.Certificate, len(list))
	for i, v := range list {
		der, ok := v.([]byte)
		if !ok {
			return nil, errors.New("a certificate is not a byte string")
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out[i] = c
	}
	return out, nil
}

// OpenGenuine verifies a signed verdict: signed by a key whose certificate is for verdicts and leads to the root with that SHA-256, when the
// verdict was issued. Whether it has expired is for the caller to say.
func OpenGenuine(envelope []byte, root [32]byte) (Genuine, error) {
	var g Genuine
	_, chain, err := openChained(TypeGenuine, envelope, root, mustOID(oidServer), func(payload []byte, _ []*x509.Certificate) (_ time.Time, err error) {
		g, err = DecodeGenuine(payload)
		return time.Unix(int64(min(g.Issued, 1<<40)), 0), err
	})
	if err != nil {
		return Genuine{}, err
	}
	leaf := chain[0]
	if len(chain) != 3 || len(leaf.Policies) != 1 || !leaf.Policies[0].Equal(VerdictPolicy()) || leaf.IsCA {
		return Genuine{}, fmt.Errorf("%s: %q is no certificate for verdicts", TypeGenuine, leaf.Subject.CommonName)
	}
	return g, nil
}

// GenuineRoot gives the SHA-256 of the certificate that a signed verdict's chain ends in. It says what the file claims, and proves nothing.
func GenuineRoot(envelope []byte) ([32]byte, error) {
	o, err := Parse1(TypeGenuine, envelope)
	if err != nil {
		return [32]byte{}, err
	}
	chain, err := o.chain()
	if err != nil {
		return [32]byte{}, fmt.Errorf("%s: %w", TypeGenuine, err)
	}
	return sha256.Sum256(chain[len(chain)-1].Raw), nil
}

// OpenDeviceProof verifies that the device with this ID, made under the root with that SHA-256, has answered for nonce, and gives what it
// says of itself.
func OpenDeviceProof(envelope []byte, root [32]byte, device string, nonce []byte) (DeviceProof, Evidence, error) {
	fail := func(err error) (DeviceProof, Evidence, error) { return DeviceProof{}, Evidence{}, err }
	payload, chain, err := openChained(TypeDeviceProof, envelope, root, idevid.PolicyIDevID(), func(_ []byte, chain []*x509.Certificate) (at time.Time, _ error) {
		for _, c := range chain { // identities from the factory have no end; who checks may have no clock
			if c.NotBefore.After(at) {
				at = c.NotBefore
			}
		}
		return at, nil
	})
	if err != nil {
		return fail(err)
	}
	p, err := DecodeDeviceProof(payload)
	if err != nil {
		return fail(err)
	}
	id, err := idevid.Parse(chain[0])
	if err != nil {
		return fail(fmt.Errorf("the device's certificate: %w", err))
	}
	for _, c := range chain[1:] {
		if oem, product := idevid.SubjectOEM(c); oem != id.OEM || product != "" && product != id.Product {
			return fail(fmt.Errorf("the device's certificate: CA %q signs for %s/%s", c.Subject.CommonName, oem, product))
		}
	}
	if id.Kind != idevid.IDevID || id.DeviceID != device || p.Device != device || !slices.Equal(p.Nonce, nonce) {
		return fail(fmt.Errorf("this is the proof of device %.64s (%s), or for another question", id.DeviceID, id.Kind))
	}
	e, err := verifyAnswer(p.Evidence, p.Attest, device, nonce)
	return p, e, err
}
