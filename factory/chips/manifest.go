package chips

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of a manifest.
const (
	MaxElement = 64 << 10 // bytes of one chip's entry
	MaxChips   = 1_000_000
	maxKeys    = 16 // of one chip
)

// Chip is what a manifest says of one chip.
type Chip struct {
	UID         string    `json:"uid"` // hex, as the chip says it
	Vendor      string    `json:"vendor"`
	Model       string    `json:"model"`
	Part        string    `json:"part"`
	Group       string    `json:"group,omitempty"`
	Provisioned time.Time `json:"provisioned"`
	Keys        [][]byte  `json:"keys"`  // SHA-256 of each public key (SPKI)
	Entry       []byte    `json:"entry"` // SHA-256 of the signed entry: protected header, '.', payload
	Order       string    `json:"order,omitempty"`
	Device      string    `json:"device,omitempty"` // what was made of it
}

// Item is one entry of a manifest: a chip, or why it is none.
type Item struct {
	N    int // from 1
	Chip Chip
	Err  error
}

// Read gives a manifest entry by entry: a JSON array of signatures (JWS, RFC 7515 §7.2.2 flattened), each over what is said of one chip, by one of the
// vendor's keys. An error of Read is of the file as a whole. yield may end it.
func Read(r io.Reader, signers []*x509.Certificate, yield func(Item) error) error {
	b := &bounded{r: r}
	d := json.NewDecoder(b)
	b.left = MaxElement
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(errors.New("a manifest is a JSON array of signed entries"), err)
	}
	for n := 1; ; n++ {
		b.left = MaxElement
		if !d.More() {
			break
		}
		if n > MaxChips {
			return fmt.Errorf("more than %d chips: cut the manifest", MaxChips)
		}
		var entry json.RawMessage
		if err := d.Decode(&entry); err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
		c, err := element(entry, signers)
		if err := yield(Item{n, c, err}); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("the manifest ends before its end: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the manifest")
	}
	return nil
}

// bounded gives at most left bytes until left is set again: one entry cannot fill the memory.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("more than %d bytes", MaxElement)
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// signed is an entry as it comes: a flattened JWS (RFC 7515 §7.2.2).
type signed struct {
	protected, payload, signature string
	header                        struct {
		UniqueID string `json:"uniqueId"`
	}
}

// readSigned reads an entry so that there is one reading of it: each member once, by its exact name, and no other; base64url in its one form. Who carries a
// manifest can neither put a second payload beside the signed one nor write the same one otherwise.
func readSigned(entry []byte) (s signed, err error) {
	d := json.NewDecoder(bytes.NewReader(entry))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return s, errors.Join(errors.New("want a JSON object"), err)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return s, err
		}
		name, _ := t.(string)
		if seen[name] {
			return s, fmt.Errorf("member %.40q is there twice", name)
		}
		seen[name] = true
		to := map[string]any{"protected": &s.protected, "payload": &s.payload, "signature": &s.signature, "header": &s.header}[name]
		if to == nil {
			return s, fmt.Errorf("unknown member %.40q", name)
		}
		if err := d.Decode(to); err != nil {
			return s, err
		}
	}
	for _, part := range []string{s.protected, s.payload, s.signature} {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(b) != part {
			return s, errors.Join(errors.New("a member is no base64url, or not as it is written"), err)
		}
	}
	return s, nil
}

// said is what a vendor signs of a chip. Members that are not here are theirs.
type said struct {
	Version      int    `json:"version"`
	Model        string `json:"model"`
	PartNumber   string `json:"partNumber"`
	GroupID      string `json:"groupId"`
	Provisioned  string `json:"provisioningTimestamp"`
	UniqueID     string `json:"uniqueId"`
	PublicKeySet struct {
		Keys []struct {
			Type  string `json:"kty"`
			Curve string `json:"crv"`
			X     string `json:"x"`
			Y     string `json:"y"`
		} `json:"keys"`
	} `json:"publicKeySet"`
}

