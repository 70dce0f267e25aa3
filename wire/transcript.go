package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// TypeTranscript is what those who took part in a key ceremony sign at its end.
const TypeTranscript Type = "application/hallmark-ceremony+cose"

// Rehearsal is the type under which a rehearsal signs what would be of type typ: signatures of a rehearsal verify as nothing real,
// whatever keys made them.
func Rehearsal(typ Type) Type { return typ + ";rehearsal" }

// RehearsalOEM is the maker's name in what a rehearsal makes. No instance is of such a name (see IsRehearsalOEM), and certificates are
// believed only under their own maker's.
func RehearsalOEM(oem string) string { return rehearsalPrefix + oem }

const rehearsalPrefix = "rehearsal."

// IsRehearsalOEM says whether a maker's name is a rehearsal's.
func IsRehearsalOEM(oem string) bool {
	return len(oem) >= len(rehearsalPrefix) && oem[:len(rehearsalPrefix)] == rehearsalPrefix
}

// Transcript is what happened at a key ceremony: a chain of steps, so that none can be changed, taken out, put in or moved, signed by
// all who had a key of their own there. People are in it by the labels that the script gives them.
type Transcript struct {
	Version   uint64        `cbor:"1,keyasint" json:"version"` // 1
	Ceremony  string        `cbor:"2,keyasint" json:"ceremony"`
	OEM       string        `cbor:"3,keyasint" json:"oem"`
	Rehearsal bool          `cbor:"4,keyasint,omitempty" json:"rehearsal,omitempty"`
	Script    []byte        `cbor:"5,keyasint" json:"script"`  // SHA-256 of the script
	Program   []byte        `cbor:"6,keyasint" json:"program"` // SHA-256 of the program's file
	People    []Participant `cbor:"7,keyasint" json:"people"`
	Steps     []Step        `cbor:"8,keyasint" json:"steps"`
}

// Participant is one of those who were there.
type Participant struct {
	Label string `cbor:"1,keyasint" json:"label"`                    // as the script names him
	Part  string `cbor:"2,keyasint" json:"part"`                     // administrator, custodian or witness
	SPKI  []byte `cbor:"3,keyasint,omitempty" json:"spki,omitempty"` // his own key, which signs the transcript
}

// Step is one step of a ceremony, as it was carried out.
type Step struct {
	Prev []byte   `cbor:"1,keyasint" json:"prev"`                    // SHA-256 of the step before (Step.Digest); of the head for the first
	Do   string   `cbor:"2,keyasint" json:"do"`                      // what the script asked for
	Key  string   `cbor:"3,keyasint,omitempty" json:"key,omitempty"` // name of the key it made or used
	SPKI []byte   `cbor:"4,keyasint,omitempty" json:"spki,omitempty"`
	At   uint64   `cbor:"5,keyasint" json:"at"` // Unix time, by the clock of the machine
	By   []string `cbor:"6,keyasint" json:"by"` // labels of those who said that they saw it
	In   []Named  `cbor:"7,keyasint,omitempty" json:"in,omitempty"`
	Out  []Named  `cbor:"8,keyasint,omitempty" json:"out,omitempty"`
	Note string   `cbor:"9,keyasint,omitempty" json:"note,omitempty"` // what there is to say of it: the shares of a key, the digest of what was thrown
}

// Named is a file by its name and SHA-256.
type Named struct {
	Name   string `cbor:"1,keyasint" json:"name"`
	SHA256 []byte `cbor:"2,keyasint" json:"sha256"`
}

// Bounds of a transcript.
const (
	MaxTranscript = 48 << 10
	maxSteps      = 128
	maxPeople     = 32
	maxFiles      = 32
)

// Parts that people take in a ceremony.
const (
	PartAdministrator = "administrator"
	PartCustodian     = "custodian"
	PartWitness       = "witness"
)

// Head is what the first step's Prev is of: which ceremony by which script and program.
func (t Transcript) Head() [32]byte {
	return chainHash("head", []any{t.Version, t.Ceremony, t.OEM, t.Rehearsal, t.Script, t.Program})
}

// Digest is what the next step's Prev is.
func (s Step) Digest() [32]byte { return chainHash("step", s) }

// chainHash separates what is hashed by a word. Everything that is given to it can be encoded.
func chainHash(word string, v any) [32]byte {
	data, err := Marshal(v)
	if err != nil {
		panic("wire: " + err.Error())
	}
	return sha256.Sum256(append([]byte("hallmark-ceremony-"+word+"\x00"), data...))
}

// EncodeTranscript writes t.
func EncodeTranscript(t Transcript) ([]byte, error) { return encode(t, MaxTranscript) }

// DecodeTranscript reads a transcript's payload and checks that its steps are one chain. Signatures are OpenTranscript's to check.
func DecodeTranscript(data []byte) (Transcript, error) {
	return decode[Transcript](data, MaxTranscript)
}

// TranscriptType is the type under which t is signed.
func (t Transcript) TranscriptType() Type {
	if t.Rehearsal {
		return Rehearsal(TypeTranscript)
	}
	return TypeTranscript
}

// Signers are the keys of those who took part: all of them sign.
func (t Transcript) Signers() KeySet {
	var s KeySet
	for _, p := range t.People {
		if len(p.SPKI) > 0 {
			s.Keys = append(s.Keys, p.SPKI)
		}
	}
	s.Threshold = uint(len(s.Keys))
	return s
}

// OpenTranscript reads a signed transcript, of a ceremony or of a rehearsal, and checks that all who had a key have signed it. Whose
// keys they are is for the caller to know.
func OpenTranscript(envelope []byte) (Transcript, error) {
	for _, typ := range []Type{TypeTranscript, Rehearsal(TypeTranscript)} {
		payload, _, err := ThresholdPayload(typ, envelope)
		if err != nil {
			continue
		}
		t, err := DecodeTranscript(payload)
		if err != nil {
			return Transcript{}, err
		}
		if t.TranscriptType() != typ {
			return Transcript{}, errors.New("transcript: signed as a rehearsal's, or the other way round")
		}
		_, err = VerifyThreshold(typ, envelope, t.Signers())
		return t, err
	}
	return Transcript{}, errors.New("this is no signed transcript")
}

func (t Transcript) check() error {
	switch {
	case t.Version != 1:
		return fmt.Errorf("transcript: version %d, want 1", t.Version)
	case !validName(t.Ceremony) || !validName(t.OEM):
		return errors.New("transcript: ceremony and OEM must be names of lower-case letters, digits, '-' and '.'")
	case len(t.Script) != sha256.Size || len(t.Program) != sha256.Size:
		return errors.New("transcript: script or program digest is not 32 bytes")
	case len(t.Steps) == 0 || len(t.Steps) > maxSteps:
		return fmt.Errorf("transcript: %d steps, want 1 to %d", len(t.Steps), maxSteps)
	}
	if err := t.checkPeople(); err != nil {
		return err
	}
	prev, last := t.Head(), uint64(0)
	for i, s := range t.Steps {
		if err := s.check(); err != nil {
			return fmt.Errorf("transcript: step %d: %w", i+1, err)
		}
		if !bytes.Equal(s.Prev, prev[:]) {
			return fmt.Errorf("transcript: step %d does not follow what is before it: a step was changed, taken out, put in or moved", i+1)
		}
		if s.At < last {
			return fmt.Errorf("transcript: step %d is older than the one before", i+1)
		}
		for _, who := range s.By {
			if !slices.ContainsFunc(t.People, func(p Participant) bool { return p.Label == who }) {
				return fmt.Errorf("transcript: step %d: %q took no part", i+1, who)
			}
		}
		prev, last = s.Digest(), s.At
	}
	return nil
}

func (t Transcript) checkPeople() error {
	if len(t.People) < 2 || len(t.People) > maxPeople {
		return fmt.Errorf("transcript: %d people, want 2 to %d: nobody holds a ceremony alone", len(t.People), maxPeople)
	}
	seen := map[string]bool{}
	for _, p := range t.People {
		if !readable(p.Label, 64) || seen[p.Label] {
			return fmt.Errorf("transcript: person %q has no readable label, or is named twice", p.Label)
		}
		seen[p.Label] = true
		if !slices.Contains([]string{PartAdministrator, PartCustodian, PartWitness}, p.Part) {
			return fmt.Errorf("transcript: %s has part %q", p.Label, p.Part)
		}
	}
	signers := t.Signers()
	if len(signers.Keys) < 2 {
		return fmt.Errorf("transcript: %d of the people have a key of their own, want 2", len(signers.Keys))
	}
	if err := signers.Check(); err != nil {
		return fmt.Errorf("transcript: %w", err)
	}
	return nil
}