// element verifies one entry and reads it.
func element(entry []byte, signers []*x509.Certificate) (Chip, error) {
	s, err := readSigned(entry)
	if err != nil {
		return Chip{}, fmt.Errorf("not a signed entry: %w", err)
	}
	jws, err := jose.ParseSignedCompact(s.protected+"."+s.payload+"."+s.signature, []jose.SignatureAlgorithm{jose.ES256, jose.ES384})
	if err != nil {
		return Chip{}, fmt.Errorf("not a signed entry: %w", err)
	}
	payload, by, err := verify(jws, s.protected, signers)
	if err != nil {
		return Chip{}, err
	}
	var d said
	if err := json.Unmarshal(payload, &d); err != nil {
		return Chip{}, fmt.Errorf("what was signed: %w", err)
	}
	if s.header.UniqueID != "" && s.header.UniqueID != d.UniqueID {
		return Chip{}, fmt.Errorf("it is headed %.80q, and signed for chip %.80q", s.header.UniqueID, d.UniqueID)
	}
	sum := sha256.Sum256([]byte(s.protected + "." + s.payload))
	c := Chip{UID: d.UniqueID, Model: d.Model, Part: d.PartNumber, Group: d.GroupID, Entry: sum[:]}
	if c.Provisioned, err = time.Parse(time.RFC3339, d.Provisioned); err != nil {
		return Chip{}, fmt.Errorf("chip %.80q: provisioningTimestamp: %w", d.UniqueID, err)
	}
	if c.Provisioned.After(by.NotAfter) {
		return Chip{}, fmt.Errorf("chip %.80q: provisioned on %s, and the key that signed for it ended on %s", d.UniqueID, d.Provisioned, by.NotAfter.Format(time.DateOnly))
	}
	if len(c.Model) > 64 || len(c.Part) > 64 || len(c.Group) > 64 {
		return Chip{}, fmt.Errorf("chip %.80q: model, part number or group of more than 64 bytes", d.UniqueID)
	}
	for _, k := range d.PublicKeySet.Keys {
		if k.Type != "EC" || k.Curve != "P-256" {
			continue // of no use here
		}
		key, err := point(k.X, k.Y)
		if err != nil {
			return Chip{}, fmt.Errorf("chip %.80q: %w", d.UniqueID, err)
		}
		c.Keys = append(c.Keys, key)
	}
	return c, c.check()
}

// verify finds which of the vendor's keys signed. A certificate is only the wrapping of a pinned key: who pinned it compared its digest, and that it has
// run out says when chips of its time were provisioned, see element.
func verify(jws *jose.JSONWebSignature, protected string, signers []*x509.Certificate) ([]byte, *x509.Certificate, error) {
	head, err := base64.RawURLEncoding.DecodeString(protected)
	if err != nil {
		return nil, nil, fmt.Errorf("protected header: %w", err)
	}
	var h struct {
		Thumbprint string `json:"x5t#S256"`
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, nil, fmt.Errorf("protected header: %w", err)
	}
	for _, c := range signers {
		sum := sha256.Sum256(c.Raw)
		if h.Thumbprint != "" && h.Thumbprint != base64.RawURLEncoding.EncodeToString(sum[:]) {
			continue
		}
		if payload, err := jws.Verify(c.PublicKey); err == nil {
			return payload, c, nil
		}
	}
	return nil, nil, errors.New("no key of this vendor has signed it")
}

// point gives the digest of a key that is told by its coordinates.
func point(x, y string) ([]byte, error) {
	var at [65]byte
	at[0] = 4
	for i, s := range []string{x, y} {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(b) != 32 {
			return nil, errors.New("a coordinate of a key is not 32 bytes in base64url")
		}
		copy(at[1+32*i:], b)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), at[:])
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	return sum[:], nil
}

func (c Chip) check() error {
	uid, err := hex.DecodeString(c.UID)
	if err != nil || len(uid) < 8 || len(uid) > 32 || hex.EncodeToString(uid) != c.UID {
		return fmt.Errorf("chip %.80q: want 8 to 32 bytes in lower-case hex", c.UID)
	}
	if len(c.Keys) == 0 || len(c.Keys) > maxKeys {
		return fmt.Errorf("chip %s: %d keys on P-256, want 1 to %d", c.UID, len(c.Keys), maxKeys)
	}
	return nil
}