func (s Step) check() error {
	switch {
	case len(s.Prev) != sha256.Size || s.At == 0 || !readable(s.Do, 32):
		return errors.New("no chain, time or name")
	case s.Key != "" && !readable(s.Key, 64), s.Note != "" && !readable(s.Note, 512):
		return errors.New("a key's name or a note that people cannot read")
	case len(s.By) == 0 || len(s.By) > maxPeople || len(s.In) > maxFiles || len(s.Out) > maxFiles:
		return fmt.Errorf("%d people, %d files in, %d out", len(s.By), len(s.In), len(s.Out))
	}
	if len(s.SPKI) > 0 {
		if _, err := ParseKey(s.SPKI); err != nil {
			return err
		}
	}
	for _, f := range slices.Concat(s.In, s.Out) {
		if !readable(f.Name, 128) || len(f.SHA256) != sha256.Size {
			return fmt.Errorf("file %q: no readable name or 32-byte digest", f.Name)
		}
	}
	return nil
}

// maxStep bounds an encoded step.
const maxStep = 8 << 10

// EncodeStep writes a step as the machine keeps it until the ceremony is over.
func EncodeStep(s Step) ([]byte, error) { return encode(s, maxStep) }

// DecodeStep reads one.
func DecodeStep(data []byte) (Step, error) { return decode[Step](data, maxStep) }

// CeremonyRequest is what an instance asks of a ceremony, in one file: CAs, and a product's first trust bundle. It is signed by nobody:
// people compare its digest on both sides.
type CeremonyRequest struct {
	OEM       string   `cbor:"1,keyasint" json:"oem"`
	Instance  string   `cbor:"2,keyasint" json:"instance"`
	Purpose   string   `cbor:"3,keyasint" json:"purpose"`
	Issued    uint64   `cbor:"4,keyasint" json:"issued"`                        // Unix time
	CAs       [][]byte `cbor:"5,keyasint" json:"cas"`                           // signed CARequests
	Draft     *Bundle  `cbor:"6,keyasint,omitempty" json:"draft,omitempty"`     // first trust bundle; what the ceremony makes is left out
	Approvers []string `cbor:"7,keyasint,omitempty" json:"approvers,omitempty"` // labels of the people whose keys the ceremony puts into it; none: they are in it
	Threshold uint     `cbor:"8,keyasint,omitempty" json:"threshold,omitempty"` // how many of them must agree
	NewRoot   bool     `cbor:"9,keyasint,omitempty" json:"new_root,omitempty"`  // the ceremony makes the OEM root, and the bundle's anchor is its certificate
}

// CeremonyAnswer is what it gives back. Nobody needs to sign it: each part is believed for its own signatures.
type CeremonyAnswer struct {
	Request    []byte   `cbor:"1,keyasint" json:"request"`                        // SHA-256 of the request
	Root       []byte   `cbor:"2,keyasint" json:"root"`                           // certificate of the OEM root, DER
	Grants     [][]byte `cbor:"3,keyasint" json:"grants"`                         // a CAGrant for each CA that was asked for
	Bundle     []byte   `cbor:"4,keyasint,omitempty" json:"bundle,omitempty"`     // signed first trust bundle
	Transcript []byte   `cbor:"5,keyasint,omitempty" json:"transcript,omitempty"` // signed transcript; left out: no ceremony was held
	Rehearsal  bool     `cbor:"6,keyasint,omitempty" json:"rehearsal,omitempty"`
}

// Bounds of the two files.
const (
	MaxCeremonyRequest = 64 << 10
	MaxCeremonyAnswer  = 192 << 10

	maxCAs = 8
)

// EncodeCeremonyRequest writes r.
func EncodeCeremonyRequest(r CeremonyRequest) ([]byte, error) { return encode(r, MaxCeremonyRequest) }

// DecodeCeremonyRequest reads a request. The CA requests in it are OpenCARequest's to check.
func DecodeCeremonyRequest(data []byte) (CeremonyRequest, error) {
	return decode[CeremonyRequest](data, MaxCeremonyRequest)
}

func (r CeremonyRequest) check() error {
	switch {
	case !validName(r.OEM) || !readable(r.Instance, 128) || !readable(r.Purpose, maxPurpose) || r.Issued == 0:
		return errors.New("ceremony request: OEM, instance, purpose and time are needed")
	case len(r.CAs) > maxCAs || len(r.CAs) == 0 && r.Draft == nil:
		return fmt.Errorf("ceremony request: %d CAs, want 1 to %d or a trust bundle", len(r.CAs), maxCAs)
	case r.Draft == nil && (len(r.Approvers) > 0 || r.Threshold != 0):
		return errors.New("ceremony request: approvers of no trust bundle")
	case r.Draft == nil:
		return nil
	}
	return r.checkDraft()
}

func (r CeremonyRequest) checkDraft() error {
	if len(r.Approvers) == 0 && !r.NewRoot {
		if r.Threshold != 0 {
			return errors.New("ceremony request: a threshold without approvers")
		}
		return r.Draft.check()
	}
	filled := *r.Draft
	if len(r.Approvers) > 0 {
		for i, a := range r.Approvers {
			if !readable(a, 64) || slices.Contains(r.Approvers[:i], a) {
				return fmt.Errorf("ceremony request: approver %q has no readable label, or is named twice", a)
			}
		}
		if r.Threshold == 0 || r.Threshold > uint(len(r.Approvers)) || len(r.Approvers) > maxSignatures {
			return fmt.Errorf("ceremony request: threshold %d of %d approvers", r.Threshold, len(r.Approvers))
		}
		for _, set := range []*KeySet{&filled.Root, &filled.Release, &filled.Warrant} {
			if len(set.Keys) > 0 || set.Threshold != 0 {
				return errors.New("ceremony request: the draft names approvers already")
			}
			*set = filled.Directive // stands in, so that the rest can be checked
		}
	}
	if r.NewRoot && len(filled.Anchors) > 0 {
		return errors.New("ceremony request: the draft has an anchor already")
	}
	return filled.check()
}

// Fill makes the trust bundle of the draft: approvers' keys, in the order of r.Approvers, and the root's certificate.
func (r CeremonyRequest) Fill(keys [][]byte, root []byte) (Bundle, error) {
	if r.Draft == nil {
		return Bundle{}, errors.New("ceremony request: it asks for no trust bundle")
	}
	b := *r.Draft
	if len(keys) != len(r.Approvers) {
		return Bundle{}, fmt.Errorf("ceremony request: %d keys of %d approvers", len(keys), len(r.Approvers))
	}
	if len(keys) > 0 {
		people := KeySet{Keys: keys, Threshold: r.Threshold}
		b.Root, b.Release, b.Warrant = people, people, people
	}
	if r.NewRoot {
		b.Anchors = [][]byte{root}
	}
	return b, b.check()
}

// EncodeCeremonyAnswer writes a.
func EncodeCeremonyAnswer(a CeremonyAnswer) ([]byte, error) { return encode(a, MaxCeremonyAnswer) }

// DecodeCeremonyAnswer reads an answer. Nothing in it is believed before its signatures are checked.
func DecodeCeremonyAnswer(data []byte) (CeremonyAnswer, error) {
	return decode[CeremonyAnswer](data, MaxCeremonyAnswer)
}

func (a CeremonyAnswer) check() error {
	if len(a.Request) != sha256.Size || len(a.Root) == 0 || len(a.Grants) > maxCAs || len(a.Grants) == 0 && len(a.Bundle) == 0 {
		return fmt.Errorf("ceremony answer: request digest of %d bytes, root of %d, %d CAs", len(a.Request), len(a.Root), len(a.Grants))
	}
	for _, g := range a.Grants {
		if _, err := DecodeCAGrant(g); err != nil {
			return fmt.Errorf("ceremony answer: %w", err)
		}
	}
	return nil
}
